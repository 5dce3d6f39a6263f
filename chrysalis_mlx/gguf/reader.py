"""One GGUF file -> a Hugging Face directory in float32, one tensor in memory at a time."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from chrysalis_mlx.errors import ModelError
from chrysalis_mlx.gguf import architectures
from chrysalis_mlx.gguf.imported import config_of
from chrysalis_mlx.gguf.rope import ROPE_FREQS
from chrysalis_mlx.gguf.vocabulary import bpe
from chrysalis_mlx.gguf.vocabulary.vocabulary import Vocabulary
from chrysalis_mlx.models.checkpoint import SINGLE_FILE, Array, write_checkpoint
from chrysalis_mlx.run import atomic_path

_SLICE = 1 << 22  # weights dequantized at a time: numpy's temporaries are several times that


def import_gguf(file: Path, directory: Path) -> None:
    """Dequantize a GGUF into a directory that transformers and mlx-lm load.

    Args:
        file: a GGUF of the architectures llama, qwen2 or qwen3 with a byte-level BPE vocabulary.
        directory: must not exist, or be empty. It gets its name when all is written.

    Raises:
        ModelError: not a GGUF, truncated, or of an architecture, type or vocabulary that cannot be imported.
    """
    directory = Path(directory)
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise ModelError("the directory to import into exists and is not empty", where=directory, fix="choose another")
    model = GGUFModel.open(file)
    with atomic_path(directory) as partial:
        partial.mkdir()
        _write(model, partial)


def _write(model: GGUFModel, directory: Path) -> None:
    bpe.write(model.vocabulary, directory)
    ids = model.vocabulary.ids
    _write_json(directory / "config.json", {**model.config, **_ids(ids, ids.get("eos"))})
    ends = list(dict.fromkeys(token for token in (ids.get("eos"), model.end_of_turn) if token is not None))
    _write_json(directory / "generation_config.json", _ids(ids, ends[0] if len(ends) == 1 else ends))
    write_checkpoint(directory / SINGLE_FILE, {name: model.shape(name) for name in model.names}, model.read)


class GGUFModel:
    """The weights of a GGUF under their Hugging Face names, in float32.

    Attributes:
        file: where it was read from.
        names: Hugging Face tensor names, in layer order.
        config: what config.json will say.
        vocabulary: what the tokenizer will be.
        end_of_turn: id of a second end token, if the file names one.
    """

    def __init__(self, file: Path, fields: Mapping[str, Any], tensors: Mapping[str, Any]) -> None:
        self.file = file
        self._tensors = tensors
        self._check_types()
        factors = self._dequantize(tensors[ROPE_FREQS]) if ROPE_FREQS in tensors else None
        embedding = tensors.get("token_embd.weight")
        if embedding is None:
            raise ModelError("the GGUF has no token_embd.weight: it is not a whole model")
        self.vocabulary = Vocabulary.from_gguf(fields)
        self.config = config_of(fields, set(tensors), vocab=_shape(embedding)[0], factors=factors)
        self.end_of_turn: int | None = fields.get("tokenizer.ggml.eot_token_id")
        family = architectures.for_config(self.config)
        self._stored = {tensor.parts[0].source: tensor for tensor in family.tensors(()) if tensor.parts}
        self.names: list[str] = list(self._stored)
        self._check_tensors()

    @classmethod
    def open(cls, file: Path) -> GGUFModel:
        """Read the header of a GGUF.

        Raises:
            ModelError: see `import_gguf`.
        """
        import gguf

        file = Path(file)
        if not file.is_file():
            raise ModelError("there is no such GGUF file", where=file)
        with file.open("rb") as handle:
            if handle.read(4) != b"GGUF":
                raise ModelError("the file is not a GGUF", where=file, fix="a GGUF starts with the letters GGUF")
        try:
            reader = gguf.GGUFReader(file)
            fields = {name: field.contents() for name, field in reader.fields.items()}
        except (ValueError, IndexError, KeyError, OverflowError) as error:
            raise ModelError(
                f"the GGUF is damaged or truncated: {error}", where=file, fix="download or write it again"
            ) from error
        try:
            return cls(file, fields, {tensor.name: tensor for tensor in reader.tensors})
        except ModelError as error:
            raise ModelError(error.what, where=error.where or file, fix=error.fix) from None

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of a tensor."""
        return self._stored[name].shape

    def read(self, name: str) -> Array:
        """A tensor, dequantized to float32 and with its rows in Hugging Face's order."""
        stored = self._stored[name]
        values = self._dequantize(self._tensors[stored.name])
        return architectures.unpermute(values, stored.heads) if stored.heads else values

    def _dequantize(self, tensor: Any) -> Array:
        import gguf

        shape = _shape(tensor)
        if tensor.data.ndim < 2:
            return np.array(gguf.quants.dequantize(tensor.data, tensor.tensor_type), dtype=np.float32).reshape(shape)
        out = np.empty(shape, dtype=np.float32)
        step = max(1, _SLICE // shape[-1])
        for start in range(0, shape[0], step):
            rows = tensor.data[start : start + step]
            out[start : start + step] = gguf.quants.dequantize(rows, tensor.tensor_type)
        return out

    def _check_types(self) -> None:
        import gguf

        for kind in {tensor.tensor_type for tensor in self._tensors.values()}:
            _, size = gguf.GGML_QUANT_SIZES[kind]
            try:
                gguf.quants.dequantize(np.zeros((1, size), dtype=np.uint8), kind)
            except NotImplementedError:
                raise ModelError(
                    f"the GGUF has tensors of the type {kind.name}, which cannot be dequantized",
                    fix="use a file of the type F32, F16, BF16, Q8_0 or one of the K types",
                ) from None

    def _check_tensors(self) -> None:
        wanted = {stored.name: stored.shape for stored in self._stored.values()}
        for name, shape in wanted.items():
            if name not in self._tensors:
                raise ModelError(f"the GGUF has no tensor {name}")
            if _shape(self._tensors[name]) != shape:
                raise ModelError(f"{name} has the shape {_shape(self._tensors[name])}, the metadata say {shape}")
        if strange := sorted(set(self._tensors) - set(wanted) - {ROPE_FREQS}):
            raise ModelError(
                f"the GGUF has {len(strange)} tensors that {self.config['architectures'][0]} has no place for, "
                f"such as {strange[0]}"
            )


def _shape(tensor: Any) -> tuple[int, ...]:
    """GGUF lists the fastest dimension first."""
    return tuple(int(length) for length in reversed(tensor.shape))


def _ids(ids: Mapping[str, int], eos: Any) -> dict[str, Any]:
    return {"bos_token_id": ids.get("bos"), "eos_token_id": eos, "pad_token_id": ids.get("pad")}


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
