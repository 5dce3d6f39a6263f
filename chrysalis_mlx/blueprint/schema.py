"""What a blueprint says: the one definition of configuration.

A blueprint decides what of a genome is expressed for a model and how the model is trained on it. Every field has a
default, a one-line meaning and, where it has one, a range; `load.py` turns YAML into these classes and checks them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from chrysalis_mlx.config import option

VERSION = 1


@dataclass(frozen=True)
class ModelSection:
    """Which model grows."""

    source: str | None = option(None, "local directory, Hub id or .gguf file; --model overrides it")
    revision: str | None = option(None, "commit, tag or branch of a Hub id")


@dataclass(frozen=True)
class ExpressionSection:
    """Which files of the genome the model sees. Patterns are globs on REPOSITORY/PATH; * also crosses slashes."""

    include: tuple[str, ...] = option(("*",), "a file must match one of these")
    exclude: tuple[str, ...] = option((), "and none of these")
    min_characters: int = option(1, "shorter texts, counted without surrounding white space, are left out", minimum=1)


@dataclass(frozen=True)
class FramingSection:
    """How a file becomes training text."""

    kind: Literal["text"] = option("text", "text: a header line, then the content")
    header: str = option("# {repository}/{path}\n\n", "put before every chunk; {repository} and {path} are filled in")


@dataclass(frozen=True)
class SplitSection:
    """Which documents are kept back. Shares are of documents; each side gets at least one."""

    valid: float = option(0.05, "share of the documents validated on during training", minimum=0.0, maximum=0.5)
    test: float = option(0.05, "share of the documents kept for `eval`", minimum=0.0, maximum=0.5)
    seed: int = option(0, "which documents these are", minimum=0)


@dataclass(frozen=True)
class AdapterSection:
    """What is trained: low-rank adapters beside frozen linear layers."""

    kind: Literal["lora", "dora"] = option("lora", "lora (arXiv 2106.09685) or dora (arXiv 2402.09353)")
    rank: int = option(8, "r: columns of B and rows of A", minimum=1)
    alpha: float = option(16.0, "the update is scaled by alpha / rank", minimum=0.0)
    layers: int | Literal["all"] = option("all", "all, or only the last n transformer layers", minimum=1)
    modules: tuple[str, ...] = option(
        ("all-linear",), "names inside a layer (self_attn.q_proj), globs (*.q_proj), or all-linear"
    )


@dataclass(frozen=True)
class TrainingSection:
    """How the adapters are trained: AdamW, linear warm-up, cosine decay."""

    row_length: int = option(1024, "tokens in one packed row", minimum=16)
    batch_size: int = option(1, "rows that pass through the model at once", minimum=1)
    gradient_accumulation: int = option(1, "micro-batches in one optimizer step", minimum=1)
    steps: int = option(200, "optimizer steps", minimum=1)
    learning_rate: float = option(2e-4, "peak learning rate", minimum=0.0)
    min_learning_rate: float = option(0.0, "learning rate at the last step", minimum=0.0)
    warmup_steps: int = option(10, "steps of linear warm-up", minimum=0)
    weight_decay: float = option(0.0, "decoupled weight decay", minimum=0.0)
    beta1: float = option(0.9, "decay of the first moment", minimum=0.0, maximum=0.9999)
    beta2: float = option(0.999, "decay of the second moment", minimum=0.0, maximum=0.999999)
    epsilon: float = option(1e-8, "added to the denominator of the update", minimum=1e-30)
    max_grad_norm: float = option(1.0, "the gradient's global norm is clipped to this", minimum=0.0)
    validate_every: int = option(50, "steps between validations; the last step is always validated", minimum=1)
    max_valid_rows: int = option(32, "rows of the fixed validation set", minimum=1)
    checkpoint_every: int = option(50, "steps between checkpoints", minimum=1)
    seed: int = option(0, "initial adapter and order of the rows", minimum=0)
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = option(
        "auto", "of the frozen base while training; auto: float32 on a CPU, the file's own on a GPU"
    )


@dataclass(frozen=True)
class EvaluationSection:
    """How the result is measured."""

    max_rows: int | None = option(None, "test rows to measure perplexity on; null: all", minimum=1)


@dataclass(frozen=True)
class ExportSection:
    """What leaves the chrysalis."""

    quantize: tuple[str, ...] = option(("F16", "Q8_0", "Q4_K_M"), "one GGUF file for each of these types")
    dtype: Literal["float32", "float16", "bfloat16"] = option("float32", "of fused/; GGUF files do not depend on it")
    system: str | None = option(None, "system prompt written into the Modelfile")
    context: int | None = option(None, "num_ctx of the Modelfile; null: the model's own, at most 8192", minimum=16)
    verify_lines: int = option(200, "corpus lines whose token ids are compared", minimum=1)
    verify_positions: int = option(256, "held-out positions whose distributions are compared", minimum=1)


@dataclass(frozen=True)
class Blueprint:
    """A whole blueprint."""

    version: int = option(VERSION, "of this schema", minimum=VERSION, maximum=VERSION)
    name: str = option("unnamed", "shown in reports and written into exported files")
    description: str = option("", "what it is for")
    model: ModelSection = field(default_factory=ModelSection)
    expression: ExpressionSection = field(default_factory=ExpressionSection)
    framing: FramingSection = field(default_factory=FramingSection)
    split: SplitSection = field(default_factory=SplitSection)
    adapter: AdapterSection = field(default_factory=AdapterSection)
    training: TrainingSection = field(default_factory=TrainingSection)
    evaluation: EvaluationSection = field(default_factory=EvaluationSection)
    export: ExportSection = field(default_factory=ExportSection)
