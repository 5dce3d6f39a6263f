"""llama and qwen3 in float64 numpy with hand-written gradients: the third opinion in the parity tests.

Built from the definitions of `chrysalis_mlx/backends/reference.py`; what is around them (RMSNorm, rotary positions,
grouped-query attention, SwiGLU) follows the models' papers. Nothing here comes from MLX, torch or transformers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from chrysalis_mlx.adapters.spec import AdapterArrays, AdapterSpec
from chrysalis_mlx.backends import reference
from chrysalis_mlx.batches.packing import Batch, attention_mask
from chrysalis_mlx.models.directory import ModelDirectory

Array = npt.NDArray[np.float64]
Back = Callable[[Array], Array]


class ReferenceModel:
    """A tiny llama or qwen3 with an adapter."""

    def __init__(self, directory: Path, spec: AdapterSpec, arrays: AdapterArrays) -> None:
        model = ModelDirectory.open(directory)
        checkpoint = model.checkpoint()
        self.config: dict[str, Any] = model.config
        self.weights = {name: checkpoint.read(name).astype(np.float64) for name in checkpoint.names}
        self.spec = spec
        self.arrays = {name: array.astype(np.float64) for name, array in arrays.items()}
        self.heads, self.kv_heads = self.config["num_attention_heads"], self.config["num_key_value_heads"]
        self.head_dim = self.config.get("head_dim") or self.config["hidden_size"] // self.heads
        self._gradients: dict[str, Array] = {}

    def logits(self, batch: Batch) -> Array:
        """(B, T, V)."""
        return self._forward(batch)[0]

    def gradients(self, batches: Sequence[Batch]) -> tuple[float, dict[str, Array]]:
        """Mean loss over all targets of all batches, and its gradient for every adapter array."""
        self._gradients = {name: np.zeros_like(array) for name, array in self.arrays.items()}
        count = sum(batch.target_count for batch in batches)
        total = 0.0
        for batch in batches:
            logits, back = self._forward(batch)
            loss, _, pull = reference.loss_sum(logits, batch.targets, batch.mask)
            back(pull(1.0 / count))
            total += loss
        return total / count, self._gradients

    def _forward(self, batch: Batch) -> tuple[Array, Back]:
        mask = attention_mask(batch.segments)
        x = self.weights["model.embed_tokens.weight"][batch.tokens]  # (B, T, H)
        backs: list[Back] = []
        for layer in range(self.config["num_hidden_layers"]):
            for block in (self._attention_block, self._mlp_block):
                y, back = block(x, f"model.layers.{layer}", mask)
                x, backs = x + y, [*backs, back]
        normed, norm_back = self._norm(x, "model.norm")
        head = self.weights.get("lm_head.weight", self.weights["model.embed_tokens.weight"])

        def back_all(dlogits: Array) -> Array:
            dx = norm_back(dlogits @ head)
            for back in reversed(backs):
                dx = dx + back(dx)
            return dx

        return normed @ head.T, back_all

    def _attention_block(self, x: Array, layer: str, mask: npt.NDArray[np.bool_]) -> tuple[Array, Back]:
        normed, norm_back = self._norm(x, f"{layer}.input_layernorm")
        streams = [self._stream(normed, layer, name) for name in ("q", "k", "v")]
        (q, q_back), (k, k_back), (v, v_back) = streams
        mixed, mix_back = attention(q, k, v, mask)
        y, out_back = self._linear(_join(mixed), f"{layer}.self_attn.o_proj")

        def back(dy: Array) -> Array:
            dq, dk, dv = mix_back(_split(out_back(dy), self.heads))
            return norm_back(q_back(dq) + k_back(dk) + v_back(dv))

        return y, back

    def _stream(self, x: Array, layer: str, name: str) -> tuple[Array, Back]:
        """Queries, keys or values: (B, heads, T, D), with qwen3's per-head norm and the rotation where they belong."""
        y, linear_back = self._linear(x, f"{layer}.self_attn.{name}_proj")
        y = _split(y, self.heads if name == "q" else self.kv_heads)
        norm_back: Back = lambda dy: dy  # noqa: E731
        if f"{layer}.self_attn.{name}_norm.weight" in self.weights:
            y, norm_back = self._norm(y, f"{layer}.self_attn.{name}_norm")
        rotation = np.zeros(0)
        if name != "v":
            rotation = self._angles(y.shape[2])
            y = rotate(y, rotation)
        return y, lambda dy: linear_back(_join(norm_back(rotate(dy, -rotation) if name != "v" else dy)))

    def _mlp_block(self, x: Array, layer: str, mask: npt.NDArray[np.bool_]) -> tuple[Array, Back]:
        normed, norm_back = self._norm(x, f"{layer}.post_attention_layernorm")
        gate, gate_back = self._linear(normed, f"{layer}.mlp.gate_proj")
        up, up_back = self._linear(normed, f"{layer}.mlp.up_proj")
        sigmoid = 1.0 / (1.0 + np.exp(-gate))
        y, down_back = self._linear(gate * sigmoid * up, f"{layer}.mlp.down_proj")

        def back(dy: Array) -> Array:
            inner = down_back(dy)
            dgate = inner * up * sigmoid * (1.0 + gate * (1.0 - sigmoid))
            return norm_back(gate_back(dgate) + up_back(inner * gate * sigmoid))

        return y, back

    def _linear(self, x: Array, module: str) -> tuple[Array, Back]:
        W, b = self.weights[f"{module}.weight"], self.weights.get(f"{module}.bias")
        if module not in self.spec.modules:
            return x @ W.T + (0.0 if b is None else b), lambda dy: dy @ W
        names = [f"{module}.{part}" for part in ("A", "B", "m") if f"{module}.{part}" in self.arrays]
        values = [self.arrays[name] for name in names]
        formula = reference.dora if self.spec.kind == "dora" else reference.lora
        y, pull = formula(x, W, b, *values, self.spec.modules[module].scale)

        def back(dy: Array) -> Array:
            dx, *gradients = pull(dy)
            for name, gradient in zip(names, gradients, strict=True):
                self._gradients[name] += gradient
            return dx

        return y, back

    def _norm(self, x: Array, name: str) -> tuple[Array, Back]:
        weight = self.weights[f"{name}.weight"]
        inverse = 1.0 / np.sqrt((x * x).mean(axis=-1, keepdims=True) + self.config["rms_norm_eps"])

        def back(dy: Array) -> Array:
            dn = dy * weight
            return inverse * dn - x * inverse**3 * (dn * x).mean(axis=-1, keepdims=True)

        return x * inverse * weight, back

    def _angles(self, length: int) -> Array:
        """(T, D/2) rotation angles; transformers 5 may nest the base."""
        theta = self.config.get("rope_theta") or self.config["rope_parameters"]["rope_theta"]
        frequencies = theta ** (-np.arange(0, self.head_dim, 2) / self.head_dim)
        return np.outer(np.arange(length), frequencies)


