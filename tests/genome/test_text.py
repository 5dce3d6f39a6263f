"""The genome format: what is written comes back, what is damaged is named with its line."""

import gzip
import hashlib
import lzma
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from chrysalis_mlx.errors import GenomeError
from chrysalis_mlx.genome.text import GenomeFile, genome_identity, read_genome, write_genome

# Beside the checkout, where there is one; it is not part of the project.
REAL = Path(__file__).parents[3] / "shared" / "data" / "ecosystem-genome.txt.xz"

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
names = st.text(min_size=1).filter(lambda name: "\n" not in name)


def genome(tmp_path: Path, content: str | bytes, name: str = "genome.txt") -> Path:
    path = tmp_path / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def test_format_is_that_of_the_asi_ecosystem(tmp_path: Path) -> None:
    assert list(read_genome(genome(tmp_path, SMALL))) == SMALL_FILES
    identity = write_genome(SMALL_FILES, tmp_path / "again.txt")
    assert (tmp_path / "again.txt").read_bytes() == SMALL.encode()
    assert identity == (hashlib.sha256(SMALL.encode()).hexdigest(), len(SMALL.encode()))


@settings(deadline=None, max_examples=150)
@given(st.lists(st.tuples(names, names, texts.map("".join)), min_size=1, max_size=4))
@example([("r", "p", "")])
@example([("r", "p", "\n")])
@example([("r", "p", "<|file_end|>")])
@example([("r", "p", "<|file_end|>\r\n<\\|file_end|>\n<\\\\|file_end|>tail")])
@example([("r", "p", "\ufeff<|file_end|>\r\n")])
@example([("r\r", "p\r", "<|repo_end|>\n\n<|repo_start|>x\n<|file_start|>y")])
def test_every_text_comes_back(tmp_path_factory: pytest.TempPathFactory, parts: list[tuple[str, str, str]]) -> None:
    path = tmp_path_factory.mktemp("genome") / "genome.txt"
    files = [GenomeFile(*part) for part in parts]
    write_genome(files, path)
    assert list(read_genome(path)) == files


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
        ("<|repo_start|>r\n<|file_start|>a\nx\n<|file_end|>\n", 4, "ends before the <|repo_end|> of repository 'r'"),
        ("<|repo_start|>r\r\n<|file_start|>a\r\nx\r\n<|file_end|>\r\n", 4, "changed to CRLF"),
        ("\ufeff<|repo_start|>r\n", 1, "byte order mark"),
    ],
)
def test_malformed_genome_names_line_and_expectation(tmp_path: Path, content: str, line: int, words: str) -> None:
    with pytest.raises(GenomeError) as caught:
        list(read_genome(genome(tmp_path, content)))
    assert caught.value.where == f"{tmp_path / 'genome.txt'}, line {line}"
    assert words in str(caught.value)
    assert caught.value.fix


@pytest.mark.parametrize("content", [b"", b"\n\n", b"<|repo_start|>r\n<|repo_end|>\n\n", gzip.compress(b"")])
def test_empty_genome(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(GenomeError, match="the genome is empty"):
        list(read_genome(genome(tmp_path, content)))


def test_not_utf8_names_line_and_byte(tmp_path: Path) -> None:
    head = b"<|repo_start|>r\n<|file_start|>a\nfine\nca"
    with pytest.raises(GenomeError, match="byte 0xe9") as caught:
        list(read_genome(genome(tmp_path, head + b"\xe9\n<|file_end|>\n")))
    assert caught.value.where == f"{tmp_path / 'genome.txt'}, line 4, byte {len(head)}"


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


@pytest.mark.skipif(not REAL.is_file(), reason=f"the real genome is not here: {REAL}")
def test_real_genome_reads_and_writes_byte_for_byte(tmp_path: Path) -> None:
    files = list(read_genome(REAL))
    assert len(files) == 1450
    assert len({file.repository for file in files}) == 33
    written = write_genome(files, tmp_path / "again.txt")
    assert written == genome_identity(REAL)
    assert written.bytes == 16_128_677
    assert list(read_genome(tmp_path / "again.txt")) == files
