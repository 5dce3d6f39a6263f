"""The genome format: what is written comes back, what is damaged is named with its line."""

import gzip
import hashlib
import lzma
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from chrysalis_mlx.errors import GenomeError
from chrysalis_mlx.genome.text.format import GenomeFile, genome_identity, read_genome, write_genome
from tests.genome.repositories import REAL_GENOME

SMALL = (
    "<|repo_start|>first\n"
    "<|file_start|>a.md\nalpha\n\n<|file_end|>\n"
    "<|file_start|>b/c.txt\n\n<|file_end|>\n"
    "<|repo_end|>\n\n"
    "<|repo_start|>second\n"
    "<|file_start|>a.md\nno line end\n<|file_end|>\n"
    "<|repo_end|>\n\n"
)
SMALL_FILES = [
    GenomeFile("first", "a.md", "alpha\n"),
    GenomeFile("first", "b/c.txt", ""),
    GenomeFile("second", "a.md", "no line end"),
]

PIECES = ["<|repo_start|>", "<|repo_end|>", "<|file_start|>", "<|file_end|>", "<\\|file_end|>", "<\\\\|repo_end|>"]
texts = st.lists(
    st.sampled_from([*PIECES, "<", "\\", "|", "\n", "\r\n", "\r", "\ufeff", "\x85", "\u2028", "ä"]) | st.text()
)
names = st.lists(st.sampled_from([*PIECES, "\r", "\ufeff", "/", " "]) | st.text(), min_size=1).map(
    lambda parts: "".join(parts).replace("\n", "") or "name"
)


def genome(tmp_path: Path, content: str | bytes, name: str = "genome.txt") -> Path:
    path = tmp_path / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def test_format_is_that_of_the_asi_ecosystem(tmp_path: Path) -> None:
    assert list(read_genome(genome(tmp_path, SMALL))) == SMALL_FILES
    identity = write_genome(SMALL_FILES, tmp_path / "again.txt")
    assert (tmp_path / "again.txt").read_bytes() == SMALL.encode()
    assert identity == (hashlib.sha256(SMALL.encode()).hexdigest(), len(SMALL.encode()))


@settings(deadline=None, max_examples=200)
@given(st.lists(st.tuples(names, names, texts.map("".join)), min_size=1, max_size=4), st.integers(1, 40))
@example([("r", "p", "")], 1)
@example([("r", "p", "\n")], 1)
@example([("r", "p", "<|file_end|>")], 5)
@example([("r", "p", "<|file_end|>\r\n<\\|file_end|>\n<\\\\|file_end|>tail")], 14)
@example([("r", "p", "\ufeff<|file_end|>\r\n")], 15)
@example([("r\r", "p\r", "<|repo_end|>\n\n<|repo_start|>x\n<|file_start|>y")], 16)
@example([("<|repo_end|>", "<|file_end|>", "x")], 3)
def test_every_text_and_name_comes_back(
    tmp_path_factory: pytest.TempPathFactory, parts: list[tuple[str, str, str]], block_bytes: int
) -> None:
    path = tmp_path_factory.mktemp("genome") / "genome.txt"
    files = [GenomeFile(*part) for part in parts]
    write_genome(files, path)
    assert list(read_genome(path, block_bytes=block_bytes)) == files


@pytest.mark.parametrize("piece", PIECES)
def test_marker_at_every_position_of_a_text(tmp_path: Path, piece: str) -> None:
    text = "\ufeffa\n\r\n<\\|b\n\n\r" + piece + "\n<\\" + piece + "\nc\n"
    files = [GenomeFile("r", f"{at}", text[:at] + piece + text[at:]) for at in range(len(text) + 1)]
    write_genome(files, tmp_path / "g.txt")
    assert list(read_genome(tmp_path / "g.txt")) == files


@pytest.mark.parametrize("block_bytes", range(1, 34))
def test_marker_across_two_blocks(tmp_path: Path, block_bytes: int) -> None:
    """Files of growing length bring every marker to every offset in a block."""
    files = [GenomeFile("r", "p", "x" * size + "\n<|file_end|>\n<|fil\n<|\n") for size in range(34)]
    identity = write_genome(files, tmp_path / "g.txt")
    reading = read_genome(tmp_path / "g.txt", block_bytes=block_bytes)
    assert list(reading) == files
    assert reading.identity == identity


def test_identity_comes_with_reading_and_only_of_the_whole(tmp_path: Path) -> None:
    path = genome(tmp_path, gzip.compress(SMALL.encode()))
    reading = read_genome(path, block_bytes=16)
    assert next(reading) == SMALL_FILES[0]
    assert reading.identity is None
    assert list(reading) == SMALL_FILES[1:]
    assert reading.identity == genome_identity(path) == (hashlib.sha256(SMALL.encode()).hexdigest(), len(SMALL))

    broken = read_genome(genome(tmp_path, "hello\n" + SMALL), block_bytes=16)
    with pytest.raises(GenomeError, match="found 'hello'"):
        next(broken)
    assert list(broken) == []
    assert broken.identity is None


