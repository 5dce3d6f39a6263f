"""What `git fsck` says about a repository's objects, told apart: missing, corrupt, dangling, and everything else."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from chrysalis_mlx.genome.git.command import command_line, environment, git

_OID = r"[0-9a-f]{64}|[0-9a-f]{40}"
_FOUND = re.compile(rf"(missing|dangling|unreachable) (\w+ (?:{_OID}))")
_LOOSE = re.compile(r"objects/([0-9a-f]{2})/([0-9a-f]{62}|[0-9a-f]{38})\b")
# One object that is not there makes git complain in all of these ways of whatever points at it.
_ABSENT = re.compile(
    rf"(?:invalid sha1 pointer|invalid reflog entry|Could not read|failed to parse commit) (?P<one>{_OID})"
    rf"|(?P<two>{_OID}): invalid sha1 pointer in cache-tree"
)
_CORRUPT = re.compile(
    r"corrupt|mismatch|garbage|inflate|zlib|truncated|hash|signature|checksum|CRC|unable to|cannot (?:un|be )"
    r"|does not match|is empty|non-monotonic|beyond end|wrong|bad (?:sha1|index|object|pack)"
)


@dataclass(frozen=True)
class FsckReport:
    """Everything that git fsck said, line by line.

    Attributes:
        status: git's exit status; 0 when nothing is wrong.
        missing: objects that something points at and that are not there.
        corrupt: what is damaged, in git's words.
        dangling: objects that nothing points at; no damage.
        messages: what else it said, such as a message id that is no damage of the bytes.
    """

    status: int
    missing: tuple[str, ...] = ()
    corrupt: tuple[str, ...] = ()
    dangling: tuple[str, ...] = ()
    messages: tuple[str, ...] = ()

    @property
    def sound(self) -> bool:
        return self.status == 0 and not self.missing and not self.corrupt

    def evidence(self) -> list[str]:
        """All of it, one line each, named by its kind."""
        kinds = {"corrupt": self.corrupt, "missing": self.missing, "message": self.messages, "dangling": self.dangling}
        lines = [f"{kind}: {line}" for kind, found in kinds.items() for line in found]
        if self.status and not lines:
            lines.append(f"git fsck ended with status {self.status} and said nothing")
        return lines


def fsck(root: Path, ignore: Sequence[str] = ()) -> FsckReport:
    """Check every object of a repository, and that all objects of its HEAD are there.

    Args:
        ignore: fsck message ids that are let through, such as zeroPaddedFilemode.

    Raises:
        GitError: HEAD's objects cannot be listed.
    """
    settings = [word for name in ignore for word in ("-c", f"fsck.{name}=ignore")]
    done = subprocess.run(
        command_line(root, *settings, "fsck", "--full", "--strict", "--no-progress"),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
        env=environment(root),
    )
    output, errors = (stream.decode("utf-8", "backslashreplace") for stream in (done.stdout, done.stderr))
    report = parse_fsck(output, errors, done.returncode)
    return (
        FsckReport(0, _promised(root), dangling=report.dangling, messages=report.messages) if report.sound else report
    )


def parse_fsck(output: str, errors: str, status: int) -> FsckReport:
    """Tell apart what git fsck printed.

    Args:
        output: its standard output, in the C locale.
        errors: its standard error.
        status: its exit status.
    """
    found: dict[str, list[str]] = {"missing": [], "dangling": [], "unreachable": []}
    corrupt, messages, absent = [], [], []
    for line in output.splitlines():
        if match := _FOUND.fullmatch(line):
            found[match[1]].append(match[2])
        else:
            messages.append(line.strip())
    for line in errors.splitlines():
        if match := _ABSENT.search(line):
            absent.append(match["one"] or match["two"])
        elif not re.match(r"(?:error|warning) in |notice: ", line) and _CORRUPT.search(line):
            corrupt.append(line.removeprefix("error: ").removeprefix("fatal: "))
        else:
            messages.append(line)
    # An object that lies there damaged is missing to git; to us it is corrupt, and its name is that of its file.
    damaged = {match[1] + match[2] for line in corrupt for match in _LOOSE.finditer(line)}
    missing = [item for item in found["missing"] if item.split()[1] not in damaged]
    known = damaged | {item.split()[1] for item in missing}
    missing += [f"object {oid}" for oid in absent if oid not in known]
    return FsckReport(
        status, _once(missing), _once(corrupt), _once(found["dangling"] + found["unreachable"]), _once(messages)
    )


def _promised(root: Path) -> tuple[str, ...]:
    """What HEAD needs and a partial clone left at its remote: fsck takes that for sound, a genome cannot."""
    listed = git(root, "rev-list", "--objects", "--no-object-names", "--no-walk", "--missing=print", "HEAD")
    return tuple(f"object {line[1:]}" for line in listed.decode("ascii").split() if line.startswith("?"))


def _once(lines: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(lines))
