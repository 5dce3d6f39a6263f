"""What a file is held against: the trained model's own distributions, its tokenizer and its end tokens."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from chrysalis_mlx.backends.base import Engine
from chrysalis_mlx.batches.packing import assemble
from chrysalis_mlx.batches.paragraphs import paragraph_segments
from chrysalis_mlx.batches.tokens import Segment
from chrysalis_mlx.errors import ExportError
from chrysalis_mlx.export.gate.ends import EndToken, end_tokens
from chrysalis_mlx.gguf.vocabulary.agreement import Agreement
from chrysalis_mlx.gguf.vocabulary.hard_strings import hard_strings, special_token_strings
from chrysalis_mlx.gguf.vocabulary.vocabulary import Vocabulary
from chrysalis_mlx.models.directory import ModelDirectory
from chrysalis_mlx.models.tokenizer import Tokenizer
from chrysalis_mlx.progress import Progress, silent

_PER_TEXT = 16  # positions in each held-out text: every text costs its whole length, each position little more


@dataclass(frozen=True)
class Position:
    """One held-out position.

    Attributes:
        context: the token ids before it.
        log_p: (V,) float32, the trained model's log p of every next token.
        target: the token that follows in the text.
    """

    context: list[int]
    log_p: npt.NDArray[np.float32]
    target: int


@dataclass(frozen=True)
class Reference:
    """The trained model, as far as the gate needs it; no model is in memory any more.

    Every file is compared with the trained model itself, and not with the F16 file: that takes no F16 file, and the
    divergence of a quantization then includes what F16 alone would lose, which is below 1e-4 or F16 fails.

    Attributes:
        tokenizer: with its chat template.
        agreement: the texts that llama.cpp can tokenize as the tokenizer does.
        lines: texts whose token ids are compared.
        hard_strings: further ones, built in.
        positions: where distributions are compared.
        ends: tokens that end a generation.
        notes: what is not compared, and why.
    """

    tokenizer: Tokenizer
    agreement: Agreement
    lines: tuple[str, ...]
    hard_strings: tuple[str, ...]
    positions: tuple[Position, ...]
    ends: tuple[EndToken, ...]
    notes: tuple[str, ...]


def make_reference(
    model: ModelDirectory,
    engine: Engine,
    held_out: Sequence[Segment],
    lines: Sequence[str],
    *,
    positions: int,
    row_length: int,
    progress: Progress = silent,
) -> Reference:
    """The reference of a model.

    Args:
        model: the directory whose tokenizer and settings the trained model has.
        engine: the trained model.
        held_out: texts it was not trained on (`held_out_segments` makes them of any text).
        lines: texts whose token ids are compared (`sample_lines`).
        positions: how many distributions are compared.
        row_length: longest held-out text in tokens.

    Raises:
        ExportError: no held-out text has two tokens, or the tokenizer cannot be written into a GGUF.
        ModelError: generation_config.json is not valid JSON, or the chat template not valid Jinja.
    """
    tokenizer = model.tokenizer
    agreement = Vocabulary.from_directory(model.path, model.config).agreement
    hard = hard_strings("NFC" if agreement.nfc else None) + special_token_strings(list(tokenizer.special_tokens))
    (lines, hard), notes = _comparable(agreement, {"corpus lines": lines, "hard strings": hard})
    most = model.context_length - 1  # llama.cpp has no room to go on from more than one token less
    held_out = [Segment(segment.tokens[:most], segment.supervised[:most]) for segment in held_out]
    found = held_out_positions(engine, held_out, positions, row_length, progress=progress)
    return Reference(tokenizer, agreement, tuple(lines), tuple(hard), tuple(found), end_tokens(model), tuple(notes))


def _comparable(agreement: Agreement, texts: Mapping[str, Sequence[str]]) -> tuple[list[list[str]], list[str]]:
    """Of each kind of text those that llama.cpp can tokenize alike, and what is to be said of the others."""
    kept = [[text for text in some if agreement.agrees(text)] for some in texts.values()]
    left = {name: len(some) - len(can) for (name, some), can in zip(texts.items(), kept, strict=True)}
    counts = " and ".join(f"{number} {name}" for name, number in left.items() if number)
    return kept, [f"{counts} are not compared: {'; '.join(agreement.limits)}"] if counts else []


def held_out_positions(
    engine: Engine, segments: Sequence[Segment], count: int, row_length: int, *, progress: Progress = silent
) -> list[Position]:
    """The trained model's distributions at `count` positions, spread evenly over the longest held-out texts.

    Raises:
        ExportError: no text has two tokens.
    """
    usable = [segment for segment in segments if len(segment.tokens) > 1]
    if not usable:
        raise ExportError("there is no held-out text to verify with", fix="give a text of at least a few words")
    texts = sorted(usable, key=lambda segment: -len(segment.tokens))[: math.ceil(count / _PER_TEXT)]
    positions: list[Position] = []
    with progress("trained model's distributions", len(texts), unit="text") as bar:
        for number, segment in enumerate(texts):
            share = (count - len(positions)) // (len(texts) - number)
            ends = np.unique(np.linspace(1, len(segment.tokens) - 1, share).astype(int))
            logits = engine.logits(assemble([[segment]], row_length))[0]  # (T, V)
            for end in ends:
                row = logits[end - 1].astype(np.float64)
                log_p = (row - np.logaddexp.reduce(row)).astype(np.float32)
                positions.append(Position(segment.tokens[:end].tolist(), log_p, int(segment.tokens[end])))
            bar.update()
    return positions


def sample_lines(texts: Sequence[str], count: int) -> list[str]:
    """Up to `count` different lines that hold text, spread evenly over the given texts."""
    lines = list(dict.fromkeys(line for text in texts for line in text.splitlines() if line.strip()))
    chosen = np.unique(np.linspace(0, len(lines) - 1, min(count, len(lines))).astype(int))
    return [lines[index] for index in chosen]


def sample_text() -> str:
    """The built-in text, for models without a corpus: prose, code and other scripts, in paragraphs."""
    return Path(__file__).with_name("sample.txt").read_text(encoding="utf-8")


def held_out_segments(text: str, tokenizer: Tokenizer, row_length: int) -> list[Segment]:
    """Any text as held-out texts: whole paragraphs together, each as a text of its own with its end token."""
    return paragraph_segments(text, tokenizer, row_length)