def test_memory_is_that_of_a_file_and_a_block(tmp_path: Path) -> None:
    text = ("eighty characters of Markdown, ä once, and no end in sight for this long line.\n" * 512)[:40_000]
    path = tmp_path / "g.txt"
    tracemalloc.start()
    try:
        written = write_genome((GenomeFile("r", f"{number}.md", text) for number in range(1500)), path)
        read = sum(len(file.text) for file in read_genome(path))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert written.bytes > 60_000_000
    assert read == 1500 * 40_000
    assert peak < 5_000_000


def test_marker_at_the_start_of_a_content_line_is_escaped(tmp_path: Path) -> None:
    text = "<|file_end|>\n see <|file_end|>\n<\\|file_end|>\n<\\x\n<|file_mid|>\n"
    write_genome([GenomeFile("r", "p", text)], tmp_path / "g.txt")
    written = (tmp_path / "g.txt").read_text().split("\n")[2:-5]
    assert written == ["<\\|file_end|>", " see <|file_end|>", "<\\\\|file_end|>", "<\\x", "<|file_mid|>"]


@pytest.mark.parametrize("suffix", ["", ".gz", ".xz"])
def test_packing_does_not_change_the_identity_and_is_reproducible(tmp_path: Path, suffix: str) -> None:
    one, two = tmp_path / f"one.txt{suffix}", tmp_path / f"two.txt{suffix}"
    assert write_genome(SMALL_FILES, one) == write_genome(SMALL_FILES, two) == genome_identity(one)
    assert one.read_bytes() == two.read_bytes()
    assert genome_identity(one).sha256 == hashlib.sha256(SMALL.encode()).hexdigest()
    unnamed = tmp_path / "downloaded"
    unnamed.write_bytes(one.read_bytes())
    assert list(read_genome(unnamed)) == SMALL_FILES
    assert not list(tmp_path.glob("*.partial"))


def test_content_is_utf8() -> None:
    assert GenomeFile("r", "p", "\ufeffä\r\n").content == b"\xef\xbb\xbf\xc3\xa4\r\n"


def test_genome_of_other_scripts(tmp_path: Path) -> None:
    """They know no escape, put empty lines where they like, and name a repository or a path twice."""
    foreign = (
        "\n<|repo_start|>one\n\n<|file_start|>a.md\nsee <|file_end|> here\n<|file_end|>\n\n\n"
        "<|file_start|>a.md\n <|repo_end|>\r\n<\\x\n<|file_end|>\n<|repo_end|>\n"
        "<|repo_start|>none\n<|repo_end|>\n\n\n"
        "<|repo_start|>one\n<|file_start|>b\n<|file_end|>\n<|repo_end|>"
    )
    assert list(read_genome(genome(tmp_path, foreign))) == [
        GenomeFile("one", "a.md", "see <|file_end|> here"),
        GenomeFile("one", "a.md", " <|repo_end|>\r\n<\\x"),
        GenomeFile("one", "b", ""),
    ]


def test_empty_lines_between_parts_are_skipped(tmp_path: Path) -> None:
    loose = SMALL.replace("<|file_start|>b", "\n\n<|file_start|>b").rstrip("\n")
    assert list(read_genome(genome(tmp_path, loose))) == SMALL_FILES


