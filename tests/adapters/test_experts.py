"""Which linear layers a tensor holds."""

from __future__ import annotations

import pytest

from chrysalis_mlx.adapters.experts import Matrix, matrices

BLOCK = "model.layers.7.mlp"


def test_a_matrix_is_one_linear_layer() -> None:
    assert matrices(f"{BLOCK}.experts.3.up_proj.weight", (48, 64)) == [Matrix(f"{BLOCK}.experts.3.up_proj", 0, 48)]
    assert matrices("model.embed_tokens.weight", (512, 64)) == [Matrix("model.embed_tokens", 0, 512)]


def test_mlx_lm_s_experts() -> None:
    assert matrices(f"{BLOCK}.switch_mlp.down_proj.weight", (2, 64, 48)) == [
        Matrix(f"{BLOCK}.experts.0.down_proj", 0, 64),
        Matrix(f"{BLOCK}.experts.1.down_proj", 64, 128),
    ]


def test_experts_of_transformers_5() -> None:
    assert matrices(f"{BLOCK}.experts.gate_up_proj", (2, 96, 64)) == [
        Matrix(f"{BLOCK}.experts.0.gate_proj", 0, 48),
        Matrix(f"{BLOCK}.experts.0.up_proj", 48, 96),
        Matrix(f"{BLOCK}.experts.1.gate_proj", 96, 144),
        Matrix(f"{BLOCK}.experts.1.up_proj", 144, 192),
    ]
    assert [matrix.start for matrix in matrices(f"{BLOCK}.experts.down_proj", (3, 64, 48))] == [0, 64, 128]


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("model.norm.weight", (64,)),
        (f"{BLOCK}.up_proj.bias", (48,)),
        ("model.conv.weight", (8, 4, 3)),
        (f"{BLOCK}.switch_mlp.up_proj.scales", (2, 48, 2)),
        (f"{BLOCK}.experts.gate_up_proj_bias", (2, 96)),
        (f"{BLOCK}.experts.gate_up_proj", (96, 64)),
    ],
)
def test_what_holds_none(name: str, shape: tuple[int, ...]) -> None:
    assert matrices(name, shape) == []
