"""Tiny random models in complete Hugging Face directories, written in well under a second.

Every directory holds config.json, generation_config.json, model.safetensors (float32), tokenizer.json,
tokenizer_config.json, special_tokens_map.json and a ChatML template. The same arguments give the same weights.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

TEXT = """\
A genome is a text; a blueprint says which part of it is expressed, and a chrysalis is what the two become.
def transform(caterpillar: Larva, days: int = 14) -> Butterfly:
    \"\"\"Dissolve, then rebuild: the imaginal discs are already there.\"\"\"
    for day in range(days):
        caterpillar = caterpillar.dissolve(day * 0.25) if day < 7 else caterpillar.rebuild(day)
    return Butterfly(wings=4, colour="orange", name=caterpillar.name)
class Larva:
    def __init__(self, name: str, length: float = 3.75) -> None:
        self.name, self.length, self.instar = name, length, 1
    def eat(self, leaves: list[str]) -> None:
        while leaves and self.instar < 5:
            self.length += len(leaves.pop()) * 0.5
            self.instar = 1 + int(self.length // 12)
The caterpillar doesn't know what it'll become; they're told that we've seen the wings, and I'm sure it can't hurt.
In 2024 there were 1234567 monarchs counted, 48% fewer than in 1996. Größe, naïve, café, 東京, Привет, 🦋🐛.
import json, sys
with open("genome.json", encoding="utf-8") as handle:
    print(json.dumps({"repositories": [], "commits": 12, "files": 3456}, indent=2), file=sys.stderr)
Once upon a time the training of a small model was the work of a large company; then the laptop learned to do it.
"""
"""What the tokenizers are trained on; tests may tokenize and train on it too."""

CHATML = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)

QWEN2_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
LLAMA3_PATTERN = QWEN2_PATTERN.replace(r"|\p{N}|", r"|\p{N}{1,3}|")

END_OF_TEXT, IM_START, IM_END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"


def pre_tokenizer(pre: str) -> Any:
    """The `tokenizers` pre-tokenizer that models of this llama.cpp name use: smollm, gpt-2, qwen2 or llama-bpe."""
    from tokenizers import Regex, pre_tokenizers

    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=pre in ("smollm", "gpt-2"))
    if pre == "gpt-2":
        return byte_level
    if pre == "smollm":
        return pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), byte_level])
    pattern = {"qwen2": QWEN2_PATTERN, "llama-bpe": LLAMA3_PATTERN}[pre]
    return pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(pattern), "isolated", invert=False), byte_level])


def byte_level_bpe(directory: Path, pre: str = "smollm", *, vocab_size: int = 512) -> Path:
    """Train a byte-level BPE on TEXT: ids 0-2 are <|endoftext|> (pad), <|im_start|>, <|im_end|> (eos)."""
    from tokenizers import Tokenizer, decoders, models, normalizers, trainers

    directory.mkdir(parents=True, exist_ok=True)
    tokenizer = Tokenizer(models.BPE(ignore_merges=pre == "llama-bpe"))
    if pre == "qwen2":
        tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizer(pre)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=1,
        special_tokens=[END_OF_TEXT, IM_START, IM_END],
        initial_alphabet=sorted(_byte_alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator([TEXT], trainer)
    tokenizer.save(str(directory / "tokenizer.json"))
    _write_json(
        directory / "tokenizer_config.json",
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": None,
            "eos_token": IM_END,
            "unk_token": None,
            "pad_token": END_OF_TEXT,
            "add_prefix_space": False,
            "clean_up_tokenization_spaces": False,
            "model_max_length": 512,
            "chat_template": CHATML,
        },
    )
    _write_json(directory / "special_tokens_map.json", {"eos_token": IM_END, "pad_token": END_OF_TEXT})
    return directory


def sentencepiece(directory: Path, *, vocab_size: int = 512) -> Path:
    """Train a SentencePiece BPE with byte fallback, as Llama 2 and Mistral have it: ids 0-2 are <unk>, <s>, </s>."""
    import io

    import sentencepiece as spm

    directory.mkdir(parents=True, exist_ok=True)
    model = io.BytesIO()
    spm.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXT.splitlines()),
        model_writer=model,
        vocab_size=vocab_size,
        model_type="bpe",
        byte_fallback=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        split_digits=True,
        allow_whitespace_only_pieces=True,
        minloglevel=2,
    )
    (directory / "tokenizer.model").write_bytes(model.getvalue())
    _write_json(
        directory / "tokenizer_config.json",
        {
            "tokenizer_class": "LlamaTokenizer",
            "bos_token": "<s>",
            "eos_token": "</s>",
            "unk_token": "<unk>",
            "pad_token": None,
            "add_bos_token": True,
            "add_eos_token": False,
            "legacy": False,
            "model_max_length": 512,
            "chat_template": CHATML,
        },
    )
    _write_json(directory / "special_tokens_map.json", {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"})
    return directory


def tiny_llama(
    directory: Path,
    *,
    bias: bool = False,
    tie: bool = True,
    hidden: int = 64,
    intermediate: int = 128,
    layers: int = 2,
    heads: int = 4,
    kv_heads: int = 2,
    head_dim: int | None = None,
    vocab_size: int = 512,
    pre: str = "smollm",
    seed: int = 0,
    **config: Any,
) -> Path:
    """LlamaForCausalLM. `bias` gives every attention and MLP projection a bias; `pre` "spm" takes SentencePiece."""
    import transformers

    settings = transformers.LlamaConfig(
        hidden_size=hidden,
        intermediate_size=intermediate,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        head_dim=head_dim or hidden // heads,
        vocab_size=vocab_size,
        tie_word_embeddings=tie,
        attention_bias=bias,
        mlp_bias=bias,
        **_common(pre, config),
    )
    return _write(directory, transformers.LlamaForCausalLM, settings, pre, seed)


def tiny_mistral(
    directory: Path,
    *,
    tie: bool = False,
    hidden: int = 64,
    intermediate: int = 128,
    layers: int = 2,
    heads: int = 4,
    kv_heads: int = 2,
    vocab_size: int = 512,
    pre: str = "spm",
    seed: int = 0,
    **config: Any,
) -> Path:
    """MistralForCausalLM with full attention, by default with a SentencePiece tokenizer."""
    import transformers

    settings = transformers.MistralConfig(
        hidden_size=hidden,
        intermediate_size=intermediate,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        vocab_size=vocab_size,
        tie_word_embeddings=tie,
        **{"sliding_window": None, **_common(pre, config)},
    )
    return _write(directory, transformers.MistralForCausalLM, settings, pre, seed)


def tiny_qwen2(
    directory: Path,
    *,
    tie: bool = True,
    hidden: int = 64,
    intermediate: int = 128,
    layers: int = 2,
    heads: int = 4,
    kv_heads: int = 2,
    vocab_size: int = 512,
    pre: str = "qwen2",
    seed: int = 0,
    **config: Any,
) -> Path:
    """Qwen2ForCausalLM: biases on q, k and v."""
    import transformers

    settings = transformers.Qwen2Config(
        hidden_size=hidden,
        intermediate_size=intermediate,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        vocab_size=vocab_size,
        tie_word_embeddings=tie,
        **_common(pre, config),
    )
    return _write(directory, transformers.Qwen2ForCausalLM, settings, pre, seed)


def tiny_qwen3(
    directory: Path,
    *,
    bias: bool = False,
    tie: bool = True,
    hidden: int = 64,
    intermediate: int = 128,
    layers: int = 2,
    heads: int = 4,
    kv_heads: int = 2,
    head_dim: int = 32,
    vocab_size: int = 512,
    pre: str = "qwen2",
    seed: int = 0,
    **config: Any,
) -> Path:
    """Qwen3ForCausalLM: q and k norms, and a head_dim that is not hidden / heads."""
    import transformers

    settings = transformers.Qwen3Config(
        hidden_size=hidden,
        intermediate_size=intermediate,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        head_dim=head_dim,
        vocab_size=vocab_size,
        tie_word_embeddings=tie,
        attention_bias=bias,
        **_common(pre, config),
    )
    return _write(directory, transformers.Qwen3ForCausalLM, settings, pre, seed)


def tiny_gemma2(
    directory: Path, *, layers: int = 2, vocab_size: int = 512, pre: str = "smollm", seed: int = 0, **config: Any
) -> Path:
    """Gemma2ForCausalLM: both soft-caps where they bite, and every other layer sees 8 tokens only."""
    import transformers

    own = {"head_dim": 16, "query_pre_attn_scalar": 24, "sliding_window": 8}
    own |= {"attn_logit_softcapping": 2.0, "final_logit_softcapping": 8.0}
    settings = transformers.Gemma2Config(**_sizes(layers, vocab_size), **{**own, **_common(pre, config)})
    return _write(directory, transformers.Gemma2ForCausalLM, settings, pre, seed)


def tiny_gemma3(
    directory: Path, *, layers: int = 3, vocab_size: int = 512, pre: str = "smollm", seed: int = 0, **config: Any
) -> Path:
    """Gemma3ForCausalLM: every second layer sees the whole text with another rotary base, the others 8 tokens only."""
    import transformers

    own = {"head_dim": 16, "query_pre_attn_scalar": 24, "sliding_window": 8, "sliding_window_pattern": 2}
    settings = transformers.Gemma3TextConfig(**_sizes(layers, vocab_size), **{**own, **_common(pre, config)})
    _write(directory, transformers.Gemma3ForCausalLM, settings, pre, seed)
    pattern = config.get("sliding_window_pattern", 2)
    return _publish(directory, rope_theta=1e6, rope_local_base_freq=1e4, sliding_window_pattern=pattern)


def tiny_phi3(
    directory: Path, *, layers: int = 2, vocab_size: int = 512, pre: str = "smollm", seed: int = 0, **config: Any
) -> Path:
    """Phi3ForCausalLM: q, k and v in one linear layer, gate and up in another."""
    import transformers

    settings = transformers.Phi3Config(**_sizes(layers, vocab_size), **_common(pre, config))
    return _write(directory, transformers.Phi3ForCausalLM, settings, pre, seed)


def tiny_olmo2(
    directory: Path, *, layers: int = 2, vocab_size: int = 512, pre: str = "smollm", seed: int = 0, **config: Any
) -> Path:
    """Olmo2ForCausalLM: norms after the blocks, and over all heads of q and k; an output head of its own."""
    import transformers

    settings = transformers.Olmo2Config(**_sizes(layers, vocab_size), **_common(pre, config))
    return _write(directory, transformers.Olmo2ForCausalLM, settings, pre, seed)


def tiny_granite(
    directory: Path, *, layers: int = 2, vocab_size: int = 512, pre: str = "smollm", seed: int = 0, **config: Any
) -> Path:
    """GraniteForCausalLM: scales of embeddings, attention, residuals and logits, none of them 1."""
    import transformers

    own = {"embedding_multiplier": 6.0, "attention_multiplier": 0.15, "residual_multiplier": 0.22}
    own |= {"logits_scaling": 3.0, "tie_word_embeddings": True}
    settings = transformers.GraniteConfig(**_sizes(layers, vocab_size), **{**own, **_common(pre, config)})
    _write(directory, transformers.GraniteForCausalLM, settings, pre, seed)
    return _publish(directory, rope_theta=1e4)


def tiny_qwen3_moe(
    directory: Path, *, layers: int = 2, vocab_size: int = 512, pre: str = "qwen2", seed: int = 0, **config: Any
) -> Path:
    """Qwen3MoeForCausalLM: two of six experts for a token, in every layer."""
    import transformers

    own = {"moe_intermediate_size": 48, "num_experts": 6, "num_experts_per_tok": 2, "head_dim": 32}
    own |= {"norm_topk_prob": True}
    settings = transformers.Qwen3MoeConfig(**_sizes(layers, vocab_size), **{**own, **_common(pre, config)})
    return _write(directory, transformers.Qwen3MoeForCausalLM, settings, pre, seed)


def tiny_smollm3(
    directory: Path, *, layers: int = 4, vocab_size: int = 512, pre: str = "smollm", seed: int = 0, **config: Any
) -> Path:
    """SmolLM3ForCausalLM: the fourth layer knows no positions."""
    import transformers

    settings = transformers.SmolLM3Config(**_sizes(layers, vocab_size), **_common(pre, config))
    return _write(directory, transformers.SmolLM3ForCausalLM, settings, pre, seed)


def tiny_cohere2(
    directory: Path, *, layers: int = 4, vocab_size: int = 512, pre: str = "smollm", seed: int = 0, **config: Any
) -> Path:
    """Cohere2ForCausalLM: three layers see 8 tokens with rotary positions, the fourth all of them without."""
    import transformers

    own = {"logit_scale": 0.25, "sliding_window": 8}
    settings = transformers.Cohere2Config(**_sizes(layers, vocab_size), **{**own, **_common(pre, config)})
    return _write(directory, transformers.Cohere2ForCausalLM, settings, pre, seed)


def tiny_cohere(
    directory: Path, *, layers: int = 2, vocab_size: int = 512, pre: str = "smollm", seed: int = 0, **config: Any
) -> Path:
    """CohereForCausalLM: attention and MLP side by side behind one layer norm, and scaled logits."""
    import transformers

    settings = transformers.CohereConfig(**_sizes(layers, vocab_size), **{"logit_scale": 0.25, **_common(pre, config)})
    _write(directory, transformers.CohereForCausalLM, settings, pre, seed)
    return _publish(directory, rope_theta=5e5)


def _sizes(layers: int, vocab_size: int) -> dict[str, int]:
    return {
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": layers,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "vocab_size": vocab_size,
    }


def _publish(directory: Path, **keys: Any) -> Path:
    """Say of the rotary positions in config.json what published models say, which transformers 5 writes otherwise."""
    file = directory / "config.json"
    config = json.loads(file.read_text(encoding="utf-8"))
    del config["rope_parameters"]
    _write_json(file, config | keys)
    return directory


def quantized(
    source: Path,
    directory: Path,
    *,
    bits: int = 4,
    group_size: int = 32,
    mode: str = "affine",
    own: Mapping[str, Any] | None = None,
) -> Path:
    """What `mlx_lm.convert -q` makes of a model directory; `own`: module name to its own settings, or False."""
    import mlx_lm.utils

    def packing(name: str, _: Any) -> Any:
        return (own or {}).get(name, True)

    model, config = mlx_lm.utils.load_model(source)
    model, config = mlx_lm.utils.quantize_model(model, config, group_size, bits, mode=mode, quant_predicate=packing)
    mlx_lm.utils.save_model(directory, model)
    mlx_lm.utils.save_config(config, directory / "config.json")
    for file in source.iterdir():
        if file.name not in ("config.json", "model.safetensors"):
            shutil.copyfile(file, directory / file.name)
    return directory


def _common(pre: str, config: dict[str, Any]) -> dict[str, Any]:
    ids: dict[str, Any] = {"bos_token_id": None, "eos_token_id": 2, "pad_token_id": 0}
    if pre == "spm":
        ids = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": None}
    return {"max_position_embeddings": 512, **ids, **config}


def _write(directory: Path, model_class: Any, settings: Any, pre: str, seed: int) -> Path:
    model = model_class(settings)
    _randomize(model, seed)
    model.save_pretrained(directory)
    if pre == "spm":
        sentencepiece(directory)
    else:
        byte_level_bpe(directory, pre)
    return directory


def _randomize(model: Any, seed: int) -> None:
    """Weights at the scale of a trained model, with no zero bias and no norm of ones, so that a wrong rule shows."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in sorted(model.named_parameters()):
            noise = torch.randn(parameter.shape, generator=generator)
            if name.endswith("norm.weight"):
                # Gemma's norms add the one themselves.
                parameter.copy_(0.2 * noise + (0 if model.config.model_type.startswith("gemma") else 1))
            elif parameter.ndim == 1 or "embed_tokens" in name:
                parameter.copy_(0.3 * noise)
            else:
                parameter.copy_(noise * parameter.shape[-1] ** -0.5)


def _byte_alphabet() -> set[str]:
    from tokenizers import pre_tokenizers

    return set(pre_tokenizers.ByteLevel.alphabet())


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
