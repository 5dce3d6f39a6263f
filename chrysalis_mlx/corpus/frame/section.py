"""What a document is divided into: sections, each under its headings."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

_SHORT = 200  # characters; what is shorter says too little by itself


@dataclass(frozen=True)
class Section:
    """A passage of a document and the headings it stands under.

    Attributes:
        trail: headings of the chapters around it, the outermost first.
        titles: its own heading; several where short sections were joined, none for what comes before any heading.
        body: the text under the heading; of joined sections with the headings between them.
    """

    trail: tuple[str, ...]
    titles: tuple[str, ...]
    body: str


class Leaf(NamedTuple):
    """A section before joining.

    Attributes:
        trail: as in Section.
        title: "" for what comes before any heading.
        heading: how the heading is written in the document, its line end included.
        body: the text under it.
    """

    trail: tuple[str, ...]
    title: str
    heading: str
    body: str

    @property
    def path(self) -> tuple[str, ...]:
        return (*self.trail, self.title) if self.title else self.trail

    def is_in(self, other: Leaf) -> bool:
        return bool(other.title) and self.trail[: len(other.path)] == other.path


def joined(leaves: Iterable[Leaf]) -> list[Section]:
    """Sections of leaves: short ones join the next one of their chapter, else the one before; empty ones any before.

    A heading with nothing under it but its own sections stands in their trails alone.
    """
    listed = list(leaves)
    groups: list[list[Leaf]] = []
    group: list[Leaf] = []
    for leaf, following in zip(listed, [*listed[1:], None], strict=True):
        group.append(leaf)
        [first, *_] = _headed(group)
        if _size(group) < _SHORT:
            if following and (following.is_in(first) or len(following.trail) >= len(first.trail)):
                continue
            if groups and (not _size(group) or _same_chapter(groups[-1][0], first)):
                groups[-1] += group
                group = []
                continue
        groups.append(_headed(group))
        group = []
    return [_section(group) for group in groups]


def _headed(group: list[Leaf]) -> list[Leaf]:
    """A group without the empty chapters at its beginning, which are in the trails of the rest."""
    start = 0
    while start + 1 < len(group) and not group[start].body.strip() and group[start + 1].is_in(group[start]):
        start += 1
    return group[start:]


def _size(group: list[Leaf]) -> int:
    return sum(len(leaf.body.strip()) for leaf in group)


def _same_chapter(before: Leaf, leaf: Leaf) -> bool:
    return leaf.trail[: len(before.trail)] == before.trail


def _section(group: list[Leaf]) -> Section:
    first, *rest = group
    tops = [leaf for n, leaf in enumerate(group) if leaf.title and not any(leaf.is_in(other) for other in group[:n])]
    # The only heading stands above the section already.
    heading = "" if tops == [first] and _size(group) else first.heading
    body = heading + first.body + "".join(leaf.heading + leaf.body for leaf in rest)
    return Section(first.trail, tuple(leaf.title for leaf in tops), body.strip("\n").rstrip())
