"""An adapter that this or another program trained, opened for a model: mlx-lm's files and PEFT's.

What the tensors say decides, and the config is held against them; a tensor that has no place in the model is an error,
never left out.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from chrysalis_mlx.adapters.experts import matrices
from chrysalis_mlx.adapters.foreign_file import CONFIG_FILE, Contents, Pair, TensorFile, read_config
from chrysalis_mlx.adapters.foreign_mlx import MLX_FILES, read_mlx
from chrysalis_mlx.adapters.foreign_peft import PEFT_FILE, PEFT_PICKLE, read_peft
from chrysalis_mlx.adapters.spec import Adapted, AdapterSpec, Array
from chrysalis_mlx.errors import ModelError
from chrysalis_mlx.models.checkpoint import Checkpoint
from chrysalis_mlx.models.directory import ModelDirectory

_SHOWN = 3  # misfits in an error message
_EMBEDDING, _HEAD = "model.embed_tokens", "lm_head"


class StoredArrays(Mapping[str, Array]):
    """The arrays of an adapter; weights that are replaced whole are read when they are asked for.

    Only the last of those is kept, so that a full fine-tuning takes the memory of one weight.
    """

    def __init__(self, held: Mapping[str, Array], tensors: TensorFile, whole: Mapping[str, str]) -> None:
        self._held, self._tensors, self._whole = dict(held), tensors, dict(whole)
        self._last: tuple[str, Array] | None = None

    def __getitem__(self, name: str) -> Array:
        if name in self._held:
            return self._held[name]
        last = self._last
        if last is None or last[0] != name:
            last = self._last = (name, self._tensors.read(self._whole[name]))
        return last[1]

    def __iter__(self) -> Iterator[str]:
        return iter((*self._whole, *self._held))

    def __len__(self) -> int:
        return len(self._whole) + len(self._held)


def open_adapter(directory: Path, model: ModelDirectory) -> tuple[AdapterSpec, StoredArrays]:
    """Read an adapter and fit it to a model.

    Args:
        directory: with adapter_config.json and adapters.safetensors (mlx-lm) or adapter_model.safetensors (PEFT). Where
            peft/ inside holds the same adapter, as in a run's adapters/, that is read: it keeps each module's own rank.
        model: what it stands beside, quantized or not.

    Returns:
        the spec, and an array for every one of its `shapes()`, float32.

    Raises:
        ModelError: files that are missing or damaged, hold what cannot be merged into weights, or belong to another
            model; NaN or infinity in a tensor.
    """
    directory = _exact(Path(directory))
    config = read_config(directory)
    tensors = TensorFile(_tensor_file(directory, "peft_type" in config))
    base = model.checkpoint()
    contents = read_peft(tensors, config) if "peft_type" in config else read_mlx(tensors, config)
    contents = _one_table(contents, tensors, model, base)
    if not contents.pairs and not contents.whole:
        raise ModelError("the adapter holds no tensor", where=tensors.file)
    _check_fits(contents, tensors, base, named_base(directory))
    for tensor in contents.whole.values():
        tensors.read(tensor)  # NaN is found now, not after half of an export
    return _in_order(contents, tensors, base)


def adapter_files(directory: Path) -> tuple[Path, Path]:
    """The files of an adapter's directory that `open_adapter` reads: its tensors, and its config.

    Raises:
        ModelError: one is missing, or the config is damaged.
    """
    directory = _exact(Path(directory))
    return _tensor_file(directory, "peft_type" in read_config(directory)), directory / CONFIG_FILE


def named_base(directory: Path) -> str | None:
    """The path or Hub id of the model that an adapter says it was trained on."""
    config = read_config(_exact(Path(directory)))
    named = config.get("base_model_name_or_path") or config.get("model")
    return named if isinstance(named, str) else None


def _exact(directory: Path) -> Path:
    if not directory.is_dir():
        raise ModelError("there is no such adapter directory", where=directory)
    inside = directory / "peft"
    both = (inside / PEFT_FILE).is_file() and (inside / CONFIG_FILE).is_file() and (directory / MLX_FILES[0]).is_file()
    return inside if both else directory


def _tensor_file(directory: Path, peft: bool) -> Path:
    wanted = (PEFT_FILE,) if peft else MLX_FILES
    for name in wanted:
        if (directory / name).is_file():
            return directory / name
    pickle = peft and (directory / PEFT_PICKLE).is_file()
    raise ModelError(
        f"the adapter's tensors are in {PEFT_PICKLE}, a pickle, which is not read" if pickle else f"no {wanted[0]}",
        where=directory,
        fix=(
            f"save it as {PEFT_FILE}: PeftModel.save_pretrained(..., safe_serialization=True)"
            if pickle
            else f"{CONFIG_FILE} is of {'PEFT' if peft else 'mlx-lm'}, which writes the tensors into that file"
        ),
    )


def _one_table(contents: Contents, tensors: TensorFile, model: ModelDirectory, base: Checkpoint) -> Contents:
    """Of a model whose output head is its embedding: see that an adapter changes both, and both alike.

    Raises:
        ModelError: it changes one of the two, and the merged model would need a head of its own.
    """
    tied = model.config.get("tie_word_embeddings") or f"{_HEAD}.weight" not in base.names
    if not tied or contents.one_table:
        return contents
    pairs, whole = dict(contents.pairs), dict(contents.whole)
    table, head = pairs.get(_EMBEDDING), pairs.pop(_HEAD, None)
    weight, own = whole.get(f"{_EMBEDDING}.weight"), whole.pop(f"{_HEAD}.weight", None)
    alike = _alike(table, head)
    if bool(weight) and bool(own):
        alike &= np.array_equal(tensors.read(str(weight)), tensors.read(str(own)))
    elif weight or own:
        alike = False
    if not alike:
        raise ModelError(
            f"the adapter changes {_EMBEDDING} or {_HEAD} alone, and they are one table in this model (they are tied)",
            where=tensors.file,
            fix="merge it with PEFT (merge_and_unload), save the model with tie_word_embeddings false, and give that",
        )
    frozen = {name: tensor for name, tensor in contents.frozen.items() if name != f"{_HEAD}.weight"}
    return dataclasses.replace(contents, pairs=pairs, whole=whole, frozen=frozen)


def _alike(one: Pair | None, other: Pair | None) -> bool:
    if one is None or other is None:
        return one is other
    return one.scale == other.scale and np.array_equal(one.A, other.A) and np.array_equal(one.B, other.B)


def _in_order(contents: Contents, tensors: TensorFile, base: Checkpoint) -> tuple[AdapterSpec, StoredArrays]:
    """Spec and arrays of what fits, in the model's order."""
    modules: dict[str, Adapted] = {}
    held: dict[str, Array] = {}
    for module in _linears(base):
        if (pair := contents.pairs.get(module)) is None:
            continue
        (rank, into), out = pair.A.shape, len(pair.B)
        modules[module] = Adapted(out, into, rank, pair.alpha, pair.scale)
        held |= {f"{module}.A": pair.A, f"{module}.B": pair.B} | ({} if pair.m is None else {f"{module}.m": pair.m})
    whole = {name: contents.whole[name] for name in base.names if name in contents.whole}
    weights = {name: base.shape(name) for name in whole}
    spec = AdapterSpec(
        contents.kind, contents.rank, contents.alpha, modules, contents.rslora, contents.dropout, weights
    )
    return spec, StoredArrays(held, tensors, whole)


