"""The figures of a genome, each counted by hand."""

import hashlib
from pathlib import Path

import pytest

from chrysalis_mlx.errors import GenomeError
from chrysalis_mlx.genome.text.format import GenomeFile, read_genome, write_genome
from chrysalis_mlx.genome.text.summary import LargeFile, RepositorySummary, summarize
from tests.genome.repositories import REAL_GENOME

FILES = [
    GenomeFile("zoo", "a.md", "\ufeffalpha"),  # 8 bytes
    GenomeFile("zoo", "b.md", "beta two\r\n"),  # 10
    GenomeFile("zoo", "c.md", "beta two\r\n"),
    GenomeFile("ant", "blank.txt", " \n"),  # 2
    GenomeFile("ant", "copy.md", "beta two\r\n"),
    GenomeFile("bee", "empty", ""),
]


def words(text: str) -> int:
    return len(text.split())


def test_every_figure(tmp_path: Path) -> None:
    path = tmp_path / "g.txt.gz"
    identity = write_genome(FILES, path)
    assert summarize(path, words).as_dict() == {
        "path": path,
        "sha256": identity.sha256,
        "repositories": 3,
        "files": 6,
        "bytes": identity.bytes,
        "content_bytes": 40,
        "tokens": 7,
        "duplicates": 2,
        "duplicate_bytes": 20,
        "duplicate_share": 0.5,
        "blank": 2,
        "largest": [
            {"repository": "zoo", "path": "b.md", "bytes": 10},
            {"repository": "zoo", "path": "c.md", "bytes": 10},
            {"repository": "ant", "path": "copy.md", "bytes": 10},
            {"repository": "zoo", "path": "a.md", "bytes": 8},
            {"repository": "ant", "path": "blank.txt", "bytes": 2},
            {"repository": "bee", "path": "empty", "bytes": 0},
        ],
        "by_repository": [
            {"repository": "zoo", "files": 3, "bytes": 28, "tokens": 5}
            | {"duplicates": 1, "duplicate_bytes": 10, "duplicate_share": 10 / 28},
            {"repository": "ant", "files": 2, "bytes": 12, "tokens": 2}
            | {"duplicates": 1, "duplicate_bytes": 10, "duplicate_share": 10 / 12},
            {"repository": "bee", "files": 1, "bytes": 0, "tokens": 0}
            | {"duplicates": 0, "duplicate_bytes": 0, "duplicate_share": 0.0},
        ],
    }


def test_nobody_counts_tokens(tmp_path: Path) -> None:
    write_genome(FILES, tmp_path / "g.txt")
    summary = summarize(tmp_path / "g.txt")
    assert summary.tokens is None
    assert [entry.tokens for entry in summary.by_repository] == [None, None, None]


def test_only_the_ten_largest_and_the_earlier_of_equals(tmp_path: Path) -> None:
    sizes = [3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8, 9]
    write_genome([GenomeFile("r", f"{at}", "x" * size) for at, size in enumerate(sizes)], tmp_path / "g.txt")
    assert [(int(file.path), file.bytes) for file in summarize(tmp_path / "g.txt").largest] == [
        (5, 9),
        (12, 9),
        (11, 8),
        (7, 6),
        (4, 5),
        (8, 5),
        (10, 5),
        (2, 4),
        (0, 3),
        (9, 3),
    ]


def test_repository_in_two_parts_is_one(tmp_path: Path) -> None:
    parts = [GenomeFile("a", "1", "x"), GenomeFile("b", "2", "yy"), GenomeFile("a", "3", "zzz")]
    write_genome(parts, tmp_path / "g.txt")
    assert summarize(tmp_path / "g.txt").by_repository == [
        RepositorySummary("a", files=2, bytes=4),
        RepositorySummary("b", files=1, bytes=2),
    ]


def test_damaged_genome(tmp_path: Path) -> None:
    (tmp_path / "g.txt").write_text("no genome\n")
    with pytest.raises(GenomeError, match="found 'no genome'"):
        summarize(tmp_path / "g.txt")


@pytest.mark.skipif(not REAL_GENOME.is_file(), reason=f"the real genome is not here: {REAL_GENOME}")
def test_real_genome() -> None:
    summary = summarize(REAL_GENOME, len)
    assert (summary.repositories, summary.files, summary.bytes) == (33, 1450, 16_128_677)
    assert (summary.duplicates, summary.blank) == (304, 105)
    contents = [file.content for file in read_genome(REAL_GENOME)]
    unique = {hashlib.sha256(content).digest(): len(content) for content in contents}
    assert summary.content_bytes == sum(map(len, contents))
    assert summary.duplicate_bytes == summary.content_bytes - sum(unique.values())
    assert summary.tokens == sum(len(content.decode()) for content in contents)
    assert [file.bytes for file in summary.largest] == sorted(map(len, contents), reverse=True)[:10]
    assert isinstance(summary.largest[0], LargeFile)
    engine = next(entry for entry in summary.by_repository if entry.repository == "ml-visual-engine")
    assert (engine.bytes, engine.tokens) == (12_487_640, 12_359_570)
