"""Trains random models for two steps with MLX: the memory that was taken beside what training/memory.py predicted."""

from __future__ import annotations

import argparse
import gc
import json
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from chrysalis_mlx import backends
from chrysalis_mlx.adapters.spec import AdapterSpec, initialize, resolve_adapter
from chrysalis_mlx.batches.packing import Batch, assemble
from chrysalis_mlx.batches.tokens import Segment
from chrysalis_mlx.blueprint.schema import TrainingSection
from chrysalis_mlx.models.checkpoint import write_checkpoint
from chrysalis_mlx.models.directory import ModelDirectory
from chrysalis_mlx.training.memory import Memory, Shape, predict
from chrysalis_mlx.training.stage import optimizer_settings


@dataclass(frozen=True)
class Case:
    """A llama of random weights, and how it is trained."""

    hidden: int = 192
    wide: int = 512
    layers: int = 12
    heads: int = 6
    kv_heads: int = 2
    head_dim: int = 32
    vocabulary: int = 512
    length: int = 512
    rows: int = 1
    kind: Any = "lora"
    rank: int = 8
    adapted: Any = "all"
    modules: tuple[str, ...] = ("all-linear",)
    again: bool = False
    optimizer: Any = "adamw"

    @property
    def section(self) -> TrainingSection:
        return TrainingSection(
            row_length=self.length,
            batch_size=self.rows,
            gradient_checkpointing=self.again,
            optimizer=self.optimizer,
        )

    @property
    def config(self) -> dict[str, Any]:
        return {
            "model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": self.hidden,
            "intermediate_size": self.wide, "num_hidden_layers": self.layers, "num_attention_heads": self.heads,
            "num_key_value_heads": self.kv_heads, "head_dim": self.head_dim, "vocab_size": self.vocabulary,
            "tie_word_embeddings": True, "rms_norm_eps": 1e-5, "max_position_embeddings": 8192, "rope_theta": 1e4,
        }  # fmt: skip


