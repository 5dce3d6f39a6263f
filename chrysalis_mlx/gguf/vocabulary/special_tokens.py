"""Added tokens, special ids, end tokens and the chat template of a Hugging Face tokenizer directory.

Source of what llama.cpp finds by text: src/llama-vocab.cpp, `llama_vocab::impl::load`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Any

from chrysalis_mlx.errors import ExportError

SPECIAL_ROLES = ("bos", "eos", "unk", "pad")
END_ROLES = ("eot", "eom")

_TURN_ENDS = (
    "<|eot_id|>",
    "<|im_end|>",
    "<|end|>",
    "<end_of_turn>",
    "<EOT>",
    "_<EOT>",
    "[EOT]",
    "<end_of_utterance>",
    "<turn|>",
)
_FOUND_BY_TEXT = frozenset(_TURN_ENDS) | {
    "<|endoftext|>",
    "<|end_of_text|>",
    "<|eom_id|>",
    "<|return|>",
    "<|call|>",
    "<|flush|>",
    "<|calls|>",
    "</s>",
    "<eos>",
    "[EOS]",
    "<｜end▁of▁sentence｜>",
}


class TokenType(IntEnum):
    """`tokenizer.ggml.token_type`, llama.cpp's llama_token_type and SentencePiece's Type."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


CUT = (TokenType.CONTROL, TokenType.USER_DEFINED, TokenType.UNKNOWN)
"""Types of the tokens that are cut out of a text before anything else, when special tokens are read."""


