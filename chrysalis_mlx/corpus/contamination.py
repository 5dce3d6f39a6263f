"""How much of what is kept back was trained on: the share of texts that have n words in a row in common with it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from chrysalis_mlx.corpus.select.words import Hashes, contained, ngram_hashes, union


@dataclass(frozen=True)
class NgramIndex:
    """The n-grams of texts that others must not share. `words.py` says what an n-gram is.

    Attributes:
        ngram: n, in words.
        hashes: sorted, each once.
    """

    ngram: int
    hashes: Hashes

    @classmethod
    def of(cls, texts: Iterable[str], ngram: int) -> NgramIndex:
        return cls(ngram, union(ngram_hashes(texts, ngram)))


@dataclass(frozen=True)
class Contamination:
    """What was measured.

    Attributes:
        documents: texts that are kept back.
        contaminated: places, among these, of those that share an n-gram with a text that is trained on.
    """

    documents: int
    contaminated: tuple[int, ...]

    @property
    def share(self) -> float:
        return len(self.contaminated) / self.documents if self.documents else 0.0


def contamination(train: Iterable[str], held_out: Sequence[str], ngram: int) -> Contamination:
    """Measure the contamination of final texts. Memory for the n-grams of the texts that are kept back."""
    kept_back = list(ngram_hashes(held_out, ngram))
    index = union(kept_back)
    seen = np.zeros(len(index), np.bool_)
    for hashes in ngram_hashes(train, ngram):
        seen[np.searchsorted(index, hashes[contained(hashes, index)])] = True
    trained_on = index[seen]
    hit = [place for place, hashes in enumerate(kept_back) if contained(hashes, trained_on).any()]
    return Contamination(len(held_out), tuple(hit))


def shares_ngram(texts: Iterable[str], protected: NgramIndex) -> Iterator[bool]:
    """Whether each text has an n-gram of the index: such a text is not to be trained on."""
    for hashes in ngram_hashes(texts, protected.ngram):
        yield bool(contained(hashes, protected.hashes).any())