@pytest.mark.parametrize(
    ("content", "line", "words"),
    [
        ("hello\n", 1, "expected <|repo_start|>NAME, found 'hello'"),
        ("\n<|file_start|>a\n", 2, "expected <|repo_start|>NAME"),
        ("<|repo_start|>\n", 1, "a name after <|repo_start|>"),
        ("<|repo_start|>r\ntext\n", 2, "expected <|file_start|>PATH or <|repo_end|>, found 'text'"),
        ("<|repo_start|>r\n<|file_start|>\n", 2, "a name after <|file_start|>"),
        ("<|repo_start|>r\n<|file_start|>a\nx\n<|file_start|>b\n", 4, "expected <|file_end|> of 'a', opened in line 2"),
        ("<|repo_start|>r\n<|file_start|>a\nx\n<|file_end|> y\n", 4, "<|file_end|> alone on its line"),
        ("<|repo_start|>r\n<|file_start|>a\nx\n", 3, "ends before the <|file_end|> of file 'a', which line 2 opens"),
        ("<|repo_start|>r\n<|file_start|>a\nx", 3, "ends before the <|file_end|> of file 'a', which line 2 opens"),
        ("<|repo_start|>r\n<|file_start|>a\n", 2, "ends before the <|file_end|> of file 'a', which line 2 opens"),
        ("<|repo_start|>r\n<|file_start|>a\n\n\n<|repo_end|>", 5, "expected <|file_end|> of 'a', opened in line 2"),
        ("<|repo_start|>r\n<|repo_end|> \n", 2, "<|repo_end|> alone on its line"),
        ("<|repo_start|>r\n\n<|file_start|>a\n\n<|file_end|>\n\n\n", 7, "of repository 'r', which line 1 opens"),
        ("<|repo_start|>r\n<|file_start|>a\nx\n<|file_end|>\n", 4, "ends before the <|repo_end|> of repository 'r'"),
        ("<|repo_start|>r\r\n<|file_start|>a\r\nx\r\n<|file_end|>\r\n", 4, "changed to CRLF"),
        ("\ufeff<|repo_start|>r\n", 1, "byte order mark"),
    ],
)
def test_malformed_genome_names_line_and_expectation(tmp_path: Path, content: str, line: int, words: str) -> None:
    for block_bytes in (1, 7, 1 << 20):
        with pytest.raises(GenomeError) as caught:
            list(read_genome(genome(tmp_path, content), block_bytes=block_bytes))
        assert caught.value.where == f"{tmp_path / 'genome.txt'}, line {line}"
        assert words in str(caught.value)
        assert caught.value.fix


@pytest.mark.parametrize("content", [b"", b"\n\n", b"<|repo_start|>r\n<|repo_end|>\n\n", gzip.compress(b"")])
def test_empty_genome(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(GenomeError, match="the genome is empty"):
        list(read_genome(genome(tmp_path, content)))


@pytest.mark.parametrize(
    ("head", "tail", "line"),
    [
        (b"<|repo_start|>r\n<|file_start|>a\nfine\nca", b"\n<|file_end|>\n", 4),
        (b"<|repo_start|>r\n<|file_start|>a\n", b"\n<|repo_start|>", 3),  # comes before the marker that should not be
        (b"<|repo_start|>r\n<|file_start|>a\n<\\|file_end|>\n<\\|repo_end|> ", b"", 4),  # escapes count as written
        (b"<|repo_start|>r\n\n<|file_start|>na", b"me\n", 3),
        (b"<|repo_start|>", b"", 1),
    ],
)
def test_not_utf8_names_line_and_byte(tmp_path: Path, head: bytes, tail: bytes, line: int) -> None:
    for block_bytes in (1, 7, 1 << 20):
        with pytest.raises(GenomeError, match="byte 0xe9") as caught:
            list(read_genome(genome(tmp_path, head + b"\xe9" + tail), block_bytes=block_bytes))
        assert caught.value.where == f"{tmp_path / 'genome.txt'}, line {line}, byte {len(head)}"


@pytest.mark.parametrize("pack", [gzip.compress, lzma.compress])
@pytest.mark.parametrize("damage", ["cut", "flip"])
def test_damaged_packing(tmp_path: Path, pack, damage: str) -> None:  # type: ignore[no-untyped-def]
    packed = bytearray(pack(SMALL.encode() * 20))
    if damage == "cut":
        del packed[len(packed) // 2 :]
    else:
        packed[len(packed) // 2] ^= 0xFF
    with pytest.raises(GenomeError, match="damaged or cut short"):
        list(read_genome(genome(tmp_path, bytes(packed))))


def test_missing_genome_and_directory(tmp_path: Path) -> None:
    for path in (tmp_path / "none", tmp_path):
        with pytest.raises(GenomeError, match="cannot be read"):
            list(read_genome(path))


@pytest.mark.parametrize(
    "file", [GenomeFile("", "p", ""), GenomeFile("r", "a\nb", ""), GenomeFile("r", "p", "\ud800"), None]
)
def test_what_the_format_cannot_hold_leaves_the_old_file_alone(tmp_path: Path, file: GenomeFile | None) -> None:
    old = genome(tmp_path, SMALL)
    with pytest.raises(GenomeError):
        write_genome([] if file is None else [SMALL_FILES[0], file], old)
    assert old.read_text() == SMALL
    assert [path.name for path in tmp_path.iterdir()] == ["genome.txt"]


@pytest.mark.skipif(not REAL_GENOME.is_file(), reason=f"the real genome is not here: {REAL_GENOME}")
def test_real_genome_reads_and_writes_byte_for_byte(tmp_path: Path) -> None:
    reading = read_genome(REAL_GENOME)
    files = list(reading)
    assert len(files) == 1450
    assert len({file.repository for file in files}) == 33
    written = write_genome(files, tmp_path / "again.txt")
    assert written == reading.identity == genome_identity(REAL_GENOME)
    assert written.bytes == 16_128_677
    assert written.sha256.startswith("29d35be7")
    assert list(read_genome(tmp_path / "again.txt")) == files
