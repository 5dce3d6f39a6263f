"""What every subject is asked: texts to predict, beginnings to go on from, and prompts to answer."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from chrysalis_mlx.batches.packing import pack
from chrysalis_mlx.batches.rows import Row
from chrysalis_mlx.batches.tokens import Segment
from chrysalis_mlx.evaluation.prompts import Prompt
from chrysalis_mlx.models.tokenizer import Tokenizer
from chrysalis_mlx.run import sha256_json

BEGINNING = 32
"""Tokens that a continuation is begun with, at most."""

_TARGETS_OF_A_TEXT = 16  # that a file is measured on: each more text costs llama.cpp a whole prompt


@dataclass(frozen=True)
class Text:
    """A text to predict.

    Attributes:
        number: of its row in the corpus file, or of its passage in the general text; from 0.
        segment: its tokens, and which of them are to be predicted.
        repository, path, framing: as its row has them; empty for a passage of the general text.
    """

    number: int
    segment: Segment
    repository: str = ""
    path: str = ""
    framing: str = ""

    @property
    def targets(self) -> npt.NDArray[np.int64]:
        """(n,) places of the tokens that are to be predicted."""
        return np.flatnonzero(self.segment.supervised)


@dataclass(frozen=True)
class Beginning:
    """Where a continuation starts.

    Attributes:
        source: train or held_out.
        repository, path: of the text.
        tokens: the beginning.
        expected: the tokens that follow in the text itself, as many as will be asked for.
    """

    source: str
    repository: str
    path: str
    tokens: tuple[int, ...]
    expected: tuple[int, ...]


@dataclass(frozen=True)
class Questions:
    """What a subject is asked.

    Attributes:
        test, general: packed rows of texts.
        beginnings: all of one length.
        prompts: to answer.
    """

    test: Sequence[Sequence[Text]]
    general: Sequence[Sequence[Text]]
    beginnings: Sequence[Beginning] = ()
    prompts: Sequence[Prompt] = ()

    def for_file(self, targets: int, context: int) -> Questions:
        """The same on `targets` tokens of the test texts and half as many of the general text, one text in a row.

        Args:
            context: tokens, of which llama.cpp keeps two for itself: those that stand there are not asked for.
        """
        test, general = (
            [[text] for text in thinned([_fitting(text, context) for text in itertools.chain(*rows)], count)]
            for rows, count in ((self.test, targets), (self.general, targets // 2))
        )
        return replace(self, test=test, general=general)

    def fingerprint(self) -> str:
        """Hash of every token that is asked for or shown; what a text is called plays no part."""
        begun = [beginning.tokens for beginning in self.beginnings]
        asked = [[prompt.tokens, prompt.limit] for prompt in self.prompts]
        return sha256_json([_digest(self.test), _digest(self.general), begun, asked])

    def longest(self, following: int) -> int:
        """Tokens of the longest text, continuation or answered prompt.

        Args:
            following: tokens of a continuation.
        """
        lengths = [len(text.segment.tokens) for rows in (self.test, self.general) for row in rows for text in row]
        lengths += [len(beginning.tokens) + following for beginning in self.beginnings]
        lengths += [len(prompt.tokens) + prompt.limit for prompt in self.prompts]
        return max(lengths, default=0)


def _digest(rows: Sequence[Sequence[Text]]) -> str:
    """Hash of texts by their bytes: as lists of numbers a large test set would take gigabytes."""
    digest = hashlib.sha256()
    for row in rows:
        digest.update(f"row of {len(row)}\n".encode())
        for text in row:
            digest.update(f"{text.number} {len(text.segment.tokens)}\n".encode())
            digest.update(text.segment.tokens.tobytes())
            digest.update(text.segment.supervised.tobytes())
    return digest.hexdigest()


def held_out_texts(
    rows: Sequence[Row], segments: Sequence[Segment], members: Sequence[Sequence[int]]
) -> list[list[Text]]:
    """The texts of packed rows.

    Args:
        rows: of the corpus file.
        segments: their tokens.
        members: of each packed row the numbers of its texts.
    """

    def text(number: int) -> Text:
        repository, path, framing = (str(rows[number].get(key, "")) for key in ("repository", "path", "framing"))
        return Text(number, segments[number], repository, path, framing)

    return [[text(number) for number in row] for row in members]


def general_texts(segments: Sequence[Segment], row_length: int) -> list[list[Text]]:
    """Passages of the general text as packed rows."""
    return [[Text(number, segments[number]) for number in row] for row in pack(segments, row_length)]


def thinned(texts: Sequence[Text], targets: int) -> list[Text]:
    """Texts of which `targets` tokens in all are to be predicted, or all where there are fewer.

    The texts are spread evenly over repositories and framings, and in each the tokens over the text.
    """
    usable = [text for text in texts if len(text.targets)]
    usable.sort(key=lambda text: (text.repository, text.framing, text.path, text.number))
    count = min(len(usable), -(-targets // _TARGETS_OF_A_TEXT))
    chosen = [usable[index] for index in _spread(len(usable), count)]
    while count < len(usable) and sum(len(text.targets) for text in chosen) < targets:
        count = min(len(usable), 2 * count)
        chosen = [usable[index] for index in _spread(len(usable), count)]
    chosen.sort(key=lambda text: len(text.targets))  # what a short text lacks, longer ones have
    found = []
    for number, text in enumerate(chosen):
        found.append(_thin(text, -(-targets // (len(chosen) - number))))
        targets -= len(found[-1].targets)
    return sorted((text for text in found if len(text.targets)), key=lambda text: text.number)


def _fitting(text: Text, context: int) -> Text:
    """A text of which nothing is to be predicted that has more than `context` - 2 tokens before it."""
    if len(text.segment.tokens) < context:
        return text
    places = np.arange(len(text.segment.tokens))
    return replace(text, segment=replace(text.segment, supervised=text.segment.supervised & (places <= context - 2)))


def _thin(text: Text, targets: int) -> Text:
    """A text of which at most so many tokens, evenly spread, are to be predicted; it ends with the last of them."""
    kept = text.targets[_spread(len(text.targets), min(targets, len(text.targets)))]
    supervised = np.zeros(len(text.segment.tokens), np.bool_)
    supervised[kept] = True
    end = int(kept[-1]) + 1 if len(kept) else 0
    return replace(text, segment=Segment(text.segment.tokens[:end], supervised[:end]))


def beginnings(
    texts: Sequence[tuple[str, Sequence[Row], Sequence[Segment]]], count: int, following: int, tokenizer: Tokenizer
) -> tuple[Beginning, ...]:
    """Beginnings of texts of each source, of different documents that are evenly spread over all of them.

    A text is begun with its first 32 tokens; where half of the median text is shorter, with as many as that. A text
    that has not twice as many is passed over. Where only a part of a text is learned (a completion, a conversation),
    the beginning reaches half its length into that part, and what stands before is as the model saw it in the training.

    Args:
        texts: name of the source, rows of the corpus and their tokens.
        count: of beginnings of each source.
        following: tokens that each is to be continued by.
    """
    lengths = [len(segment.tokens) for _, _, segments in texts for segment in segments]
    length = max(1, min(BEGINNING, int(np.median(lengths)) // 2)) if lengths else 1
    found = []
    for source, rows, segments in texts:
        usable = list(_of_documents(source, rows, segments, length, following, tokenizer))
        found += [usable[index] for index in _spread(len(usable), min(count, len(usable)))]
    return tuple(found)


def _of_documents(
    source: str, rows: Sequence[Row], segments: Sequence[Segment], length: int, following: int, tokenizer: Tokenizer
) -> Iterator[Beginning]:
    """A beginning of the first text of each document that is long enough, in the order of the corpus."""
    start = tokenizer.encode("")  # what the tokenizer puts before every text, such as <s>
    seen = set()
    for row, segment in zip(rows, segments, strict=True):
        document = (str(row.get("repository", "")), str(row.get("path", "")))
        learned = np.flatnonzero(segment.supervised)
        if document in seen or not len(learned):
            continue
        tokens = segment.tokens.tolist()
        if tokens[-1] == tokenizer.eos_id:
            tokens.pop()
        partly = learned[0] > 1  # the first token is never learned
        cut = max(length, int(learned[0]) + length // 2) if partly else length
        if len(tokens) >= cut + length:
            seen.add(document)
            yield Beginning(
                source, *document, _before(tokens, cut, length, start), tuple(tokens[cut : cut + following])
            )


def _before(tokens: Sequence[int], cut: int, length: int, start: Sequence[int]) -> tuple[int, ...]:
    """The `length` tokens before `cut`, with those that `start` every text in place of the first of them."""
    kept = length - len(start)
    if cut == length or kept < 1 or list(tokens[: len(start)]) != list(start):
        return tuple(tokens[cut - length : cut])
    return (*start, *tokens[cut - kept : cut])


def _spread(length: int, count: int) -> npt.NDArray[np.int64]:
    """`count` different places in 0 ... length - 1, evenly spread."""
    return (np.arange(count) * length + length // 2) // max(count, 1) if count else np.zeros(0, np.int64)
