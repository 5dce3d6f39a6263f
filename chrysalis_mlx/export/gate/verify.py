"""The gate: a GGUF file must do in llama.cpp what the trained model does in its backend."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from chrysalis_mlx.errors import CorpusError
from chrysalis_mlx.export.gate.budgets import budget_of, over_budget
from chrysalis_mlx.export.gate.divergence import Distance, measure
from chrysalis_mlx.export.gate.ends import EndToken, missed_ends
from chrysalis_mlx.export.gate.prompts import Prompts, compare_prompts
from chrysalis_mlx.export.gate.reference import Reference
from chrysalis_mlx.export.gate.token_ids import TokenIds, compare_token_ids
from chrysalis_mlx.gguf.keys import read_keys
from chrysalis_mlx.llamacpp.server import Completion, LlamaServer
from chrysalis_mlx.models.tokenizer import Tokenizer
from chrysalis_mlx.progress import Progress, silent

QUESTION = "What is a butterfly? Answer in one short sentence."
_ANSWER = 48  # tokens of the answer that is written without a push


@dataclass(frozen=True)
class Verification:
    """What was found for one file; `failures` is empty when it passed.

    Attributes:
        lines: token ids on lines of the corpus.
        hard_strings: token ids on strings that tokenizers differ on, and on the special tokens in texts.
        prompts: the chat template; None where the model has none.
        distance: the next-token distributions.
        ends: tokens that end a generation; each was made the next token of one.
        ends_missed: those that llama.cpp went on after.
        answer: what the model says to `QUESTION`, greedily; not judged, because a model may have more to say. None
            without a chat template.
        notes: what is different and does no harm, or was left out.
        failures: what is wrong, as sentences.
    """

    lines: TokenIds
    hard_strings: TokenIds
    prompts: Prompts | None
    distance: Distance
    ends: tuple[EndToken, ...]
    ends_missed: tuple[EndToken, ...]
    answer: Completion | None
    notes: tuple[str, ...]
    failures: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """As verification.json has it; what is not a finite number is null there."""
        return {
            "lines": self.lines.texts,
            "lines_equal": self.lines.equal,
            "hard_strings": self.hard_strings.texts,
            "hard_strings_equal": self.hard_strings.equal,
            **{name: value if math.isfinite(value) else None for name, value in asdict(self.distance).items()},
            "prompts": list(self.prompts.compared) if self.prompts else None,
            "prompts_left_out": dict(self.prompts.left_out) if self.prompts else {},
            "ends": [
                {"id": end.id, "text": end.text, "named_by": list(end.named_by), "stops": end not in self.ends_missed}
                for end in self.ends
            ],
            "answer": {"text": self.answer.text, "finish": self.answer.finish} if self.answer else None,
            "notes": list(self.notes),
            "failures": list(self.failures),
            "verified": not self.failures,
        }


def verify_gguf(
    file: Path, type_name: str, reference: Reference, *, threads: int | None = None, progress: Progress = silent
) -> Verification:
    """Open a GGUF in llama.cpp and hold it against the trained model.

    Args:
        type_name: of the file; it has the budget.
        threads: processor threads; None takes all cores.

    Raises:
        ExportError: llama.cpp cannot load the file, or dies of it.
        ModelError: the chat template is no Jinja template.
    """
    tokenizer = reference.tokenizer
    question = _question(tokenizer)
    longest = max(len(position.context) for position in reference.positions)
    context = max(longest, len(question) + _ANSWER) + 16
    with LlamaServer(file, context=context, threads=threads, precise=True) as server:
        lines = compare_token_ids(server, tokenizer, reference.lines)
        hard = compare_token_ids(server, tokenizer, reference.hard_strings)
        prompts = compare_prompts(server, tokenizer, reference.agreement)
        missed = tuple(missed_ends(server, reference.ends))
        distance = measure(server, reference.positions, description=f"verifying {type_name}", progress=progress)
        answer = server.complete(question, max_tokens=_ANSWER, temperature=0, seed=0) if question else None
    failures = [*_differing("corpus lines", lines), *_differing("hard strings", hard)]
    failures += prompts.failures if prompts else ()
    failures += [
        f"llama.cpp goes on after {end.text!r} ({end.id}), an end token by {' and '.join(end.named_by)}"
        for end in missed
    ]
    importance = "quantize.imatrix.file" in read_keys(file)
    failures += over_budget(budget_of(type_name, importance=importance), distance)
    notes = (*reference.notes, *(prompts.notes if prompts else ("the model has no chat template",)))
    return Verification(lines, hard, prompts, distance, reference.ends, missed, answer, notes, tuple(failures))


def _differing(name: str, ids: TokenIds) -> list[str]:
    return [f"{ids.texts - ids.equal} of {ids.texts} {name} have other token ids: {ids.first}"] if ids.first else []


def _question(tokenizer: Tokenizer) -> list[int]:
    """The training template's prompt of `QUESTION`; empty where there is none."""
    if tokenizer.chat is None:
        return []
    try:
        prompt = tokenizer.chat.render([{"role": "user", "content": QUESTION}], add_generation_prompt=True)
    except CorpusError:
        return []
    return tokenizer.encode(prompt, special=False)
