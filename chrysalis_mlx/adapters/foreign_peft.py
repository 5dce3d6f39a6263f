"""An adapter as PEFT writes it: LoRA, rsLoRA and DoRA, with weights that were trained whole.

`lora_A.weight` is (r, in) and `lora_B.weight` (out, r); beside an embedding `lora_embedding_A` is (r, tokens) and
`lora_embedding_B` (out, r). What modules_to_save and bias name stands in the file under its own name.
Source: peft/tuners/lora/{config,layer}.py and peft/utils/save_and_load.py, versions to 0.21.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from chrysalis_mlx.adapters.foreign_file import CONFIG_FILE, Contents, Pair, TensorFile, grouped, number
from chrysalis_mlx.adapters.spec import Kind
from chrysalis_mlx.errors import ModelError

PEFT_FILE = "adapter_model.safetensors"
PEFT_PICKLE = "adapter_model.bin"

_PREFIX = "base_model.model."
_PART = re.compile(
    r"(?P<module>.+)\.(?P<part>lora_A|lora_B|lora_embedding_A|lora_embedding_B|lora_magnitude_vector)"
    r"(?:\.default)?(?:\.weight)?"
)
_PARTS = {"lora_A": "A", "lora_B": "B", "lora_embedding_A": "B", "lora_embedding_B": "A", "lora_magnitude_vector": "m"}
_BASE_WEIGHT = re.compile(r"(?P<module>.+)\.base_layer\.weight")
_WHOLE = re.compile(r"(?P<module>.+?)(?:\.base_layer|\.modules_to_save(?:\.default)?)?\.(?P<part>weight|bias)")

# Ways to begin that leave the base as it is; all others take something out of it that the adapter then holds.
_INITIALIZATIONS = (None, True, False, "gaussian", "eva", "orthogonal", "mica")
_REFUSED = {
    "target_parameters": "LoRA on parameters",
    "trainable_token_indices": "single rows of the embedding",
    "lora_bias": "a bias beside the low-rank product",
    "layer_replication": "layers that are used more than once",
    "alora_invocation_tokens": "an adapter that acts after certain tokens only (aLoRA)",
    "use_qalora": "QA-LoRA",
    "use_bdlora": "block-diagonal LoRA",
    "arrow_config": "adapters chosen for each token (Arrow)",
    "kasa_config": "KaSA, which changes the base weights",
    "monteclora_config": "MonteCLoRA",
}
_KNOWN_USES = ("use_rslora", "use_dora", *_REFUSED)


def read_peft(tensors: TensorFile, config: Mapping[str, Any]) -> Contents:
    """What the files say.

    Args:
        config: adapter_config.json.

    Raises:
        ModelError: something in them that cannot be merged, or config and tensors that contradict each other.
    """
    where = tensors.file.with_name(CONFIG_FILE)
    _check_covered(config, where)
    modules = grouped(tensors.names, _split, tensors.file)
    known = {tensor for parts in modules.values() for tensor in parts.values()}
    whole, frozen = _others([name for name in tensors.names if name not in known], tensors.file)
    rank, alpha = int(number(config, "r", where)), number(config, "lora_alpha", where)
    rslora, dora = bool(config.get("use_rslora")), bool(config.get("use_dora"))
    pairs = {}
    for module, parts in modules.items():
        own, own_alpha = (
            _own(config, key, module, default, where)
            for key, default in (("rank_pattern", rank), ("alpha_pattern", alpha))
        )
        _check_magnitude(dora, module, parts, tensors.file)
        pairs[module] = _pair(module, parts, tensors, int(own), own_alpha, rslora)
    kind: Kind = "dora" if dora else "lora" if pairs else "full"
    dropout = number(config, "lora_dropout", where) if config.get("lora_dropout") else 0.0
    return Contents(kind, rank, alpha, pairs, whole, frozen, rslora, dropout)


def _check_covered(config: Mapping[str, Any], where: Path) -> None:
    """Refuse, by name, what makes an adapter something else than a change of weights."""
    if config.get("peft_type") != "LORA":
        raise ModelError(
            f"the adapter is of PEFT's kind {config.get('peft_type')}; only LORA, with DoRA and rsLoRA, is read here",
            where=where,
            fix="merge it with PEFT (merge_and_unload), and give the result as --model",
        )
    unknown = [key for key in config if key.startswith("use_") and key not in _KNOWN_USES]
    refused = {key: why for key, why in (_REFUSED | dict.fromkeys(unknown, "not known")).items() if config.get(key)}
    for key, why in refused.items():
        raise ModelError(
            f"the adapter uses {key} ({why}), which is not supported here",
            where=where,
            fix="merge it with PEFT (merge_and_unload) if PEFT can, and give the result as --model",
        )
    begun = config.get("init_lora_weights", True)
    if begun not in _INITIALIZATIONS:
        raise ModelError(
            f"the adapter was begun with init_lora_weights = {begun!r}, which changed the base weights under it",
            where=where,
            fix="save it with PEFT's path_initial_model_for_weight_conversion, which makes a plain LoRA of it",
        )


def _split(name: str) -> tuple[str, str] | None:
    found = _PART.fullmatch(name.removeprefix(_PREFIX))
    return (found["module"], _PARTS[found["part"]]) if found else None


def _others(names: list[str], where: Path) -> tuple[dict[str, str], dict[str, str]]:
    """Of the tensors that are no part of LoRA: which replace a weight, and which are copies of one."""
    whole: dict[str, str] = {}
    frozen: dict[str, str] = {}
    for name in names:
        own = name.removeprefix(_PREFIX)
        if found := _BASE_WEIGHT.fullmatch(own):
            frozen[f"{found['module']}.weight"] = name
        elif (found := _WHOLE.fullmatch(own)) and not found["module"].endswith((".lora_A", ".lora_B")):
            whole[f"{found['module']}.{found['part']}"] = name
        else:
            raise ModelError(f"the adapter's tensor {name} is nothing that is known here", where=where)
    return whole, frozen


def _own(config: Mapping[str, Any], key: str, module: str, default: float, where: Path) -> float:
    """A module's own rank or alpha; the first pattern that is its name, or the end of it, counts."""
    patterns = config.get(key) or {}
    try:
        matching = [pattern for pattern in patterns if re.match(rf"(.*\.)?({pattern})$", module)]
    except (re.error, TypeError) as error:
        raise ModelError(f"the adapter's config has a {key} that cannot be read: {error}", where=where) from error
    return number(patterns, matching[0], where) if matching else default