CASES = {
    "activations": Case(layers=24, length=256),
    "deep": Case(layers=24),
    "long": Case(length=2048),
    "longer": Case(length=3072, layers=4),
    "short": Case(length=128),
    "shallow": Case(layers=2),
    "wide": Case(wide=2048),
    "narrow": Case(hidden=96, heads=3, kv_heads=1),
    "hidden": Case(hidden=768, heads=12, kv_heads=4, head_dim=64, layers=4, wide=1024),
    "many-heads": Case(heads=12, head_dim=16, length=1024),
    "all-keys": Case(kv_heads=6),
    "weights": Case(hidden=768, wide=2048, heads=12, kv_heads=4, head_dim=64, layers=4, length=64),
    "rows-2": Case(rows=2),
    "rows-4": Case(rows=4),
    "rows-2-long": Case(rows=2, length=1024),
    "rows-2-head": Case(rows=2, vocabulary=49152, layers=4),
    "dora": Case(kind="dora"),
    "dora-long": Case(kind="dora", length=1024, layers=6),
    "dora-wide": Case(kind="dora", wide=2048, length=256, layers=6),
    "checkpointing": Case(again=True, length=256),
    "checkpointing-512": Case(again=True),
    "checkpointing-long": Case(again=True, length=2048),
    "checkpointing-wide": Case(again=True, wide=2048),
    "checkpointing-head": Case(again=True, vocabulary=49152),
    "checkpointing-hidden": Case(again=True, hidden=768, heads=12, kv_heads=4, head_dim=64, wide=1024, length=256),
    "checkpointing-dora": Case(again=True, kind="dora"),
    "checkpointing-rows": Case(again=True, rows=2),
    "last-4": Case(adapted=4),
    "queries-values": Case(modules=("q_proj", "v_proj")),
    "rank-64": Case(rank=64),
    "update": Case(rank=128, length=64, layers=6),
    "full": Case(kind="full", length=64),
    "full-lion": Case(kind="full", length=64, optimizer="lion"),
    "full-muon": Case(kind="full", length=64, optimizer="muon"),
    "full-adafactor": Case(kind="full", length=64, optimizer="adafactor"),
    "head": Case(vocabulary=49152, layers=4),
    "head-short": Case(vocabulary=49152, layers=4, length=128),
    "head-llama3": Case(vocabulary=128256, layers=4, length=256),
    "head-4k": Case(vocabulary=4096, layers=4),
    "head-8k": Case(vocabulary=8192, layers=4, length=1024),
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("shapes", nargs="*", metavar="SHAPE", help=f"of: {', '.join(CASES)}; all by default")
    parser.add_argument("--json", action="store_true", help="print one JSON object for each shape")
    options = parser.parse_args()
    if unknown := sorted(set(options.shapes) - set(CASES)):
        parser.error(f"there is no shape {unknown[0]}")
    for name in options.shapes or CASES:
        predicted, measured = compare(CASES[name])
        if options.json:
            print(json.dumps({"shape": name, "predicted": predicted.peak, "measured": measured}), flush=True)
        else:
            ratio = predicted.peak / measured
            print(f"{name:22} predicted {predicted.peak / 1e6:8.1f} MB  measured {measured / 1e6:8.1f} MB  {ratio:.2f}")
            sys.stdout.flush()


def compare(case: Case) -> tuple[Memory, int]:
    """The prediction, and the most bytes that MLX held while a model was loaded and trained for two steps."""
    with tempfile.TemporaryDirectory() as directory:
        model = write_model(Path(directory), case)
        spec = adapter(model, case)
        weights = sum(int(np.prod(model.checkpoint().shape(name))) for name in model.checkpoint().names) * 4
        device = backends.load("mlx").device
        assert device in ("cpu", "gpu")
        shape = Shape.of(model.config)
        predicted = predict(shape, spec, case.section, weights=weights, device=device, size=4)
        return predicted, measure(model, spec, case)


def measure(model: ModelDirectory, spec: AdapterSpec, case: Case) -> int:
    """Peak bytes, less what earlier models left behind."""
    import mlx.core as mx

    gc.collect()
    mx.clear_cache()
    before = mx.get_active_memory()
    mx.reset_peak_memory()
    engine = backends.load("mlx")(
        model.path,
        spec,
        initialize(spec, model.checkpoint(), 0),
        dtype="float32",
        optimizer=optimizer_settings(case.section),
        gradient_checkpointing=case.again,
    )
    for _ in range(2):
        engine.step([rows(case)], 1e-4)
    return int(mx.get_peak_memory() - before)


def rows(case: Case) -> Batch:
    """Rows of one segment each, all of it learned."""
    random = np.random.default_rng(0)
    made = [random.integers(3, case.vocabulary, case.length).astype(np.int32) for _ in range(case.rows)]
    return assemble([[Segment(tokens, np.arange(case.length) > 0)] for tokens in made], case.length)


def adapter(model: ModelDirectory, case: Case) -> AdapterSpec:
    weights = model.layer_weights() if case.kind == "full" else None
    return resolve_adapter(
        case.kind, case.rank, 16.0, case.adapted, case.modules, model.layer_linears(), weights=weights
    )


def write_model(directory: Path, case: Case) -> ModelDirectory:
    (directory / "config.json").write_text(json.dumps(case.config))
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (case.vocabulary, case.hidden)}
    shapes |= {f"{name}.weight": shape for name, shape in Shape.of(case.config).linears().items()}
    for layer in range(case.layers):
        for norm in ("input_layernorm", "post_attention_layernorm"):
            shapes[f"model.layers.{layer}.{norm}.weight"] = (case.hidden,)
    shapes["model.norm.weight"] = (case.hidden,)
    random = np.random.default_rng(0)
    write_checkpoint(
        directory / "model.safetensors",
        shapes,
        lambda name: random.standard_normal(shapes[name], dtype=np.float32) * 0.05,
    )
    return ModelDirectory(directory, case.config)


if __name__ == "__main__":
    main()