def _check_fits(contents: Contents, tensors: TensorFile, base: Checkpoint, trained_on: str | None) -> None:
    """See that every part has its place in the model.

    Raises:
        ModelError: some have none, or another shape; it names them with both shapes.
    """
    whole = {name: tensors.shape(tensor) for name, tensor in (*contents.whole.items(), *contents.frozen.items())}
    replaced = [matrix.module for name in contents.whole for matrix in matrices(name, whole[name])]
    if twice := contents.pairs.keys() & replaced:
        raise ModelError(f"the adapter both replaces and adapts {', '.join(sorted(twice))}", where=tensors.file)
    wanted = {module: (len(pair.B), pair.A.shape[1]) for module, pair in contents.pairs.items()} | whole
    present = {name: base.shape(name) for name in base.names} | _linears(base)
    misfits, absent = [], []
    for name, shape in sorted(wanted.items(), key=lambda item: _natural(item[0])):
        shown = name.removesuffix(".weight")
        if name not in present:
            absent.append(f"{shown}, {shape} in the adapter, is not in the model")
        elif present[name] != shape:
            misfits.append(f"{shown} is {present[name]} in the model and {shape} in the adapter")
    if contents.experts and any(f".experts.{contents.experts}." in module for module in present):
        misfits.append(f"the model has more experts than the adapter's {contents.experts}")
    for module, pair in contents.pairs.items():
        if pair.m is not None and pair.m.shape != (len(pair.B),):
            misfits.append(f"the magnitude of {module} is {pair.m.shape} for {len(pair.B)} rows")
    if misfits := [*misfits, *absent]:
        more = f"; and {len(misfits) - _SHOWN} more" if len(misfits) > _SHOWN else ""
        raise ModelError(
            f"the adapter is for another model: {'; '.join(misfits[:_SHOWN])}{more}",
            where=tensors.file,
            fix="give the model that it was trained on" + (f": it says {trained_on}" if trained_on else ""),
        )
    for name, tensor in contents.frozen.items():
        # The file's copy may be of a model that was loaded in bfloat16: 8 bits of mantissa.
        if not np.allclose(tensors.read(tensor), base.read(name), rtol=2.0**-7, atol=1e-6):
            raise ModelError(
                f"the adapter holds a copy of its base weight {name}, and this model's is another one",
                where=tensors.file,
                fix="give the model that it was trained on" + (f": it says {trained_on}" if trained_on else ""),
            )


def _linears(base: Checkpoint) -> dict[str, tuple[int, ...]]:
    """Every linear layer to the shape of its weight, in the model's order; each expert's too."""
    shapes = {name: base.shape(name) for name in base.names}
    return {
        matrix.module: (matrix.stop - matrix.start, shape[-1])
        for name, shape in shapes.items()
        for matrix in matrices(name, shape)
    }


def _natural(name: str) -> list[tuple[int, str]]:
    """Sorts layer 10 after layer 9."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in name.split(".")]
