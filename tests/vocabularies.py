"""Tokenizers trained for tests, in directories of their own, and GGUFs that hold little but a vocabulary."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from chrysalis_mlx.gguf.vocabulary import pretokenizers
from chrysalis_mlx.gguf.vocabulary.hard_strings import HARD_STRINGS
from chrysalis_mlx.gguf.vocabulary.vocabulary import Vocabulary
from tests import tiny

TEXT = tiny.TEXT + "\n".join(HARD_STRINGS) * 2
"""Of several scripts, so that words of all of them are in the vocabularies."""

Json = dict[str, Any]


def byte_level_bpe(directory: Path, pre: str, *, vocab_size: int = 1200, added: Sequence[Any] = ()) -> Path:
    """A byte-level BPE with the pre-tokenizer of this llama.cpp name: ids 0-2 as `tiny.byte_level_bpe`."""
    from tokenizers import Tokenizer, trainers

    rule = pretokenizers.named(pre)
    directory = tiny.byte_level_bpe(directory)
    file = directory / "tokenizer.json"
    start = json.loads(file.read_text(encoding="utf-8"))
    start |= {"pre_tokenizer": rule.pre_tokenizer, "normalizer": rule.normalizer}
    start["model"]["ignore_merges"] = rule.ignore_merges
    tokenizer = Tokenizer.from_str(json.dumps(start))
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - len(added),
        min_frequency=1,
        special_tokens=[tiny.END_OF_TEXT, tiny.IM_START, tiny.IM_END],
        initial_alphabet=[text for text, token in start["model"]["vocab"].items() if len(text) == 1],
        show_progress=False,
    )
    tokenizer.train_from_iterator([TEXT], trainer)
    tokenizer.add_tokens(list(added))
    tokenizer.save(str(file))
    return directory


def sentencepiece(directory: Path, *, gemma: bool = False, vocab_size: int = 1000, **options: Any) -> Path:
    """A SentencePiece BPE as Llama 2's, or Gemma's: ids 0-2 are <unk>, <s>, </s>, or 0-3 <pad>, <eos>, <bos>, <unk>."""
    import sentencepiece as spm

    directory.mkdir(parents=True, exist_ok=True)
    model = io.BytesIO()
    ids: Json = {}
    if gemma:
        runs = ["\n" * count for count in range(1, 8)] + ["▁" * count for count in range(2, 12)]
        ids = {"pad_id": 0, "eos_id": 1, "bos_id": 2, "unk_id": 3, "pad_piece": "<pad>", "eos_piece": "<eos>"}
        ids |= {
            "bos_piece": "<bos>",
            "add_dummy_prefix": False,
            "control_symbols": ["<start_of_turn>", "<end_of_turn>"],
        }
        ids |= {"user_defined_symbols": [*runs, "<table>"]}
    spm.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXT.splitlines()),
        model_writer=model,
        **{
            "vocab_size": vocab_size,
            "model_type": "bpe",
            "byte_fallback": True,
            "normalization_rule_name": "identity",
            "remove_extra_whitespaces": False,
            "split_digits": True,
            "allow_whitespace_only_pieces": True,
            "character_coverage": 0.98,
            "minloglevel": 2,
            **ids,
            **options,
        },
    )
    (directory / "tokenizer.model").write_bytes(model.getvalue())
    special = {"bos_token": "<bos>" if gemma else "<s>", "eos_token": "<eos>" if gemma else "</s>"}
    settings: Json = {
        "tokenizer_class": "GemmaTokenizer" if gemma else "LlamaTokenizer",
        **special,
        "unk_token": "<unk>",
        "add_bos_token": True,
    }
    (directory / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    return directory


def as_tokenizer_json(
    source: Path,
    directory: Path,
    *,
    normalizer: Json | None,
    pre_tokenizer: Json | None,
    added: Sequence[Json] = (),
    sort: Callable[[tuple[str, str]], Any] | None = None,
) -> Path:
    """The vocabulary of a tokenizer.model in a tokenizer.json as transformers 5 writes it, without a tokenizer.model.

    Args:
        added: further added tokens: content, and flags that are not those of a special token.
        sort: key of another order of the merges.
    """
    import sentencepiece as spm
    from tokenizers import Tokenizer

    model = spm.SentencePieceProcessor(model_file=str(source / "tokenizer.model"))
    vocab = {model.id_to_piece(token): token for token in range(model.get_piece_size())}
    settings = json.loads((source / "tokenizer_config.json").read_text(encoding="utf-8"))
    special = [text for text, token in vocab.items() if model.is_control(token) or model.is_unknown(token)]
    made = [_added(vocab[text], text) for text in special]
    made += [
        _added(vocab.get(entry["content"], len(vocab) + index), **entry)
        for index, entry in enumerate(entry for entry in added)
    ]
    merges = [
        (piece[:at], piece[at:])
        for piece in vocab
        for at in range(1, len(piece))
        if piece not in special and piece[:at] in vocab and piece[at:] in vocab
    ]
    merges = sorted(merges, key=sort) if sort else merges
    bos = settings["bos_token"]
    template = [{"SpecialToken": {"id": bos, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}]
    content: Json = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": made,
        "normalizer": normalizer,
        "pre_tokenizer": pre_tokenizer,
        "post_processor": {
            "type": "TemplateProcessing",
            "single": template,
            "pair": template,
            "special_tokens": {bos: {"id": bos, "ids": [vocab[bos]], "tokens": [bos]}},
        },
        "decoder": {"type": "ByteFallback"},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": "<unk>",
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": True,
            "byte_fallback": True,
            "ignore_merges": False,
            "vocab": vocab,
            "merges": [list(pair) for pair in merges],
        },
    }
    directory.mkdir(parents=True, exist_ok=True)
    Tokenizer.from_str(json.dumps(content)).save(str(directory / "tokenizer.json"))
    (directory / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    return directory


def _added(id: int, content: str, *, special: bool = True, **flags: bool) -> Json:
    return {
        "id": id, "content": content, "special": special, "normalized": False, "single_word": False, "lstrip": False,
        "rstrip": False, **flags,
    }  # fmt: skip


def write_gguf(path: Path, vocabulary: Vocabulary, *, name: str = "vocabulary", says: int = 0) -> Path:
    """A GGUF that llama.cpp loads: the vocabulary, and one layer that does nothing; it always says one token."""
    import gguf

    width, size = 32, len(vocabulary.tokens)
    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_name(vocabulary.general_name(name))
    writer.add_context_length(512)
    writer.add_embedding_length(width)
    writer.add_block_count(1)
    writer.add_feed_forward_length(width)
    writer.add_head_count(1)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(size)
    vocabulary.add_to(writer)
    shapes = {f"blk.0.attn_{part}.weight": (width, width) for part in ("q", "k", "v", "output")}
    shapes |= {f"blk.0.ffn_{part}.weight": (width, width) for part in ("gate", "up", "down")}
    shapes |= {f"blk.0.{part}_norm.weight": (width,) for part in ("attn", "ffn")}
    for tensor, shape in shapes.items():
        writer.add_tensor(tensor, np.zeros(shape, np.float32))
    writer.add_tensor("token_embd.weight", np.ones((size, width), np.float32))
    writer.add_tensor("output_norm.weight", np.ones(width, np.float32))
    writer.add_tensor("output.weight", np.repeat(np.arange(size)[:, None] == says, width, 1).astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


SPACES: Json = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
PREPEND: Json = {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "▁"}, SPACES]}
AT_SPACES: Json = {"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious", "invert": False}


def pre_tokenizer(step: Json) -> Any:
    """The `tokenizers` pre-tokenizer of what tokenizer.json says."""
    from tokenizers import Tokenizer, models

    empty = json.loads(Tokenizer(models.BPE()).to_str())
    return Tokenizer.from_str(json.dumps({**empty, "pre_tokenizer": step})).pre_tokenizer


def metaspace(scheme: str, *, split: bool = False) -> Json:
    return {"type": "Metaspace", "replacement": "▁", "prepend_scheme": scheme, "split": split}
