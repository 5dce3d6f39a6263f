"""Which documents are trained on, validated on and tested on.

The unit is the family. A family is separable when no n-gram of it occurs in another one; what is kept back is taken
from these, so that nothing of it was trained on.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from chrysalis_mlx.blueprint.schema import SplitSection
from chrysalis_mlx.corpus.document import Selected
from chrysalis_mlx.corpus.select.words import Hashes, contained, distinct, ngram_hashes, union, words
from chrysalis_mlx.errors import CorpusError

SIDES = ("train", "valid", "test")


@dataclass(frozen=True)
class _Family:
    """Documents that stay together.

    Attributes:
        members: their places in the list.
        repository: of the first.
        rank: pseudo-random; depends on the seed and the content alone.
        shared: share of its n-grams that other families have.
        short: every member has fewer than n words, so that n-grams say nothing of it.
        backup: every member is a backup, and there are live documents.
    """

    members: tuple[int, ...]
    repository: str
    rank: bytes
    shared: float
    short: bool
    backup: bool

    @property
    def separable(self) -> bool:
        return not self.shared and not self.short and not self.backup


def split_documents(selected: Sequence[Selected], section: SplitSection) -> list[str]:
    """The side of every document.

    Test takes separable families until its share of the documents is reached, then valid does, spread over the
    repositories as these have them; where there are too few for both, each gets its part of them. Only a side that
    would be empty takes a short one, the one that shares the fewest n-grams, or a backup: what is measured is what
    lives. The order of the documents plays no part.

    Raises:
        CorpusError: fewer than three families.
    """
    families = _families(selected, section)
    if len(families) < len(SIDES):
        raise CorpusError(
            f"{len(selected)} document(s) in {len(families)} families are left after expression; "
            "train, valid and test need a family each",
            fix="loosen the blueprint's expression (include, exclude, gates, copies) or give a larger genome",
        )
    separable = _spread([family for family in families if family.separable], section.seed)
    others = sorted((family for family in families if not family.separable), key=lambda f: (f.backup, f.shared, f.rank))
    # The largest always trains, of equals the last: however large the shares are, something is left.
    largest = max(reversed(separable + others), key=lambda family: len(family.members))
    for tier in (separable, others):
        if largest in tier:
            tier.remove(largest)
    sides = ["train"] * len(selected)
    wanted = {"test": section.test * len(selected), "valid": section.valid * len(selected)}
    there_are = sum(len(family.members) for family in separable)
    scale = min(1.0, there_are / max(sum(wanted.values()), 1)) if there_are else 1.0
    for side, leave in (("test", 1), ("valid", 0)):
        for family in _take(separable, others, max(1, round(scale * wanted[side])), leave):
            for member in family.members:
                sides[member] = side
    return sides


def _take(separable: list[_Family], others: list[_Family], target: int, leave: int) -> list[_Family]:
    """Take families off the lists until their documents reach the target, without passing it if that can be.

    At least one is taken, and `leave` are left, of the separable ones too where one of these was taken.
    """
    taken: list[_Family] = []
    for tier in (separable, others):
        if taken:
            break  # Better a smaller side than one that was trained on.
        held = 0
        for family in list(tier):
            left = len(tier) if taken else len(separable) + len(others)
            if held + len(family.members) <= target and left > leave:
                tier.remove(family)
                taken.append(family)
                held += len(family.members)
    if not taken:
        tier = separable or others
        taken.append(tier.pop(min(range(len(tier)), key=lambda place: len(tier[place].members))))
    return taken


def _spread(families: Sequence[_Family], seed: int) -> list[_Family]:
    """Order families so that every stretch has each repository in proportion: systematic sampling."""
    by_repository: dict[str, list[_Family]] = {}
    for family in sorted(families, key=lambda family: family.rank):
        by_repository.setdefault(family.repository, []).append(family)
    places = []
    for repository, ranked in by_repository.items():
        start = int.from_bytes(_rank(seed, repository)[:6], "big") / 2**48
        places += [((place + start) / len(ranked), family.rank, family) for place, family in enumerate(ranked)]
    return [family for _, _, family in sorted(places, key=lambda place: place[:2])]


def _families(selected: Sequence[Selected], section: SplitSection) -> list[_Family]:
    members: dict[int, list[int]] = {}
    for place, one in enumerate(selected):
        members.setdefault(one.family, []).append(place)
    # A document's name stands before its text in the default header: what names have in common counts as well.
    are_backups = [one.document.backup for one in selected]
    grams = list(ngram_hashes((f"{one.document.name}\n{one.document.text}" for one in selected), section.ngram))
    of_family = [union(grams[place] for place in places) for places in members.values()]
    shared = _in_several(of_family)
    leasts = [min(places, key=lambda place: _identity(selected[place])) for places in members.values()]
    return [
        _Family(
            members=tuple(places),
            repository=selected[least].document.repository,
            rank=_rank(section.seed, selected[least].document.digest),
            shared=float(contained(hashes, shared).mean()) if len(hashes) else 0.0,
            short=all(len(words(selected[place].document.text)) < section.ngram for place in places),
            backup=all(are_backups[place] for place in places) and not all(are_backups),
        )
        for places, least, hashes in zip(members.values(), leasts, of_family, strict=True)
    ]


def _identity(one: Selected) -> tuple[str, str]:
    """What tells documents of one family apart, wherever they stand."""
    return one.document.digest, one.document.name


def _in_several(sets: Sequence[Hashes]) -> Hashes:
    """The hashes that more than one of the sets have."""
    together = np.sort(np.concatenate([np.zeros(0, np.uint64), *sets]))
    return distinct(together[1:][together[1:] == together[:-1]])


def _rank(seed: int, name: str) -> bytes:
    return hashlib.sha256(f"{seed}:{name}".encode()).digest()
