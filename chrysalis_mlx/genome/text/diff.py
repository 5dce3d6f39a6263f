"""What came, went, changed and moved from one genome to another, by repository.

Files are told apart by repository and path, contents by sha256. A genome of other scripts may hold one path twice in a
repository: then its first occurrence is compared with the first one of the other genome, its second with the second.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

from chrysalis_mlx.genome.text.format import read_genome


@dataclass(frozen=True)
class Side:
    """One of the two genomes: its path, the sha256 and size of its text, its files and the size of their contents."""

    path: Path
    sha256: str
    bytes: int
    files: int
    content_bytes: int


@dataclass(frozen=True)
class FileSize:
    """A file that one genome has alone, and its size in bytes."""

    path: str
    bytes: int


@dataclass(frozen=True)
class ChangedFile:
    """A file of both genomes with another content; sizes in bytes."""

    path: str
    bytes_before: int
    bytes_after: int


@dataclass(frozen=True)
class MovedFile:
    """A file with a content that came here and went elsewhere, in this repository or another."""

    path: str
    bytes: int
    from_repository: str
    from_path: str


@dataclass
class RepositoryDiff:
    """What became of one repository.

    Attributes:
        repository: its name.
        status: whether it `came`, `went`, or `stayed`: is in both.
        came, went: files of the later and of the earlier genome alone, without those that moved.
        changed: files with another content.
        moved: files that came here from another path or repository; where they came from does not list them as gone.
        unchanged: how many files are the same.
        reordered: the files that both genomes have follow each other in another order.
    """

    repository: str
    status: Literal["came", "went", "stayed"]
    came: list[FileSize] = field(default_factory=list)
    went: list[FileSize] = field(default_factory=list)
    changed: list[ChangedFile] = field(default_factory=list)
    moved: list[MovedFile] = field(default_factory=list)
    unchanged: int = 0
    reordered: bool = False

    @property
    def differs(self) -> bool:
        return bool(self.status != "stayed" or self.came or self.went or self.changed or self.moved or self.reordered)


@dataclass(frozen=True)
class Totals:
    """Files of all repositories, and the repositories that came or went."""

    came: int
    went: int
    changed: int
    moved: int
    unchanged: int
    repositories_came: int
    repositories_went: int


@dataclass(frozen=True)
class GenomeDiff:
    """Two genomes compared.

    Attributes:
        before, after: the two.
        identical: their texts are, byte for byte.
        reordered: the repositories that both have follow each other in another order.
        totals: over all repositories.
        by_repository: each one, in the order of `after`; then those that went, in the order of `before`.
    """

    before: Side
    after: Side
    identical: bool
    reordered: bool
    totals: Totals
    by_repository: list[RepositoryDiff]

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


class _Key(NamedTuple):
    repository: str
    path: str
    occurrence: int


class _Content(NamedTuple):
    sha256: bytes
    bytes: int


_Files = dict[_Key, _Content]


def diff_genomes(a: Path, b: Path) -> GenomeDiff:
    """Compare two genomes, `a` the earlier and `b` the later; each is read once, memory for a hash of every file.

    A file moved when its content, not empty, went from exactly one place and came to exactly one.

    Raises:
        GenomeError: as `read_genome`.
    """
    before, old = _read(a)
    after, new = _read(b)
    old_order, new_order = _repositories(old), _repositories(new)
    by_name = {name: RepositoryDiff(name, "stayed" if name in old_order else "came") for name in new_order}
    by_name |= {name: RepositoryDiff(name, "went") for name in old_order if name not in by_name}
    _compare(old, new, by_name)
    for name in _differently_ordered(old, new):
        by_name[name].reordered = True
    repositories = list(by_name.values())
    return GenomeDiff(
        before=before,
        after=after,
        identical=before.sha256 == after.sha256,
        reordered=[name for name in old_order if name in new_order]
        != [name for name in new_order if name in old_order],
        totals=_totals(repositories),
        by_repository=repositories,
    )


def _read(path: Path) -> tuple[Side, _Files]:
    files: _Files = {}
    occurrences: Counter[tuple[str, str]] = Counter()
    reading = read_genome(path)
    for file in reading:
        content = file.content
        place = (file.repository, file.path)
        files[_Key(*place, occurrences[place])] = _Content(hashlib.sha256(content).digest(), len(content))
        occurrences[place] += 1
    assert reading.identity is not None  # it was read to its end
    content_bytes = sum(content.bytes for content in files.values())
    return Side(path, *reading.identity, len(files), content_bytes), files


def _repositories(files: _Files) -> dict[str, None]:
    """Their names, in the order in which they come first."""
    return dict.fromkeys(key.repository for key in files)


def _compare(old: _Files, new: _Files, by_name: dict[str, RepositoryDiff]) -> None:
    moves = _moves(old, new)
    gone = set(moves.values())
    for key, content in new.items():
        entry, previous = by_name[key.repository], old.get(key)
        if key in moves:
            entry.moved.append(MovedFile(key.path, content.bytes, moves[key].repository, moves[key].path))
        elif previous is None:
            entry.came.append(FileSize(key.path, content.bytes))
        elif previous != content:
            entry.changed.append(ChangedFile(key.path, previous.bytes, content.bytes))
        else:
            entry.unchanged += 1
    for key, content in old.items():
        if key not in new and key not in gone:
            by_name[key.repository].went.append(FileSize(key.path, content.bytes))


def _moves(old: _Files, new: _Files) -> dict[_Key, _Key]:
    """Where each file that moved came from, by where it is now."""
    went = _by_content(old, lambda key: key not in new)
    came = _by_content(new, lambda key: key not in old)
    return {
        came[content][0]: places[0]
        for content, places in went.items()
        if content.bytes and len(places) == len(came.get(content, ())) == 1
    }


def _by_content(files: _Files, wanted: Callable[[_Key], bool]) -> dict[_Content, list[_Key]]:
    places: defaultdict[_Content, list[_Key]] = defaultdict(list)
    for key, content in files.items():
        if wanted(key):
            places[content].append(key)
    return places


def _differently_ordered(old: _Files, new: _Files) -> set[str]:
    """Repositories in which the files that both genomes have are ordered otherwise."""
    orders: list[defaultdict[str, list[_Key]]] = []
    for files, others in ((old, new), (new, old)):
        order: defaultdict[str, list[_Key]] = defaultdict(list)
        for key in files:
            if key in others:
                order[key.repository].append(key)
        orders.append(order)
    return {name for name, keys in orders[0].items() if keys != orders[1][name]}


def _totals(entries: list[RepositoryDiff]) -> Totals:
    return Totals(
        came=sum(len(entry.came) for entry in entries),
        went=sum(len(entry.went) for entry in entries),
        changed=sum(len(entry.changed) for entry in entries),
        moved=sum(len(entry.moved) for entry in entries),
        unchanged=sum(entry.unchanged for entry in entries),
        repositories_came=sum(entry.status == "came" for entry in entries),
        repositories_went=sum(entry.status == "went" for entry in entries),
    )
