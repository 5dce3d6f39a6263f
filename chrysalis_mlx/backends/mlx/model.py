"""mlx-lm's models, fed packed rows: body and head apart, and with this package's attention in them."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import mlx.core as mx
import mlx.nn as nn
from mlx_lm.utils import load_config, load_model

from chrysalis_mlx.backends.mlx.attention import packed_attention
from chrysalis_mlx.backends.mlx.exponential import on_cpu, swiglu
from chrysalis_mlx.errors import ModelError

DTYPES = {"float32": mx.float32, "bfloat16": mx.bfloat16, "float16": mx.float16}
_ATTENTION, _SWIGLU = "scaled_dot_product_attention", "swiglu"


class PackedMask:
    """Stands where mlx-lm expects a key-value cache, and tells every layer who may attend to whom.

    All mlx-lm models ask their cache for the mask and for the keys and values to attend to; this one keeps none.

    Args:
        segments: (B, T) integer, see `batches.packing.Batch`; None when each row is one segment.
        grouped: the model adds the mask to scores of (B, K, H/K, T, T) instead of (B, H, T, T).
    """

    offset = 0

    def __init__(self, segments: mx.array | None, grouped: bool = False) -> None:
        self.segments, self._grouped = segments, grouped
        self._made: list[tuple[Any, int | None]] = []
        self.asked_for_window = False

    def make_mask(self, N: int, return_array: bool = False, window_size: int | None = None) -> Any:
        """(N, N), (B, 1, N, N) or (B, 1, 1, N, N) bool; or "causal", where that says it all and the model takes it."""
        self.asked_for_window |= window_size is not None
        window = window_size if window_size is not None and window_size < N else None
        if self.segments is None and window is None and not return_array:
            return "causal"
        positions = mx.arange(N)
        allowed = positions[:, None] >= positions[None, :]
        if window is not None:
            allowed = allowed & (positions[:, None] < positions[None, :] + window)
        if self.segments is not None:
            allowed = (self.segments[:, None, :, None] == self.segments[:, None, None, :]) & allowed
            allowed = allowed[:, None] if self._grouped else allowed
        self._made.append((allowed, window))  # lazy: where `packed_attention` is used it is never computed
        return allowed

    def window(self, mask: Any) -> int | None:
        """The window of a mask that `make_mask` gave."""
        return next((window for made, window in self._made if made is mask), None)

    def update_and_fetch(self, keys: mx.array, values: mx.array) -> tuple[mx.array, mx.array]:
        return keys, values


class PackedModel:
    """One of mlx-lm's models, frozen: body and head apart.

    Args:
        directory: of the model.
        dtype: that it computes in; "auto" is float32 on a CPU and the weights' own on a GPU.

    Attributes:
        module: mlx-lm's.
        dtype: the name of the dtype that `dtype` came to.

    Raises:
        ModelError: mlx-lm does not know the architecture, or the weights do not fit it.
    """

    def __init__(self, directory: Path, dtype: str) -> None:
        if sys.platform == "linux" and shutil.which("g++") is None:
            mx.disable_compile()  # on the CPU MLX compiles fused kernels by calling this name
        try:
            config = load_config(directory)
            module, _ = load_model(directory, lazy=True, model_config=settings_for_mlx_lm(config))
        except (ValueError, KeyError, TypeError, FileNotFoundError) as error:
            raise ModelError(f"mlx-lm cannot load the model: {error}", where=directory) from error
        self.module: Any = module
        self.dtype = dtype if dtype != "auto" else "float32" if on_cpu() else self._stored_dtype()
        module.set_dtype(DTYPES[self.dtype])
        module.eval()
        module.freeze()
        # All that the modules hold, tables of angles too: what is lazy belongs to the thread that made it (rows.py).
        mx.eval([value for part in module.modules() for value in part.values() if isinstance(value, mx.array)])
        _use_our_kernels(module)
        self._grouped = config["model_type"] == "gemma2" and len(module.layers) > 0 and _repeats(module) > 1
        window = config.get("sliding_window") if config.get("use_sliding_window", True) else None
        # Asked now: later, whoever watches the layers would see this pass among others.
        self._longest = int(window) if window and not self._asks_for_windows() else None

    @property
    def vocabulary(self) -> int:
        """V, rows of the embedding."""
        return int(self.module.model.embed_tokens.weight.shape[0])

    def hidden(self, tokens: mx.array, segments: mx.array | None, *, checkpoint: bool = False) -> mx.array:
        """(B, T) token ids of packed rows -> (B, T, H), what the head gets.

        Args:
            segments: (B, T) integer; None when each row is one segment.
            checkpoint: keep only what goes into each layer for the backward pass.

        Raises:
            ModelError: the rows are longer than the model's sliding window, and mlx-lm's model has none.
        """
        self._refuse_beyond_window(tokens.shape[1], "rows", "set training.row_length to at most")
        mask = PackedMask(segments, self._grouped)
        body, layers = self.module.model, self.module.model.layers
        if checkpoint:
            body.layers = [_Checkpointed(layer) for layer in layers]
        try:
            states = cast(mx.array, body(tokens, cache=[mask] * len(layers)))
        finally:
            body.layers = layers
        return states

    def extended(self, tokens: mx.array, cache: Sequence[Any]) -> mx.array:
        """(B, n) token ids that follow those in mlx-lm's cache -> (B, n, H), what the head gets; the cache grows.

        Args:
            cache: one for each layer, all of the same length.

        Raises:
            ModelError: the texts get longer than the model's sliding window, and mlx-lm's model has none.
        """
        self._refuse_beyond_window(
            cache[0].offset + tokens.shape[1], "texts", "keep prompt and answer together to at most"
        )
        return cast(mx.array, self.module.model(tokens, cache=cache))

    def head(self, hidden: mx.array) -> mx.array:
        """(..., H) hidden states -> (..., V) logits, by the model's own last lines: soft-caps and scales included."""
        return cast(mx.array, type(self.module).__call__(_HeadOnly(self.module), hidden))

    def _refuse_beyond_window(self, length: int, what: str, fix: str) -> None:
        if self._longest is not None and length > self._longest:
            raise ModelError(
                f"{what} of {length} tokens exceed the model's sliding window of {self._longest}, which mlx-lm's "
                f"{self.module.model_type} does not have",
                fix=f"{fix} {self._longest}, or use --backend torch",
            )

    def _asks_for_windows(self) -> bool:
        """Whether mlx-lm's model asks for masks with a window; the pass that shows it is never computed."""
        mask = PackedMask(None, self._grouped)
        self.module.model(mx.zeros((1, 1), mx.int32), cache=[mask] * len(self.module.model.layers))
        return mask.asked_for_window

    def _stored_dtype(self) -> str:
        """The dtype of the weights that are not quantized, which is that of the others' scales."""
        norm = self.module.model.norm.weight.dtype
        return next((name for name, dtype in DTYPES.items() if dtype == norm), "float32")


