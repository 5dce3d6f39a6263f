"""Which documents are copies of others, and which belong to one family.

Documents are judged in the order that they come in, the curriculum's, against those that survived: so the first of
several copies stays, a live file before its backups, and every `copy of NAME` names a document that is in.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from chrysalis_mlx.blueprint.schema import CopiesSection
from chrysalis_mlx.corpus.document import Document
from chrysalis_mlx.corpus.select.similar import SimilarDocuments, jaccard
from chrysalis_mlx.corpus.select.words import Hashes

SHINGLE = 5


class Finding(NamedTuple):
    """Why a document is left out: the rule and what it measured."""

    rule: str
    score: float | None


@dataclass(frozen=True)
class Copies:
    """What find_copies found. Documents are known by their place in the list.

    Attributes:
        out: the copies.
        families: of every document, numbered from 0 as they first appear; a copy has the family of its original.
        comparisons: pairs of documents whose shingles were compared.
    """

    out: dict[int, Finding]
    families: list[int]
    comparisons: int


def find_copies(
    documents: Sequence[Document], shingles: Sequence[Hashes], numberless: Sequence[Hashes], section: CopiesSection
) -> Copies:
    """Find exact copies, near copies and families.

    Documents that are alike but for their numbers are no copies, and they are one family: two records of one kind, two
    days of one statistic.

    Args:
        documents: in curriculum order.
        shingles: `ngram_hashes` of every document's text, SHINGLE words long.
        numberless: the same without numbers.
    """
    search = _Search(documents, shingles, section)
    for number in range(len(documents)):
        search.judge(number)
    comparisons = search.comparisons + _join_alike(search.families, numberless, section.family)
    return Copies(search.out, search.families.numbered(), comparisons)


def _join_alike(families: _Families, shingles: Sequence[Hashes], threshold: float) -> int:
    """Join what is alike by these shingles; the number of comparisons."""
    similar, comparisons = SimilarDocuments(shingles, threshold), 0
    for number in range(len(shingles)):
        for other, _ in similar.candidates(number):
            if families.root(other) != families.root(number):
                comparisons += 1
                if jaccard(shingles[number], shingles[other]) >= threshold:
                    families.join(number, other)
        similar.add(number)
    return comparisons


class _Search:
    def __init__(self, documents: Sequence[Document], shingles: Sequence[Hashes], section: CopiesSection) -> None:
        self.out: dict[int, Finding] = {}
        self.families = _Families(len(documents))
        self.comparisons = 0
        self._documents, self._shingles, self._section = documents, shingles, section
        # A similarity above 1 is out of reach: no document is a near copy then.
        self._near = 2.0 if section.near is None else section.near
        self._similar = SimilarDocuments(shingles, min(section.family, self._near))
        self._survivors: dict[str, int] = {}

    def judge(self, number: int) -> None:
        """Leave the document out, or let it survive and join its relatives' families."""
        twin = self._survivors.get(self._documents[number].digest)
        if twin is not None and self._section.exact:
            self._leave_out(number, twin, "copy of", 1.0)
            return
        relatives = [] if twin is None else [twin]
        seen = {self.families.root(relative) for relative in relatives}
        for other, likely in self._similar.candidates(number):
            family = self.families.root(other)
            if family in seen and likely < self._near:
                continue
            similarity = jaccard(self._shingles[number], self._shingles[other])
            self.comparisons += 1
            if similarity >= self._near:
                self._leave_out(number, other, "near copy of", similarity)
                return
            if similarity >= self._section.family:
                relatives.append(other)
                seen.add(family)
        for relative in relatives:
            self.families.join(number, relative)
        self._survivors.setdefault(self._documents[number].digest, number)
        self._similar.add(number)

    def _leave_out(self, number: int, original: int, rule: str, similarity: float) -> None:
        self.out[number] = Finding(f"{rule} {self._documents[original].name}", similarity)
        self.families.join(number, original)


class _Families:
    """Disjoint sets of numbers; the root of a set is its smallest member."""

    def __init__(self, count: int) -> None:
        self._parents = list(range(count))

    def root(self, number: int) -> int:
        """The family's smallest member."""
        parents = self._parents
        while parents[number] != number:
            parents[number] = parents[parents[number]]
            number = parents[number]
        return number

    def join(self, one: int, other: int) -> None:
        small, large = sorted((self.root(one), self.root(other)))
        self._parents[large] = small

    def numbered(self) -> list[int]:
        """The family of every document, numbered as they first appear."""
        roots = [self.root(number) for number in range(len(self._parents))]
        numbers = {root: family for family, root in enumerate(dict.fromkeys(roots))}
        return [numbers[root] for root in roots]
