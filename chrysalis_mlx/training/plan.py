"""What a training will take, and what would fit, before it is begun."""

from __future__ import annotations

import bisect
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from chrysalis_mlx import backends
from chrysalis_mlx.adapters.spec import AdapterSpec, initialize
from chrysalis_mlx.batches.packing import Batch, assemble
from chrysalis_mlx.batches.tokens import Segment
from chrysalis_mlx.blueprint.adapter import adapter_spec
from chrysalis_mlx.blueprint.schema import AdapterSection, Blueprint, TrainingSection
from chrysalis_mlx.errors import BlueprintError, ModelError, TrainingError
from chrysalis_mlx.models.checkpoint import Checkpoint
from chrysalis_mlx.models.directory import ModelDirectory
from chrysalis_mlx.models.facts import HUB_FACT_FILES, read_facts
from chrysalis_mlx.models.parameters import counted, estimated, quantized_bits, text_config
from chrysalis_mlx.models.source import locate
from chrysalis_mlx.training.failures import memory_explained
from chrysalis_mlx.training.memory import Device, Memory, Shape, predict
from chrysalis_mlx.training.stage import optimizer_settings

ROW_STEP = 64
_MOST_ROWS = 512
_SHORT_ROW = 256


def usable_memory(memory: int, device: Device) -> int:
    """Bytes of a machine's memory that a training may hold: the one place where this is decided.

    macOS recommends between 65 and 84 percent of its memory to a GPU, the larger the machine the more
    (`MTLDevice.recommendedMaxWorkingSetSize`: 11.8 of 16 GiB, 17.8 of 24, 107.5 of 128). Two thirds is its lower end,
    and what MLX's cache of freed buffers, the program itself and the system need is in the rest. Beside a processor's
    arrays the program needs less: three quarters.
    """
    return memory * 2 // 3 if device == "gpu" else memory * 3 // 4


def mlx_device() -> Device:
    """What MLX computes on here.

    Raises:
        BackendError: MLX cannot be loaded.
    """
    return "cpu" if backends.load("mlx").device == "cpu" else "gpu"


@dataclass(frozen=True)
class Base:
    """A base model, as far as its memory is concerned; its weights may be elsewhere.

    Attributes:
        linears: module name to (out, in).
        parameters: how many it has.
        packed: bytes of weights that are quantized; None for others.
        size: bytes of a number in its own dtype.
        is_here: whether its weights are.
    """

    directory: Path
    shape: Shape
    linears: Mapping[str, tuple[int, int]]
    parameters: int
    packed: int | None
    size: int
    is_here: bool

    @classmethod
    def locate(cls, source: str, revision: str | None = None) -> Base:
        """Of a model on the Hub, only a few small files are downloaded; a .gguf file is imported.

        Raises:
            ModelError: it cannot be had, or its config.json says too little.
        """
        directory = locate(source, revision, HUB_FACT_FILES)
        read_facts(directory, source)  # says what is wrong with config.json
        return cls.of(directory, json.loads((directory / "config.json").read_text(encoding="utf-8")))

    @classmethod
    def of(cls, directory: Path, config: dict[str, Any]) -> Base:
        """A model directory, by the content of its config.json, and by its weights where they are here.

        Raises:
            ModelError: config.json lacks one of the numbers.
        """
        shape, size = Shape.of(config), 4 if _stored_dtype(config) == "float32" else 2
        try:
            checkpoint = Checkpoint.open(directory)
        except ModelError:  # not here, or not whole
            parameters = estimated(config)
            return cls(directory, shape, shape.linears(), parameters, _packed(config, parameters), size, False)
        packed = sum(file.stat().st_size for file in checkpoint.files) if quantized_bits(config) else None
        linears = ModelDirectory(directory, config).layer_linears()
        return cls(directory, shape, linears, counted(checkpoint, config), packed, size, True)

    def bytes_per_number(self, dtype: str, device: Device) -> int:
        """Of what the base computes in; "auto" is float32 on a processor and the weights' own dtype on a GPU."""
        if dtype == "auto":
            return 4 if device == "cpu" else self.size
        return 4 if dtype == "float32" else 2

    def spec(self, section: AdapterSection) -> AdapterSpec:
        """The adapter that a blueprint puts beside this model.

        Raises:
            BlueprintError: it names modules or layers that the model does not have.
        """
        return adapter_spec(section, self.linears, {f"{name}.weight": shape for name, shape in self.linears.items()})

    def memory(self, spec: AdapterSpec, section: TrainingSection, device: Device) -> Memory:
        """What a training takes."""
        size = self.bytes_per_number(section.dtype, device)
        weights = self.packed or self.parameters * size
        return predict(self.shape, spec, section, weights=weights, device=device, size=size)


@dataclass(frozen=True)
class Fit:
    """What would fit into the memory, each with all else as the blueprint has it; None when nothing would.

    Attributes:
        row_length: a multiple of 64, at most the model's context.
        batch_size: at most 512.
        rank: at most the hidden size; None for a full fine-tuning, too.
        checkpointing: whether the blueprint fits with gradient_checkpointing.
    """

    row_length: int | None
    batch_size: int | None
    rank: int | None
    checkpointing: bool


@dataclass(frozen=True)
class Plan:
    """A blueprint, rated for a model and a machine.

    Attributes:
        usable: bytes that the training may hold, see `usable_memory`.
    """

    device: Device
    memory: Memory
    usable: int
    fit: Fit

    @property
    def fits(self) -> bool:
        return self.memory.peak <= self.usable