@dataclass(frozen=True)
class AddedToken:
    """A token that is cut out of a text before anything else.

    Attributes:
        lstrip, rstrip: whether it takes the white space before or after it along.
    """

    id: int
    content: str
    special: bool
    lstrip: bool = False
    rstrip: bool = False


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object; empty when the file is missing.

    Raises:
        ExportError: the file is not a JSON object.
    """
    if not path.is_file():
        return {}
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(value, dict):
            raise ValueError(f"a {type(value).__name__}, not an object")
    except ValueError as error:
        raise ExportError(f"cannot be read as JSON: {error}", where=path) from error
    return value


def added_tokens(directory: Path, tokenizer: Mapping[str, Any]) -> dict[int, AddedToken]:
    """The added tokens of tokenizer.json, tokenizer_config.json and added_tokens.json, by id.

    Raises:
        ExportError: one of them is found in whole words only, which llama.cpp cannot do.
    """
    found: dict[int, dict[str, Any]] = {}
    for content, token in read_json(directory / "added_tokens.json").items():
        found[int(token)] = {"content": content}
    for token, entry in (read_json(directory / "tokenizer_config.json").get("added_tokens_decoder") or {}).items():
        found[int(token)] = entry
    for entry in tokenizer.get("added_tokens") or ():
        found[int(entry["id"])] = entry
    for entry in found.values():
        if entry.get("single_word"):
            raise ExportError(
                f"the added token {entry['content']!r} has single_word, which a GGUF cannot say", where=directory
            )
    return {
        token: AddedToken(
            token, entry["content"], *(bool(entry.get(key, False)) for key in ("special", "lstrip", "rstrip"))
        )
        for token, entry in sorted(found.items())
    }


def added_type(token: AddedToken) -> TokenType:
    """CONTROL for special tokens and what looks like one, USER_DEFINED for the rest.

    Source: llama.cpp's conversion/base.py, `does_token_look_special`; it finds end and infill tokens among these.
    """
    text = token.content
    looks = text in ("<pad>", "<mask>", "<2mass>", "[@BOS@]")
    looks |= text.startswith("<|") and text.endswith("|>")
    looks |= text in _FOUND_BY_TEXT  # llama.cpp would change their type, and warn
    looks |= text.startswith("<｜") and text.endswith("｜>")
    return TokenType.CONTROL if token.special or looks else TokenType.USER_DEFINED


def special_ids(
    directory: Path, config: Mapping[str, Any], tokens: Mapping[int, tuple[str, TokenType]], after_answer: str
) -> dict[str, int]:
    """ "bos", "eos", "unk", "pad" -> id, from the tokenizer's files, then from config.json; "eot", "eom": `end_ids`.

    Args:
        directory: the tokenizer's directory; its generation_config.json says which tokens end a text.
        config: config.json.
        tokens: id -> text and type.
        after_answer: what follows on an answer in the chat template, which may end it with another token yet.

    Raises:
        ExportError: no end token, one that is not in the vocabulary, or more than llama.cpp can be told of.
    """
    ids = {text: token for token, (text, _) in tokens.items()}
    sources = [read_json(directory / name) for name in ("tokenizer_config.json", "special_tokens_map.json")]
    found: dict[str, int] = {}
    for role in SPECIAL_ROLES:
        named = next((source[f"{role}_token"] for source in sources if source.get(f"{role}_token")), None)
        content = named.get("content") if isinstance(named, dict) else named
        configured = config.get(f"{role}_token_id")
        if content is not None:
            if content not in ids:
                raise ExportError(f"the {role} token {content!r} is not in the vocabulary", where=directory)
            found[role] = ids[content]
        elif isinstance(configured, list) and configured:
            found[role] = int(configured[0])
        elif isinstance(configured, int):
            found[role] = configured
    if "eos" not in found:
        raise ExportError(
            "the model has no end token, so its text would never end",
            where=directory,
            fix="name eos_token in tokenizer_config.json or eos_token_id in config.json",
        )
    further = _further_ends(directory, config, tokens, after_answer)
    return found | end_ids([found["eos"], *further], {token: text for token, (text, _) in tokens.items()}, directory)


def _further_ends(
    directory: Path, config: Mapping[str, Any], tokens: Mapping[int, tuple[str, TokenType]], after_answer: str
) -> list[int]:
    """Ids of end tokens: of generation_config.json, else config.json, and of the chat template."""
    special = {text: token for token, (text, kind) in tokens.items() if kind in CUT}
    generation = read_json(directory / "generation_config.json").get("eos_token_id")
    ends = config.get("eos_token_id") if generation is None else generation
    ends = [] if ends is None else [int(token) for token in (ends if isinstance(ends, list) else [ends])]
    if generation is None:  # an id of config.json may be left over from another tokenizer
        ends = [token for token in ends if token in special.values()]
    turn_end = max((text for text in special if text.strip() and after_answer.startswith(text)), key=len, default=None)
    return ends if turn_end is None else [*ends, special[turn_end]]


def end_ids(ends: Iterable[int], texts: Mapping[int, str], directory: Path) -> dict[str, int]:
    """ "eot" and "eom" -> id, so that llama.cpp ends a text at each of the end tokens.

    llama.cpp ends at eos, at what is named eot and eom, and at tokens of certain texts; a list it cannot be given.

    Args:
        ends: ids of the end tokens, the tokenizer's own first; further ones of one text are taken once.
        texts: id -> token text.
        directory: of the tokenizer, for errors.

    Raises:
        ExportError: an id without a token, or too many.
    """
    eos, *others = dict.fromkeys(ends)
    if lost := [token for token in (eos, *others) if token not in texts]:
        raise ExportError(f"the end token {lost[0]} is not in the vocabulary", where=directory)
    if not others:
        return {}
    unknown = [token for token in others if texts[token] not in _FOUND_BY_TEXT]
    if len(unknown) > len(END_ROLES):
        raise ExportError(
            f"the model's text ends with any of {[texts[token] for token in (eos, *others)]}, "
            f"and llama.cpp can be told of {len(END_ROLES)} such tokens that it does not know beside eos",
            where=directory / "generation_config.json",
            fix="leave those in eos_token_id that really end an answer",
        )
    # Of several texts that it knows llama.cpp takes any for the end of a turn, so that is named too.
    turn_ends = (
        [token for token in (*others, eos) if texts[token] in _TURN_ENDS] if len(unknown) < len(END_ROLES) else []
    )
    return dict(zip(END_ROLES, [*turn_ends[:1], *unknown], strict=False))


def what_encoding_adds(directory: Path, ids: Mapping[str, int]) -> tuple[bool, bool]:
    """Whether encoding a text puts BOS before it and EOS after it, as the post-processor of tokenizer.json does.

    transformers ignores add_bos_token and add_eos_token of tokenizer_config.json beside a tokenizer.json.

    Raises:
        ExportError: it adds other tokens.
    """
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(directory / "tokenizer.json"))
    plain, special = (tokenizer.encode("a", add_special_tokens=add).ids for add in (False, True))
    starts = [start for start in range(len(special)) if special[start : start + len(plain)] == plain]
    before, after = (special[: starts[0]], special[starts[0] + len(plain) :]) if starts else (special, [])
    for added, role in ((before, "bos"), (after, "eos")):
        if added not in ([], [ids.get(role)]):
            raise ExportError(
                f"the tokenizer adds the tokens {added}, a GGUF can only add the {role} token {ids.get(role)}",
                where=directory / "tokenizer.json",
            )
    return bool(before), bool(after)


def padded(tokens: Mapping[int, tuple[str, TokenType]], size: int, directory: Path) -> list[tuple[str, TokenType]]:
    """Every id below `size`; ids without a token become UNUSED, as llama.cpp's converter names them.

    Raises:
        ExportError: the tokenizer has ids that the model has no embedding for, or two ids of one text.
    """
    if tokens and max(tokens) >= size:
        raise ExportError(
            f"the tokenizer has ids up to {max(tokens)}, the model {size} embeddings",
            where=directory,
            fix="use the tokenizer that belongs to the model",
        )
    all_tokens = [tokens.get(token, (f"[PAD{token}]", TokenType.UNUSED)) for token in range(size)]
    if len({text for text, _ in all_tokens}) != size:
        raise ExportError("two ids of the tokenizer have the same text", where=directory)
    return all_tokens
