"""Token ids of llama.cpp against the Hugging Face tokenizer's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from chrysalis_mlx.llamacpp.server import LlamaServer
from chrysalis_mlx.models.tokenizer import Tokenizer

_SHOWN_TEXT, _SHOWN_IDS = 80, 16


@dataclass(frozen=True)
class TokenIds:
    """What the comparison of some texts found.

    Attributes:
        texts: how many were compared.
        equal: how many have the same token ids.
        first: the first that has not: "'text' has the token ids ..."; None when all are equal.
    """

    texts: int
    equal: int
    first: str | None


def compare_token_ids(server: LlamaServer, tokenizer: Tokenizer, texts: Sequence[str]) -> TokenIds:
    """Tokenize every text twice, with the tokens that the model wants around it; special tokens in it are parsed."""
    equal, first = 0, None
    for text, expected in zip(texts, tokenizer.encode_batch(texts), strict=True):
        found = server.tokenize(text, parse_special=True)
        if found == expected:
            equal += 1
        elif first is None:
            first = f"{_cut(text)} {differing_ids(found, expected)}"
    return TokenIds(len(texts), equal, first)


def differing_ids(found: Sequence[int], expected: Sequence[int]) -> str:
    """Both lists from the first difference on: "has the token ids ... in llama.cpp and ... in the tokenizer"."""
    pairs = enumerate(zip(found, expected, strict=False))
    at = next((at for at, (a, b) in pairs if a != b), min(len(found), len(expected)))
    start = 0 if max(len(found), len(expected)) <= _SHOWN_IDS else at
    where = f", from token {start} on" if start else ""
    ours, theirs = (_ids(ids[start:]) for ids in (found, expected))
    return f"has the token ids {ours} in llama.cpp and {theirs} in the tokenizer{where}"


def _ids(ids: Sequence[int]) -> str:
    return f"[{', '.join(map(str, ids[:_SHOWN_IDS]))}{', …' if len(ids) > _SHOWN_IDS else ''}]"


def _cut(text: str) -> str:
    return repr(text if len(text) <= _SHOWN_TEXT else text[:_SHOWN_TEXT] + "…")