def make_plan(base: Base, blueprint: Blueprint, device: Device, machine: int) -> Plan:
    """Predict the memory of a training, and find what would fit.

    Args:
        machine: bytes of memory that the machine has.

    Raises:
        BlueprintError: the adapter or the rows do not fit the model.
    """
    if blueprint.training.row_length > base.shape.context:
        problem = f"training.row_length: {blueprint.training.row_length}; the model's context has {base.shape.context}"
        raise BlueprintError("the blueprint's rows do not fit the model", [problem])
    usable, spec, section = usable_memory(machine, device), base.spec(blueprint.adapter), blueprint.training

    def fits(**values: Any) -> bool:
        return base.memory(spec, replace(section, **values), device).peak <= usable

    def rank_fits(rank: int) -> bool:
        changed = base.spec(replace(blueprint.adapter, rank=rank))
        return base.memory(changed, section, device).peak <= usable

    lengths, ranks = range(ROW_STEP, base.shape.context + 1, ROW_STEP), range(1, base.shape.hidden + 1)
    fit = Fit(
        _largest(lengths, lambda length: fits(row_length=length)),
        _largest(range(1, _MOST_ROWS + 1), lambda rows: fits(batch_size=rows)),
        _largest(ranks, rank_fits) if spec.kind != "full" else None,
        fits(gradient_checkpointing=True),
    )
    return Plan(device, base.memory(spec, section, device), usable, fit)


def require_fit(base: Base, blueprint: Blueprint, device: Device, machine: int) -> None:
    """See to it that a training fits into the memory.

    Args:
        machine: bytes of memory that the machine has.

    Raises:
        TrainingError: it does not; the parts, and what would fit.
    """
    plan = make_plan(base, blueprint, device, machine)
    if plan.fits:
        return
    parts = ", ".join(f"{name} {gigabytes(size)}" for name, size in asdict(plan.memory).items())
    raise TrainingError(
        f"the training would take {gigabytes(plan.memory.peak)} of memory ({parts}), "
        f"and of this machine's {gigabytes(machine)} it may have {gigabytes(plan.usable)}",
        where=base.directory,
        fix=f"{remedy(plan, blueprint)}; with --force it begins all the same",
    )


def remedy(plan: Plan, blueprint: Blueprint) -> str:
    """What to set in the blueprint so that it fits."""
    section, fit = blueprint.training, plan.fit
    found = [f"training.{name} to at most {value}" for name, value in _smaller(section, fit)]
    if fit.checkpointing and not section.gradient_checkpointing:
        found.append("training.gradient_checkpointing to true")
    if found:
        return f"in a new run set {', or '.join(found)}"
    return "take a smaller or a quantized model, or lower batch_size, row_length and rank together, with checkpointing"


def gigabytes(count: int) -> str:
    return f"{count / 1e9:,.2f} GB"


@dataclass(frozen=True)
class Speed:
    """How fast a real step was: tokens in a second, and what all steps of the blueprint take at that, in seconds."""

    tokens_per_second: float
    seconds: float


def measure(base: Base, blueprint: Blueprint, backend: str) -> Speed:
    """Take two real steps with short rows; the second one counts, because the first compiles.

    Raises:
        TrainingError: the memory is full.
    """
    section, spec = blueprint.training, base.spec(blueprint.adapter)
    batch = _random_rows(section.batch_size, min(section.row_length, _SHORT_ROW), base.shape.vocabulary)
    with memory_explained():
        engine = backends.load(backend)(
            base.directory,
            spec,
            initialize(spec, Checkpoint.open(base.directory), section.seed),
            dtype=section.dtype,
            optimizer=optimizer_settings(section),
            gradient_checkpointing=section.gradient_checkpointing,
        )
        engine.step([batch], section.learning_rate)
        start = time.perf_counter()
        engine.step([batch], section.learning_rate)
    rate = batch.tokens.size / (time.perf_counter() - start)
    tokens = section.steps * section.gradient_accumulation * section.batch_size * section.row_length
    return Speed(rate, tokens / rate)


def _random_rows(count: int, length: int, vocabulary: int) -> Batch:
    random = np.random.default_rng(0)
    rows = [random.integers(0, vocabulary, length).astype(np.int32) for _ in range(count)]
    return assemble([[Segment(tokens, np.arange(length) > 0)] for tokens in rows], length)


def _largest(values: range, fits: Callable[[int], bool]) -> int | None:
    """The last of ascending values that fits; None when the first one does not."""
    place = bisect.bisect_left(values, True, key=lambda value: not fits(value))
    return values[place - 1] if place else None


def _smaller(section: TrainingSection, fit: Fit) -> list[tuple[str, int]]:
    """The settings that would fit with a smaller value, and that value."""
    found = (("batch_size", fit.batch_size), ("row_length", fit.row_length))
    return [(name, value) for name, value in found if value is not None and value < getattr(section, name)]


def _stored_dtype(config: Mapping[str, Any]) -> str:
    text = text_config(config)
    return str(text.get("dtype") or text.get("torch_dtype") or config.get("torch_dtype") or "bfloat16")


def _packed(config: Mapping[str, Any], parameters: int) -> int | None:
    """Bytes of quantized weights: each has its bits, and each group a scale and a bias of 16 bits."""
    bits = quantized_bits(config)
    if bits is None:
        return None
    settings = config.get("quantization") or config.get("quantization_config") or {}
    return round(parameters * (bits + 32 / int(settings.get("group_size") or 64)) / 8)
