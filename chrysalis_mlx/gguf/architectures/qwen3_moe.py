"""Qwen3 with experts: every layer's MLP is one of many, chosen for each token by a router."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

from chrysalis_mlx.gguf.architectures.family import Module, Value
from chrysalis_mlx.gguf.architectures.qwen3 import Qwen3
from chrysalis_mlx.gguf.architectures.tensor import Part, Tensor
from chrysalis_mlx.gguf.quantize import Traits

_PROJECTIONS = {"gate_proj": "ffn_gate_exps", "up_proj": "ffn_up_exps", "down_proj": "ffn_down_exps"}
_FUSED = "experts.gate_up_proj"


class Qwen3Moe(Qwen3):
    """The experts are stored in one of three ways.

    One matrix for each (as published), all in one array with gate above up (as transformers 5 holds them), or all in
    one array per projection (mlx-lm's `switch_mlp`).
    """

    classes = ("Qwen3MoeForCausalLM",)
    model_type = "qwen3_moe"
    gguf = "qwen3moe"
    defaults: ClassVar[Mapping[str, Any]] = {"norm_topk_prob": False, "decoder_sparse_step": 1}

    def _read(self, config: Mapping[str, Any]) -> None:
        super()._read(config)
        self.expert_count = int(config.get("num_experts") or config["num_local_experts"])
        self.used = int(config["num_experts_per_tok"])
        self.width = int(config["moe_intermediate_size"])

    @property
    def traits(self) -> Traits:
        return replace(super().traits, experts=self.expert_count)

    def keys(self) -> dict[str, Value]:
        return {
            **super().keys(),
            "expert_count": self.expert_count,
            "expert_used_count": self.used,
            "expert_feed_forward_length": self.width,
        }

    def mlp(self) -> dict[str, Module]:
        return {"mlp.gate": Module("ffn_gate_inp", (self.expert_count, self.hidden))}

    def experts(self, layer: int, names: frozenset[str]) -> list[Tensor]:
        prefix, found = f"model.layers.{layer}.mlp.", []
        for name, stored in _PROJECTIONS.items():
            rows, columns = (self.hidden, self.width) if name == "down_proj" else (self.width, self.hidden)
            shape = (self.expert_count, rows, columns)
            parts = self._parts(prefix, name, rows, names)
            found.append(Tensor(f"blk.{layer}.{stored}.weight", shape, parts))
        return found

    def _parts(self, prefix: str, name: str, rows: int, names: frozenset[str]) -> tuple[Part, ...]:
        experts = range(self.expert_count)
        if (switch := f"{prefix}switch_mlp.{name}.weight") in names:
            return (Part(switch, 0, self.expert_count * rows),)
        if (fused := prefix + _FUSED) in names:
            if name == "down_proj":
                return (Part(f"{prefix}experts.down_proj", 0, self.expert_count * rows),)
            first = 0 if name == "gate_proj" else rows
            return tuple(Part(fused, start, start + rows) for start in (2 * rows * n + first for n in experts))
        return tuple(Part(f"{prefix}experts.{n}.{name}.weight", 0, rows) for n in experts)

    def source_shapes(self, tensors: Sequence[Tensor]) -> dict[str, tuple[int, ...]]:
        shapes = super().source_shapes(tensors)
        for tensor in tensors:
            for part in tensor.parts if len(tensor.shape) == 3 else ():
                if part.source.endswith(_FUSED):
                    shapes[part.source] = (self.expert_count, 2 * self.width, self.hidden)
                elif part.stop == tensor.shape[1]:
                    shapes[part.source] = tensor.shape[1:]
        return shapes

    def _check_covered(self) -> None:
        super()._check_covered()
        # llama.cpp expects experts in every layer, and always lets the chosen ones share a weight of 1.
        for key, covered in (("mlp_only_layers", None), ("decoder_sparse_step", 1), ("norm_topk_prob", True)):
            if (self.config.get(key) or None) != covered:
                self.uncovered(key, self.config.get(key))