def settings_for_mlx_lm(config: dict[str, Any]) -> dict[str, Any]:
    """What transformers 5 writes under `rope_parameters` and `num_local_experts`, where mlx-lm's models look for it."""
    nested = config.get("rope_parameters") or {}
    kinds = {"full_attention": "rope_theta", "sliding_attention": "rope_local_base_freq"}
    found: dict[str, Any] = {
        name: nested[kind]["rope_theta"] for kind, name in kinds.items() if isinstance(nested.get(kind), dict)
    }
    flat = nested.get("full_attention", nested) if kinds.keys() & nested.keys() else nested
    if "rope_theta" in flat:
        found["rope_theta"] = flat["rope_theta"]
    if flat.get("rope_type", "default") != "default" and not config.get("rope_scaling"):
        found["rope_scaling"] = {key: value for key, value in flat.items() if key != "rope_theta"}
    if "num_local_experts" in config and "num_experts" not in config:
        found["num_experts"] = config["num_local_experts"]
    return found


class _HeadOnly:
    """A model whose body gives back what it gets."""

    def __init__(self, model: Any) -> None:
        self._model, self.model = model, _NoBody(model.model)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)


class _NoBody:
    def __init__(self, body: Any) -> None:
        self._body = body

    def __call__(self, hidden: mx.array, *_: Any) -> mx.array:
        return hidden

    def __getattr__(self, name: str) -> Any:
        return getattr(self._body, name)


class _Checkpointed:
    """A layer of which the backward pass keeps the inputs and computes the rest again."""

    def __init__(self, layer: Any) -> None:
        self._layer = layer

    def __call__(self, x: mx.array, *args: Any, **kwargs: Any) -> mx.array:
        layer = self._layer

        def inner(parameters: dict[str, Any], x: mx.array) -> mx.array:
            layer.update(parameters)
            return cast(mx.array, layer(x, *args, **kwargs))

        return mx.checkpoint(inner)(layer.trainable_parameters(), x)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._layer, name)


def _use_our_kernels(model: nn.Module) -> None:
    """Put our attention, and on a CPU our gate, where the modules of this model look for mlx-lm's.

    Each file of an mlx-lm model imports both by name.
    """
    for module in {sys.modules[type(part).__module__] for part in model.modules()}:
        theirs = getattr(module, _ATTENTION, None)
        if theirs is not None and not isinstance(theirs, _Attention):
            setattr(module, _ATTENTION, _Attention(theirs))
        if on_cpu() and hasattr(module, _SWIGLU):
            setattr(module, _SWIGLU, swiglu)


class _Attention:
    """Our attention for packed rows, and mlx-lm's for any other caller."""

    def __init__(self, theirs: Callable[..., mx.array]) -> None:
        self._theirs = theirs

    def __call__(
        self, queries: mx.array, keys: mx.array, values: mx.array, cache: Any, scale: float, mask: Any, **more: Any
    ) -> mx.array:
        if not isinstance(cache, PackedMask) or any(value is not None for value in more.values()):
            return self._theirs(queries, keys, values, cache=cache, scale=scale, mask=mask, **more)
        return packed_attention(queries, keys, values, scale=scale, segments=cache.segments, window=cache.window(mask))


def _repeats(module: Any) -> int:
    attention = module.layers[0].self_attn
    return int(attention.n_heads // attention.n_kv_heads)
