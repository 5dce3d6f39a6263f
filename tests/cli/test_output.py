"""What a stranger wrote, on a terminal: it is shown and never obeyed."""

from pathlib import Path

import pytest

from chrysalis_mlx.cli.genome.options import show_failures
from chrysalis_mlx.cli.output import out, printable, progress, say, table
from tests.end_to_end.inputs import call
from tests.genome.repositories import make_repository, put

NAME = "\x1b]0;x\x07\x1b[31mx.md"
SHOWN = r"\x1b]0;x\x07\x1b[31mx.md"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (NAME, SHOWN),
        ("a\nb\tc\r\x7f\x9b", r"a\nb\tc\r\x7f\x9b"),
        ("a\u202eb\u2066c\u200fd\u2028e", r"a\u202eb\u2066c\u200fd\u2028e"),
        ("no UTF-8: \udcff", r"no UTF-8: \udcff"),
        ("ä 日本 👩\u200d🚀 [red] \\x1b :smile:", "ä 日本 👩\u200d🚀 [red] \\x1b :smile:"),
    ],
)
def test_printable(text: str, shown: str) -> None:
    assert printable(text) == shown


def test_printable_keeps_line_breaks_where_it_is_asked_to() -> None:
    assert printable("a\n\x1bb\r\n", lines=True) == "a\n\\x1bb\\r\n"


def test_tables_lines_and_progress_show_a_name_that_a_terminal_would_obey(capfd: pytest.CaptureFixture[str]) -> None:
    out().print(table("name", rows=[(NAME,)]))
    say(f"first [red] :smile: {NAME}", "second " + "long " * 40)
    with progress("reading", 1) as bar:
        bar.update(last=NAME)
    printed = capfd.readouterr()
    lines = [line.strip() for line in printed.out.splitlines() if line.strip()]
    assert lines[-3:] == [SHOWN, f"first [red] :smile: {SHOWN}", "second " + "long " * 39 + "long"]
    assert printed.err.endswith(f"last {SHOWN}\n")


def test_what_kept_a_repository_away_keeps_its_lines(capfd: pytest.CaptureFixture[str]) -> None:
    show_failures({"\x1bone": "fatal: \u202eno\nremote: [sorry]"})
    assert capfd.readouterr().out == "\\x1bone cannot be had:\n  fatal: \\u202eno\n  remote: [sorry]\n"


def test_no_genome_command_hands_a_name_to_the_terminal(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    make_repository(tmp_path / "origin", {"a.md": "one\n"})
    put(tmp_path, "genome.yaml", f"sources: [file://{tmp_path}/origin]\n")
    for command in ("lock", "clone"):
        assert call(capfd, "genome", command)[0] == 0
    put(tmp_path, f"clones/origin/{NAME}", "untracked\n")
    printed = [call(capfd, "genome", "audit")[1]]
    assert call(capfd, "genome", "build", "-o", "before.txt")[0] == 0

    put(tmp_path, f"origin/{NAME}", "two\n")
    make_repository(tmp_path / "origin", {})
    for command in ("lock", "clone"):
        assert call(capfd, "genome", command)[0] == 0
    assert call(capfd, "genome", "build", "-o", "after.txt")[0] == 0
    printed += [
        call(capfd, "genome", "show", "after.txt")[1],
        call(capfd, "genome", "diff", "before.txt", "after.txt")[1],
    ]
    put(tmp_path, "after.txt", (tmp_path / "after.txt").read_bytes().replace(b"two\n", b"three\n"))
    printed.append(call(capfd, "genome", "verify", "after.txt")[1])
    for text in printed:
        assert SHOWN in text or '"\\033]0;x\\007\\033[31mx.md"' in text, text
        assert all(char == "\n" or char.isprintable() for char in text)
