"""Byte-level BPE: tokenizer.json -> GGUF vocabulary, and GGUF vocabulary -> a Hugging Face tokenizer directory."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from chrysalis_mlx.errors import ExportError, ModelError
from chrysalis_mlx.gguf.vocabulary import pretokenizers
from chrysalis_mlx.gguf.vocabulary.agreement import Agreement
from chrysalis_mlx.gguf.vocabulary.special_tokens import (
    SPECIAL_ROLES,
    TokenType,
    added_tokens,
    added_type,
    padded,
    special_ids,
    what_encoding_adds,
)
from chrysalis_mlx.gguf.vocabulary.template import Template
from chrysalis_mlx.gguf.vocabulary.vocabulary import BYTE_LEVEL, Vocabulary


def is_byte_level(tokenizer: Mapping[str, Any]) -> bool:
    """Whether a tokenizer.json holds a byte-level BPE: BPE with a ByteLevel decoder or pre-tokenizer."""
    if (tokenizer.get("model") or {}).get("type") != "BPE":
        return False
    steps = [tokenizer.get("decoder"), tokenizer.get("pre_tokenizer")]
    for step in list(steps):
        steps += (step or {}).get("pretokenizers", []) + (step or {}).get("decoders", [])
    return any(step and step.get("type") == "ByteLevel" for step in steps)


def read(directory: Path, tokenizer: Mapping[str, Any], config: Mapping[str, Any], chat: Template | None) -> Vocabulary:
    """The vocabulary of a tokenizer.json.

    Raises:
        ExportError: see `Vocabulary.from_directory`.
    """
    from tokenizers import Tokenizer

    file = directory / "tokenizer.json"
    model = tokenizer["model"]
    for key in ("byte_fallback", "continuing_subword_prefix", "end_of_word_suffix", "dropout"):
        if model.get(key):
            raise ExportError(f"llama.cpp's byte-level BPE has no {key}", where=file)
    pre = pretokenizers.find(tokenizer, lambda text: list(Tokenizer.from_file(str(file)).encode(text).ids))
    added = added_tokens(directory, tokenizer)
    tokens = {int(token): (text, TokenType.NORMAL) for text, token in model["vocab"].items()}
    tokens |= {token.id: (token.content, added_type(token)) for token in added.values()}
    texts, types = zip(*padded(tokens, int(config["vocab_size"]), directory), strict=True)
    ids = special_ids(directory, config, tokens, "" if chat is None else chat.after_answer)
    add_bos, add_eos = what_encoding_adds(directory, ids)
    return Vocabulary(
        model=BYTE_LEVEL,
        tokens=list(texts),
        types=list(types),
        merges=[_merge(pair) for pair in model["merges"]],
        pre=pre.name,
        ids=ids,
        add_bos=add_bos,
        add_eos=add_eos,
        chat_template=None if chat is None else chat.source,
        agreement=Agreement(
            nfc=pre.nfc,
            special=tuple(token.content for token in added.values()),
            lstrip=frozenset(token.content for token in added.values() if token.lstrip),
            rstrip=frozenset(token.content for token in added.values() if token.rstrip),
            pre_tokenizer=tokenizer.get("pre_tokenizer"),
            in_llamacpp=pre.in_llamacpp,
        ),
    )


def _merge(pair: str | list[str]) -> str:
    if isinstance(pair, str):
        return pair
    # A space separates the two sides, so one inside them is shifted like GPT-2's alphabet shifts it.
    return " ".join(part.replace(" ", "Ġ") for part in pair)


def write(vocabulary: Vocabulary, directory: Path) -> None:
    """Write tokenizer.json, tokenizer_config.json, special_tokens_map.json and chat_template.jinja.

    Raises:
        ModelError: not a byte-level BPE, or a pre-tokenizer without a rule.
    """
    from tokenizers import Tokenizer

    if vocabulary.model != BYTE_LEVEL:
        raise ModelError(
            f"cannot rebuild a tokenizer from a GGUF vocabulary of the kind {vocabulary.model}",
            fix="only byte-level BPE can be rebuilt; use the original Hugging Face model",
        )
    try:
        tokenizer = Tokenizer.from_str(json.dumps(_tokenizer_json(vocabulary)))
    except ModelError:
        raise
    except Exception as error:  # tokenizers raises nothing more precise
        raise ModelError(f"the GGUF's vocabulary does not make a tokenizer: {error}") from error
    tokenizer.save(str(directory / "tokenizer.json"))
    special = {
        f"{role}_token": vocabulary.tokens[token] for role, token in vocabulary.ids.items() if role in SPECIAL_ROLES
    }
    settings: dict[str, Any] = {
        # The class that takes tokenizer.json as it is: GPT2Tokenizer of transformers 5 drops the digit splitting.
        "tokenizer_class": "PreTrainedTokenizerFast",
        **{f"{role}_token": special.get(f"{role}_token") for role in SPECIAL_ROLES},
        "add_bos_token": vocabulary.add_bos,
        "add_eos_token": vocabulary.add_eos,
        "add_prefix_space": False,
        "clean_up_tokenization_spaces": False,
    }
    if vocabulary.chat_template is not None:
        settings["chat_template"] = vocabulary.chat_template
    for name, value in (("tokenizer_config.json", settings), ("special_tokens_map.json", special)):
        text = json.dumps(value, indent=2, ensure_ascii=False) + "\n"
        (directory / name).write_text(text, encoding="utf-8")


def _tokenizer_json(vocabulary: Vocabulary) -> dict[str, Any]:
    pre = pretokenizers.named(vocabulary.pre or "gpt-2")
    added = [
        {
            "id": token,
            "content": text,
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
            "special": kind is TokenType.CONTROL,
        }
        for token, (text, kind) in enumerate(zip(vocabulary.tokens, vocabulary.types, strict=True))
        if kind in (TokenType.CONTROL, TokenType.USER_DEFINED)
    ]
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": pre.normalizer,
        "pre_tokenizer": pre.pre_tokenizer,
        "post_processor": _post_processor(vocabulary) or byte_level,
        "decoder": byte_level,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": pre.ignore_merges,
            "vocab": {
                text: token
                for token, (text, kind) in enumerate(zip(vocabulary.tokens, vocabulary.types, strict=True))
                if kind is not TokenType.UNUSED
            },
            "merges": [merge.split(" ") for merge in vocabulary.merges],
        },
    }


def _post_processor(vocabulary: Vocabulary) -> dict[str, Any] | None:
    roles = [role for role, adds in (("bos", vocabulary.add_bos), ("eos", vocabulary.add_eos)) if adds]
    if not roles:
        return None
    if missing := [role for role in roles if role not in vocabulary.ids]:
        raise ModelError(f"the GGUF adds a {missing[0]} token and does not say which")

    def template(sequence: str, type_id: int) -> list[dict[str, Any]]:
        steps: list[dict[str, Any]] = [{"Sequence": {"id": sequence, "type_id": type_id}}]
        for role in roles:
            step = {"SpecialToken": {"id": vocabulary.tokens[vocabulary.ids[role]], "type_id": type_id}}
            steps = [step, *steps] if role == "bos" else [*steps, step]
        return steps

    named = {vocabulary.tokens[vocabulary.ids[role]]: vocabulary.ids[role] for role in roles}
    return {
        "type": "TemplateProcessing",
        "single": template("A", 0),
        "pair": template("A", 0) + template("B", 1),
        "special_tokens": {text: {"id": text, "ids": [token], "tokens": [text]} for text, token in named.items()},
    }
