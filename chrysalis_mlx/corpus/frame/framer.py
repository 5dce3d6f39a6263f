"""How often a document is framed in which way, and the rows that come of it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from fractions import Fraction
from functools import cache
from math import ceil

from chrysalis_mlx.batches.rows import Row
from chrysalis_mlx.blueprint.schema import FramingSection
from chrysalis_mlx.corpus.document import Document
from chrysalis_mlx.corpus.frame import chat, completion, fim, text
from chrysalis_mlx.corpus.frame.chunks import NoRoomError, Passage, fit
from chrysalis_mlx.corpus.frame.prose import is_worded
from chrysalis_mlx.corpus.frame.sections import sections
from chrysalis_mlx.errors import CorpusError
from chrysalis_mlx.models.tokenizer import Tokenizer

_Makers = dict[str, Callable[[int], list[Passage]]]


class Framer:
    """Makes rows of documents by a blueprint's mix.

    The mix says how often in an epoch a document is framed in each way. The weight of a way that cannot frame a
    document passes to the ways that can, in proportion; only what is worded is asked for and completed. Commits are
    no documents: `history` is no part of this.

    A document that is due W times in all is framed by systematic sampling: the ways lie one after the other on a line
    of length W, each as long as it weighs, and the points u, u + 1, u + 2 ... choose them, with u in [0, 1) drawn from
    the seed and the document. So each way comes up the floor or the ceiling of its weight, and all together that of W.

    Args:
        row_length: tokens that a row may have.
    """

    def __init__(self, section: FramingSection, tokenizer: Tokenizer, row_length: int, seed: int) -> None:
        self._section = section
        self._tokenizer = tokenizer
        self._row_length = row_length
        self._seed = seed
        mix = section.mix
        listed = {"text": mix.text, "completion": mix.completion, "chat": mix.chat, "fim": mix.fim}
        # Weights are decimals that someone wrote; as such they add up exactly.
        self._mix = {way: Fraction(str(weight)) for way, weight in listed.items() if weight > 0}

    def require_a_way(self) -> None:
        """Make sure that the mix has a way which this model can learn.

        Raises:
            CorpusError: there is none, so that no document whatever can be framed.
        """
        lacking = {}
        if not self._tokenizer.chat:
            lacking["chat"] = "chat needs a chat template, which the model does not have"
        if not self._tokenizer.fim:
            lacking["fim"] = "fim needs tokens for filling in the middle, which the model does not have"
        if all(way in lacking for way in self._mix):
            why = "; ".join(lacking[way] for way in self._mix) or "history makes rows of commits alone"
            raise CorpusError(f"no file can be framed: {why}", where="framing.mix", fix="add text or completion to it")

    def ways(self, document: Document) -> list[str]:
        """The ways of the mix that can frame the document; where there is none, it gives no rows: `no framing`."""
        make = self._makers(document)
        return [way for way in self._mix if make[way](0)]

    def frame(self, document: Document, weight: float) -> list[list[Row]]:
        """The document's rows for an epoch in which it counts `weight` times as often as the mix says.

        Returns:
            for each time that the document is seen, the rows of that time.

        Raises:
            NoRoomError: what every row repeats leaves no room for the text.
        """
        return self._times(document, Fraction(str(weight)) * sum(self._mix.values()))

    def frame_once(self, document: Document) -> list[Row]:
        """The document's rows in one way of the mix, as what is kept back is framed; raises as `frame`."""
        return [row for rows in self._times(document, Fraction(1)) for row in rows]

    def _times(self, document: Document, total: Fraction) -> list[list[Row]]:
        make = self._makers(document)
        ways = {way: self._mix[way] for way in self._mix if make[way](0)}
        drawn = _sample(ways, total, self._uniform(document))
        return [self._rows(make, way, draw) for way, times in drawn.items() for draw in range(times)]

    def _rows(self, make: _Makers, way: str, draw: int) -> list[Row]:
        try:
            return fit(make[way](draw), self._tokenizer, self._row_length)
        except NoRoomError:
            if way == "text" or "text" not in self._mix:
                raise
            return self._rows(make, "text", draw)  # which repeats least

    def _makers(self, document: Document) -> _Makers:
        """For each way what makes its passages; the number is how often it did so before."""
        header, system = self._section.header, self._section.system
        tokenizer, length = self._tokenizer, self._row_length
        is_divided = ("completion" in self._mix or "chat" in self._mix) and is_worded(document.text)
        divided = sections(document) if is_divided else []
        # What the text says of turns and ends would be taken for some.
        is_sayable = not any(name in document.text for name in tokenizer.turn_tokens)
        chats = divided if tokenizer.chat and is_sayable else []
        return {
            "text": lambda draw: text.passages(document, header),
            "completion": cache(lambda draw: completion.passages(document, header, divided, tokenizer, length)),
            "chat": cache(
                lambda draw: chat.passages(document, chats, system, draw, tokenizer, length) if chats else []
            ),
            "fim": lambda draw: fim.passages(document, tokenizer.fim, self._seed, draw),
        }

    def _uniform(self, document: Document) -> Fraction:
        digest = hashlib.sha256(f"{self._seed}/{document.digest}".encode()).digest()
        return Fraction(int.from_bytes(digest[:8], "big"), 1 << 64)


def _sample(ways: dict[str, Fraction], total: Fraction, start: Fraction) -> dict[str, int]:
    """How many of the points start, start + 1 ... fall to each way, when they share a line of length `total` by weight.

    Args:
        start: in [0, 1).
    """
    drawn, end = {}, Fraction(0)
    for way, weight in ways.items():
        begin, end = end, end + weight * total / sum(ways.values())
        drawn[way] = ceil(end - start) - ceil(begin - start)
    return drawn