def attention(
    q: Array, k: Array, v: Array, mask: npt.NDArray[np.bool_]
) -> tuple[Array, Callable[[Array], tuple[Array, Array, Array]]]:
    """softmax(q kᵀ / √D) v with grouped keys and values: q (B, H, T, D), k and v (B, K, T, D)."""
    groups, scale = q.shape[1] // k.shape[1], q.shape[-1] ** -0.5
    keys, values = np.repeat(k, groups, axis=1), np.repeat(v, groups, axis=1)
    scores = np.where(mask, q @ keys.swapaxes(-1, -2) * scale, -np.inf)
    p = np.exp(scores - scores.max(axis=-1, keepdims=True))
    p /= p.sum(axis=-1, keepdims=True)

    def back(dy: Array) -> tuple[Array, Array, Array]:
        dp = dy @ values.swapaxes(-1, -2)
        ds = p * (dp - (dp * p).sum(axis=-1, keepdims=True)) * scale
        grouped = (*k.shape[:2], groups, *k.shape[2:])
        dk = (ds.swapaxes(-1, -2) @ q).reshape(grouped).sum(axis=2)
        dv = (p.swapaxes(-1, -2) @ dy).reshape(grouped).sum(axis=2)
        return ds @ keys, dk, dv

    return p @ values, back


def rotate(x: Array, angles: Array) -> Array:
    """Rotate the pairs (i, i + D/2) of (B, H, T, D) by (T, D/2) angles."""
    half = x.shape[-1] // 2
    left, right = x[..., :half], x[..., half:]
    cos, sin = np.cos(angles), np.sin(angles)
    return np.concatenate([left * cos - right * sin, right * cos + left * sin], axis=-1)


def _split(x: Array, heads: int) -> Array:
    return x.reshape(*x.shape[:2], heads, -1).transpose(0, 2, 1, 3)


def _join(x: Array) -> Array:
    return x.transpose(0, 2, 1, 3).reshape(x.shape[0], x.shape[2], -1)
