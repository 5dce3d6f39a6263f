"""How much memory a training on MLX takes, told from the model's config.json and the blueprint before it begins.

Held all the time are the weights, the adapter and what the optimizer remembers. On top come, at the fullest moment of
a step, what the forward pass keeps for the backward pass and the arrays of what is being computed: logits of the loss
(`head`), or one layer's own (`layer`); or, where an adapter is large and its rows short, the optimizer's update.

The constants are of two kinds. What is kept is counted in the engine's code (backends/mlx). How many arrays are alive
while something is computed was measured on a processor: there MLX hands its threads up to 100 operations ahead, and
the results of all of them have their memory already. `scripts/bench_plan` measures again and compares. On a GPU few
operations run ahead; its figures are counted in the code, and were measured on none.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from chrysalis_mlx.adapters.spec import AdapterSpec
from chrysalis_mlx.blueprint.schema import TrainingSection
from chrysalis_mlx.errors import ModelError
from chrysalis_mlx.models.parameters import text_config

Device = Literal["cpu", "gpu"]

FLOAT = 4  # bytes of float32: masters, gradients, optimizer, scores of attention, logits
SLOTS = {"adamw": 2.0, "adam": 2.0, "lion": 1.0, "muon": 1.0, "adafactor": 0.05}  # arrays as large as the adapter
# The loss's chunk, as backends/mlx/loss.py has it.
_LOGITS = {"cpu": 4 << 20, "gpu": 64 << 20}
_FEWEST = 64

# On a processor. A chunk of the loss is 40 operations, of which 8 give an array as large as its logits; so 100
# operations ahead are 2.5 chunks, 20 arrays. What they leave of the 100 goes on into the last layer's MLP: 60
# operations hold 10 arrays of the MLP's width and 6 of the hidden size.
_HEAD_ARRAYS, _HEAD_AHEAD, _HEAD_SHARE = 8, 20, 0.4
_MLP_WIDE, _MLP_HIDDEN = 10, 6
# With gradient checkpointing 100 operations of a layer, computed again and then taken back.
_AGAIN_WIDE, _AGAIN_HIDDEN = 28, 12
# Attention's backward pass takes one chunk of queries after the other; those that run ahead hold scores of 2.25 times
# the row for every query, and of 2,800 keys at most; beside them projections, rotations and norms, of the hidden size.
_SCORES, _SCORES_MOST = 2.25, 2800
_ATTENTION_HIDDEN, _ATTENTION_HIDDEN_AGAIN = 17, 45
# Lanes seldom come to their fullest moment together: each further one adds a third of what the first one takes, which
# was more than it took on a busy machine (a quarter of the whole) and 13% less on an idle one.
_FURTHER_LANE = 1 / 3

# On a GPU one chunk of the loss at a time, of whose arrays 5 are alive; of a layer what an operation or two hold; of
# attention four arrays of scores of the chunk at hand, 512 queries.
_GPU_HEAD, _GPU_WIDE, _GPU_HIDDEN, _GPU_SCORES, _GPU_QUERIES = 5, 6, 6, 4, 512


@dataclass(frozen=True)
class Shape:
    """What of a model's config.json decides about memory.

    Attributes:
        wide: what one token's MLP computes with: intermediate_size, times the experts that it goes through.
        queries, keys: width of all heads together, and of all key-value heads.
    """

    hidden: int
    wide: int
    layers: int
    heads: int
    queries: int
    keys: int
    vocabulary: int
    context: int
    model_type: str

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> Shape:
        """Read from the content of config.json.

        Raises:
            ModelError: it lacks one of the numbers.
        """
        text = text_config(config)
        try:
            hidden, heads = int(text["hidden_size"]), int(text["num_attention_heads"])
            head_dim = int(text.get("head_dim") or hidden // heads)
            experts = int(text.get("num_experts_per_tok") or 1)
            wide = int(text.get("moe_intermediate_size") or text["intermediate_size"]) * experts
            return cls(
                hidden,
                wide,
                int(text["num_hidden_layers"]),
                heads,
                heads * head_dim,
                int(text.get("num_key_value_heads") or heads) * head_dim,
                int(text["vocab_size"]),
                int(text.get("max_position_embeddings") or 2048),
                str(text["model_type"]),
            )
        except (KeyError, TypeError, ValueError, ZeroDivisionError) as error:
            raise ModelError(f"memory cannot be computed from config.json: {error!r}") from error

    def linears(self) -> dict[str, tuple[int, int]]:
        """The linear layers that a model of this shape has, as `ModelDirectory.layer_linears` gives them."""
        H, A, K, W = self.hidden, self.queries, self.keys, self.wide
        if self.model_type == "phi3":
            own = {"self_attn.qkv_proj": (A + 2 * K, H), "mlp.gate_up_proj": (2 * W, H)}
        else:
            own = {f"self_attn.{name}_proj": (out, H) for name, out in (("q", A), ("k", K), ("v", K))}
            own |= {"mlp.gate_proj": (W, H), "mlp.up_proj": (W, H)}
        own |= {"self_attn.o_proj": (H, A), "mlp.down_proj": (H, W)}
        return {f"model.layers.{layer}.{name}": shape for layer in range(self.layers) for name, shape in own.items()}


@dataclass(frozen=True)
class Memory:
    """Bytes of each part, and the peak that they come to.

    Attributes:
        weights: of the base model, in the dtype that it computes in.
        adapter: its float32 masters and their gradients.
        optimizer: what it remembers from step to step.
        activations: what the forward pass keeps for the backward pass.
        head, layer: arrays alive while the loss, or a layer's backward pass, is computed: at different moments.
        update: arrays alive while the optimizer changes the adapter, when no activations are left.
    """

    weights: int
    adapter: int
    optimizer: int
    activations: int
    head: int
    layer: int
    update: int

    @property
    def peak(self) -> int:
        backward = self.activations + max(self.head, self.layer)
        return self.weights + self.adapter + self.optimizer + max(backward, self.update)


def predict(
    shape: Shape,
    spec: AdapterSpec,
    section: TrainingSection,
    *,
    weights: int,
    device: Device,
    size: int,
    lanes: int | None = None,
) -> Memory:
    """The memory that MLX's arrays hold at the fullest moment of a training.

    Args:
        weights: bytes of the base in memory.
        size: bytes of a number in the base's dtype: 4 for float32, 2 for bfloat16.
        lanes: threads that a processor deals rows to; None: this machine's cores.
    """
    trained = spec.parameter_count()
    if spec.kind == "full" and size == FLOAT:
        weights -= trained * FLOAT  # the masters stand in their place
    slots = SLOTS[section.optimizer]
    count = min(section.batch_size, (lanes or cores()) if device == "cpu" else 1)
    rows = math.ceil(section.batch_size / count)
    head, layer = (_on_cpu if device == "cpu" else _on_gpu)(shape, section, rows, size)
    together = 1 + _FURTHER_LANE * (count - 1)
    return Memory(
        weights=weights,
        adapter=2 * trained * FLOAT,
        optimizer=round(slots * trained * FLOAT),
        activations=_kept(shape, spec, section, size),
        head=round(head * together),
        layer=round(layer * together),
        # New masters and slots beside the old ones; of slots that are small, what the update is computed from.
        update=round((1 + max(1.0, slots)) * trained * FLOAT),
    )


def cores() -> int:
    """Processor cores that this process may use, which are the lanes of backends/mlx/rows.py."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def chunk_size(vocabulary: int, device: Device) -> int:
    """Positions that pass through the head at once."""
    return max(_FEWEST, _LOGITS[device] // vocabulary // 16 * 16)


def _kept(shape: Shape, spec: AdapterSpec, section: TrainingSection, size: int) -> int:
    """Bytes that the layers keep for the backward pass; those below the lowest adapted one keep nothing."""
    tokens = section.row_length * section.batch_size
    layers = shape.layers - min(spec.layer_indices)
    if section.gradient_checkpointing:
        return tokens * size * shape.hidden * layers
    # The inputs of both norms and what they give; q and what attention gives; k and v; gate and x of the MLP.
    width = 4 * shape.hidden + 2 * shape.queries + 2 * shape.keys + 2 * shape.wide
    trained = (*spec.keys, *spec.weights)
    width += shape.queries * _any(trained, "o_proj") + shape.wide * _any(trained, "down_proj")  # what goes into these
    own = sum(module.rank + (module.out if spec.kind == "dora" else 0) for module in spec.modules.values())
    return tokens * (size * (width * layers + own) + FLOAT * shape.heads * layers)


def _any(names: tuple[str, ...], part: str) -> bool:
    return any(part in name for name in names)


def _on_cpu(shape: Shape, section: TrainingSection, rows: int, size: int) -> tuple[float, float]:
    """Bytes alive in one lane at the loss, and in a layer's backward pass."""
    length, again = section.row_length, section.gradient_checkpointing
    tokens, chunk = rows * length, chunk_size(shape.vocabulary, "cpu")
    logits = shape.vocabulary * FLOAT
    head = min(_HEAD_ARRAYS * tokens, _HEAD_AHEAD * min(chunk, tokens)) * logits
    left = max(0.0, 1 - _HEAD_SHARE * math.ceil(tokens / chunk))  # of the operations ahead
    scores = shape.heads * min(_SCORES * length, _SCORES_MOST) * FLOAT
    if again:
        mlp = (_AGAIN_WIDE * shape.wide + _AGAIN_HIDDEN * shape.hidden) * size
        layer = max(mlp, scores + _ATTENTION_HIDDEN_AGAIN * shape.hidden * size)
        return head + left * tokens * mlp, tokens * layer
    mlp = (_MLP_WIDE * shape.wide + _MLP_HIDDEN * shape.hidden) * size
    layer = scores + _ATTENTION_HIDDEN * shape.hidden * size
    return head + left / (1 - _HEAD_SHARE) * tokens * mlp, tokens * layer


def _on_gpu(shape: Shape, section: TrainingSection, rows: int, size: int) -> tuple[float, float]:
    """Bytes alive at the loss, and in a layer's backward pass."""
    length = section.row_length
    tokens = rows * length
    head = _GPU_HEAD * min(chunk_size(shape.vocabulary, "gpu"), tokens) * shape.vocabulary * FLOAT
    mlp = tokens * (_GPU_WIDE * shape.wide + _GPU_HIDDEN * shape.hidden) * size
    scores = _GPU_SCORES * min(_GPU_QUERIES, length) * length * rows * shape.heads * FLOAT
    attention = tokens * _GPU_HIDDEN * shape.hidden * size + scores
    layer = max(mlp, attention)
    if section.gradient_checkpointing:  # the layer's own activations are there again
        width = 4 * shape.hidden + 3 * shape.queries + 2 * shape.keys + 3 * shape.wide
        layer += tokens * width * size
    return head, layer