def _check_magnitude(dora: bool, module: str, parts: Mapping[str, str], where: Path) -> None:
    if dora and "m" not in parts:
        raise ModelError(f"the adapter's config says use_dora, and its module {module} has no magnitude", where=where)
    if not dora and "m" in parts:
        raise ModelError(f"the adapter's config does not say use_dora, and it has {parts['m']}", where=where)
    if dora and "lora_embedding" in parts["A"]:
        raise ModelError(
            f"the adapter has DoRA beside the embedding {module}, which is not supported here", where=where
        )


def _pair(module: str, parts: Mapping[str, str], tensors: TensorFile, rank: int, alpha: float, rslora: bool) -> Pair:
    A, B = tensors.read(parts["A"]), tensors.read(parts["B"])
    if "lora_embedding" in parts["A"]:
        A, B = A.T, B.T
    if A.ndim != 2 or B.ndim != 2 or not 0 < len(A) == B.shape[1] == rank:
        raise ModelError(
            f"the adapter's config says rank {rank} for {module}, and its matrices are {A.shape} and {B.shape}",
            where=tensors.file,
        )
    m = tensors.read(parts["m"]).reshape(-1) if "m" in parts else None
    return Pair(A, B, alpha, alpha / math.sqrt(rank) if rslora else alpha / rank, m)
