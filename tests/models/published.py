"""What the config.json of published models says, as far as it decides their size, and how many parameters they have."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.tiny import CHATML


def _config(model_type: str, numbers: str, *, tied: bool | None = True, **more: Any) -> dict[str, Any]:
    """`numbers`: hidden size, layers, heads, key-value heads, intermediate size, vocabulary, context."""
    names = (
        "hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "intermediate_size",
        "vocab_size", "max_position_embeddings",
    )  # fmt: skip
    sizes = dict(zip(names, map(int, numbers.split()), strict=True))
    return {"model_type": model_type, **sizes, **({} if tied is None else {"tie_word_embeddings": tied}), **more}


QUANTIZED = {"quantization": {"group_size": 64, "bits": 4}}
PHI3 = _config("phi3", "3072 32 32 32 8192 32064 4096", tied=False)
QWEN3_4B = _config("qwen3", "2560 36 32 8 9728 151936 40960", head_dim=128)

# Hub id -> its configuration, its number of parameters, and whether its tokenizer has a chat template.
PUBLISHED: dict[str, tuple[dict[str, Any], int, bool]] = {
    "HuggingFaceTB/SmolLM2-135M-Instruct": (_config("llama", "576 30 9 3 1536 49152 8192"), 134_515_008, True),
    "HuggingFaceTB/SmolLM2-360M": (_config("llama", "960 32 15 5 2560 49152 8192"), 361_821_120, False),
    "meta-llama/Llama-3.2-1B": (
        _config("llama", "2048 16 32 8 8192 128256 131072", head_dim=64), 1_235_814_400, False
    ),
    "google/gemma-3-270m": (
        _config("gemma3_text", "640 18 4 1 2048 262144 32768", tied=None, head_dim=256), 268_098_176, False
    ),
    "google/gemma-3-1b-it": (
        _config("gemma3_text", "1152 26 4 1 6912 262144 32768", tied=None, head_dim=256), 999_885_952, True
    ),
    "Qwen/Qwen3-0.6B-Base": (_config("qwen3", "1024 28 16 8 3072 151936 32768", head_dim=128), 596_049_920, True),
    "Qwen/Qwen3-0.6B": (_config("qwen3", "1024 28 16 8 3072 151936 40960", head_dim=128), 596_049_920, True),
    "mlx-community/Qwen3-4B-4bit": (QWEN3_4B | QUANTIZED, 4_022_468_096, True),
    "mlx-community/Phi-3-mini-4k-instruct-4bit": (PHI3 | QUANTIZED, 3_821_079_552, True),
    "mistralai/Mistral-7B-Instruct-v0.3": (
        _config("mistral", "4096 32 32 8 14336 32768 32768", tied=False), 7_248_023_552, True
    ),
    "Qwen/Qwen2.5-0.5B": (_config("qwen2", "896 24 14 2 4864 151936 32768"), 494_032_768, True),
    "HuggingFaceTB/SmolLM3-3B": (_config("smollm3", "2048 36 16 4 11008 128256 65536", tied=None), 3_075_098_624, True),
    "allenai/OLMo-2-0425-1B": (_config("olmo2", "2048 16 16 16 8192 100352 4096", tied=False), 1_484_916_736, False),
    "Qwen/Qwen3-30B-A3B": (
        _config(
            "qwen3_moe", "2048 48 32 4 6144 151936 40960", tied=False, head_dim=128, num_experts=128,
            moe_intermediate_size=768, decoder_sparse_step=1, mlp_only_layers=[],
        ),
        30_532_122_624,
        True,
    ),
}  # fmt: skip


def write_published(directory: Path, source: str) -> Path:
    """The small files of a published model, as they are before its weights are downloaded."""
    config, _, has_template = PUBLISHED[source]
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "config.json").write_text(json.dumps(config))
    (directory / "tokenizer_config.json").write_text(json.dumps({"chat_template": CHATML} if has_template else {}))
    return directory
