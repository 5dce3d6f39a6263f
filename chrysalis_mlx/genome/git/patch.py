"""Patches as git writes them, file by file and hunk by hunk.

Nothing that a file or its name holds can pass for a line of the patch itself: git puts a mark before every line of a
file and quotes a name with a line break.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from chrysalis_mlx.genome.git.command import MODES_FILE

_HUNK = re.compile(r"(@@ -\d+(?:,\d+)? \+\d+(?:,\d+)? @@).*")
_NOTHING = "/dev/null"


@dataclass(frozen=True)
class FileDiff:
    """What was changed in one file.

    Attributes:
        path: of the file after the change.
        old_path: before it; None for a new file.
        mode: as in a git tree.
        header: the lines `--- a/...` and `+++ b/...`.
        hunks: each with its line `@@ -12,7 +12,9 @@`; line ends are LF.
    """

    path: str
    old_path: str | None
    mode: str
    header: str
    hunks: tuple[str, ...]

    @property
    def text(self) -> str:
        return self.header + "".join(self.hunks)

    def lines(self, marks: str) -> str:
        """The lines that have one of these marks (` `, `-`, `+`), without it."""
        lines = (line for hunk in self.hunks for line in split_lines(hunk))
        return "".join(line[1:] for line in lines if line[0] in marks)


def split_lines(text: str) -> list[str]:
    """The lines of a hunk, each with its LF; what else Python takes for a line end stands within them."""
    return [f"{line}\n" for line in text.split("\n")[:-1]]


def read_patch(lines: Iterable[bytes], max_bytes: int) -> Iterator[FileDiff | None]:
    """The files of a patch as `git diff-tree -p --full-index` writes it, with core.quotePath off.

    Args:
        lines: of the patch, each with its line break.
        max_bytes: a file's diff that is larger is passed over, and never held.

    Returns:
        one for each file; None where no text was changed (a mode, a name, a binary file), where a diff is larger than
        `max_bytes` and where it is not UTF-8.
    """
    section: list[bytes] = []
    size = 0
    for line in lines:
        if line.startswith(b"diff --git "):
            if section:
                yield _file_diff(section, size <= max_bytes)
            section, size = [], 0
        size += len(line)
        if size <= max_bytes or not section:
            section.append(line)
    if section:
        yield _file_diff(section, size <= max_bytes)


def _file_diff(section: list[bytes], is_whole: bool) -> FileDiff | None:
    start = next((number for number, line in enumerate(section) if line.startswith(b"@@ ")), None)
    if start is None or not is_whole:
        return None
    try:
        head = [line.decode("utf-8") for line in section[:start]]
        # git cuts what it repeats of a function after the second @@ within a character, if need be.
        body = [line.decode("utf-8", "ignore" if line.startswith(b"@@ ") else "strict") for line in section[start:]]
    except UnicodeDecodeError:
        return None
    old_path, path = _path(head[-2]), _path(head[-1])
    if path is None:
        return None
    return FileDiff(path, old_path, _mode(head), head[-2] + head[-1], tuple(_hunks(body)))


def _hunks(body: list[str]) -> Iterator[str]:
    hunk: list[str] = []
    for line in body:
        if line.startswith("@@ "):
            if hunk:
                yield "".join(hunk)
            hunk = [_HUNK.sub(r"\1", line)]
        else:
            hunk.append(line.replace("\r\n", "\n"))
    yield "".join(hunk)


def _path(line: str) -> str | None:
    """The path that a line `--- a/...` or `+++ b/...` names."""
    name = line[4:].removesuffix("\n").removesuffix("\t")
    if name == _NOTHING:
        return None
    if name.startswith('"'):
        name = ast.literal_eval(name)  # git quotes as C does, and these escapes are Python's as well
    return name[2:]


def _mode(head: list[str]) -> str:
    for line in head:
        if line.startswith(("new file mode ", "new mode ")) or (line.startswith("index ") and line.count(" ") == 2):
            return line.split()[-1]
    return MODES_FILE[0]
