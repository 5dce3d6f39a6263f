"""adapters/ and adapters/peft are what mlx-lm and PEFT load: the same logits there as in our engines."""

from __future__ import annotations

import subprocess
import sys
import warnings
from pathlib import Path
from typing import Literal

import mlx.core as mx
import numpy as np
import numpy.typing as npt
import pytest
import torch
import transformers
from mlx_lm.utils import load as load_in_mlx_lm
from peft import PeftModel

from chrysalis_mlx import backends
from chrysalis_mlx.adapters.files import load_adapter, save_mlx, save_peft
from chrysalis_mlx.batches.packing import assemble
from chrysalis_mlx.errors import ModelError
from tests import tiny
from tests.backends.cases import Case, adapted, segments

TOKENS = segments(24)[0]


@pytest.fixture(params=["llama-lora", "llama-dora", "qwen3-lora", "qwen3-dora", "llama-lora-last"])
def case(request: pytest.FixtureRequest, tmp_path: Path) -> Case:
    model, kind, *subset = request.param.split("-")
    directory = tmp_path / "model"
    if model == "llama":
        tiny.tiny_llama(directory, bias=True)
    else:
        tiny.tiny_qwen3(directory)
    case = (
        adapted(directory, kind, ["q_proj", "mlp.down_proj"], 1) if subset else adapted(directory, kind, ["all-linear"])
    )
    save_mlx(tmp_path / "adapters", case.spec, case.arrays, str(directory))
    save_peft(tmp_path / "adapters" / "peft", case.spec, case.arrays, str(directory))
    return case


def expected_logits(case: Case) -> npt.NDArray[np.float32]:
    return case.engine("mlx").logits(assemble([[TOKENS]], len(TOKENS.tokens)))[0]


def test_mlx_lm_loads_the_adapter_with_equal_logits(case: Case, tmp_path: Path) -> None:
    model, _ = load_in_mlx_lm(str(case.directory), adapter_path=str(tmp_path / "adapters"))
    logits = np.array(model(mx.array(TOKENS.tokens)[None])[0])
    assert np.abs(logits - expected_logits(case)).max() < 1e-4
    base, _ = load_in_mlx_lm(str(case.directory))
    assert np.abs(np.array(base(mx.array(TOKENS.tokens)[None])[0]) - logits).max() > 1e-2


def test_peft_loads_the_adapter_with_equal_logits(case: Case, tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
        base = transformers.AutoModelForCausalLM.from_pretrained(case.directory, dtype=torch.float32)
        model = PeftModel.from_pretrained(base, str(tmp_path / "adapters" / "peft"))
    with torch.no_grad():
        logits = model(torch.from_numpy(TOKENS.tokens).long()[None]).logits[0].numpy()
        with model.disable_adapter():
            without = model(torch.from_numpy(TOKENS.tokens).long()[None]).logits[0].numpy()
    assert np.abs(logits - expected_logits(case)).max() < 1e-4
    assert np.abs(logits - without).max() > 1e-2


@pytest.mark.parametrize("kind", ["lora", "dora"])
def test_the_command_line_of_mlx_lm_generates_with_the_adapter(kind: Literal["lora", "dora"], tmp_path: Path) -> None:
    directory = tmp_path / "model"
    tiny.tiny_llama(directory)
    case = adapted(directory, kind, ["all-linear"])
    save_mlx(tmp_path / "adapters", case.spec, case.arrays, str(directory))
    command = [sys.executable, "-m", "mlx_lm", "generate", "--model", str(directory), "--prompt", "a larva"]
    command += ["--adapter-path", str(tmp_path / "adapters"), "--max-tokens", "4", "--temp", "0"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Generation: 4 tokens" in done.stdout


def test_what_is_saved_is_read_back(case: Case, tmp_path: Path) -> None:
    arrays = load_adapter(tmp_path / "adapters", case.spec)
    assert arrays.keys() == case.arrays.keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(array, case.arrays[name])
    batch = assemble([[TOKENS]], len(TOKENS.tokens))
    again = backends.load("mlx")(case.directory, case.spec, arrays).logits(batch)[0]
    np.testing.assert_array_equal(again, expected_logits(case))


def test_an_adapter_of_another_blueprint_is_refused_by_name(case: Case, tmp_path: Path) -> None:
    other = adapted(case.directory, case.spec.kind, ["v_proj"])
    with pytest.raises(ModelError, match=r"the adapter does not fit: model\.layers\.\d"):
        load_adapter(tmp_path / "adapters", other.spec)
