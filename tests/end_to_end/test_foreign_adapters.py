"""Adapters that another program trained, through `chrysalis-mlx fuse`: what llama.cpp runs is what was trained."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx_lm
import numpy as np
import numpy.typing as npt
import peft
import pytest
import torch
import transformers
import yaml
from safetensors.numpy import load_file, save_file

from chrysalis_mlx.llamacpp.server import LlamaServer
from chrysalis_mlx.models.directory import ModelDirectory
from tests import tiny
from tests.end_to_end.inputs import call, report
from tests.gguf.parity import TOKENS, llamacpp_logprobs
from tests.mixture import mixture

Logprobs = npt.NDArray[np.float64]

# Where the test itself compares the file with what was trained, or there is nothing to compare.
UNVERIFIED, UNVERIFIED_FILE = ("--quantize=F32", "--no-verify"), "model-F32.unverified.gguf"


@pytest.fixture(scope="module")
def four_bit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("four-bit")
    return tiny.quantized(tiny.tiny_llama(root / "plain"), root / "four-bit")


@pytest.fixture(scope="module", params=["lora", "dora"])
def trained(request: pytest.FixtureRequest, four_bit: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return by_mlx_lm(four_bit, tmp_path_factory.mktemp("trained"), request.param)


def by_mlx_lm(model: Path, root: Path, kind: str) -> Path:
    """What the command `mlx_lm.lora` leaves after enough steps to change the model a lot."""
    rows = "".join(json.dumps({"text": line}) + "\n" for line in tiny.TEXT.splitlines())
    for side in ("train", "valid"):
        (root / f"{side}.jsonl").write_text(rows)
    (root / "config.yaml").write_text(yaml.safe_dump({"lora_parameters": {"rank": 4, "dropout": 0.0, "scale": 2.0}}))
    command = [sys.executable, "-m", "mlx_lm", "lora", "--train", f"--model={model}", f"--data={root}"]
    command += [f"--adapter-path={root / 'adapters'}", f"--config={root / 'config.yaml'}", "--num-layers=-1"]
    command += ["--iters=12", "--batch-size=2", "--learning-rate=1e-2", "--val-batches=1", "--seed=1"]
    command += [f"--fine-tune-type={kind}"]
    done = subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, "HF_HUB_OFFLINE": "1"}, check=False
    )
    assert done.returncode == 0, done.stderr
    return root / "adapters"


def in_mlx(model: Path, adapter: Path | None = None) -> Logprobs:
    """(T, vocabulary) log probabilities of mlx-lm's own model."""
    loaded, _ = mlx_lm.load(str(model), adapter_path=adapter and str(adapter))  # type: ignore[misc]
    logits = torch.from_numpy(np.array(loaded(mx.array(TOKENS)[None])[0])).double()
    return torch.log_softmax(logits, dim=-1).numpy()


def in_llamacpp(file: Path, adapter: Path | None = None) -> Logprobs:
    with LlamaServer(file, context=64, threads=1, precise=True, lora=adapter) as server:
        return llamacpp_logprobs(server, TOKENS, 512)


def kl(expected: Logprobs, found: Logprobs) -> float:
    """Mean over the positions, nats."""
    return float((np.exp(expected) * (expected - found)).sum(axis=1).mean())


def test_the_f16_of_a_4_bit_base_keeps_the_adapter_s_effect(
    four_bit: Path, trained: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out"
    options = [f"--model={four_bit}", f"--adapter={trained}", f"--output={output}", "--quantize=F16"]
    assert report(capfd, "fuse", *options)["report"]["notes"] == []
    adapted, base = in_mlx(four_bit, trained), in_mlx(four_bit)
    effect = kl(adapted, base)
    assert effect > 0.05
    assert kl(adapted, in_llamacpp(output / "export" / "model-F16.gguf")) <= 0.01 * effect
    assert not ModelDirectory.open(output / "fused").is_quantized
    assert kl(adapted, in_mlx(output / "fused")) <= 0.01 * effect
    assert json.loads((output / "export" / "verification.json").read_text())


def test_experts_that_mlx_lm_adapted_keep_the_adapter_s_effect(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, capfd: pytest.CaptureFixture[str]
) -> None:
    """Of a mixture on a 4-bit base, also with the adapter beside the exported base."""
    model, output = mixture(tmp_path / "model", "4-bit"), tmp_path / "out"
    adapter = by_mlx_lm(model, tmp_path_factory.mktemp("experts"), "lora")
    report(capfd, "fuse", f"--model={model}", f"--adapter={adapter}", f"--output={output}", "--quantize=F16")
    adapted, base = in_mlx(model, adapter), in_mlx(model)
    effect = kl(adapted, base)
    assert effect > 0.05
    assert kl(adapted, in_llamacpp(output / "export" / "model-F16.gguf")) <= 0.01 * effect
    report(capfd, "fuse", f"--model={model}", f"--output={tmp_path / 'base'}", *UNVERIFIED)
    alone = tmp_path / "base" / "export" / UNVERIFIED_FILE
    assert kl(adapted, in_llamacpp(alone, output / "export" / "adapter.gguf")) <= 0.01 * effect


def by_peft(model: Path, directory: Path) -> Path:
    """What PEFT saves of an adapter with weights far from where it began, each module with its own scale."""
    settings: dict[str, Any] = {"r": 4, "lora_alpha": 12, "target_modules": "all-linear", "use_rslora": True}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        base = transformers.AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
        adapted = peft.get_peft_model(
            base, peft.LoraConfig(task_type="CAUSAL_LM", rank_pattern={"q_proj": 2, "down_proj": 7}, **settings)
        )
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for name, parameter in adapted.named_parameters():
                if "lora_B" in name:
                    parameter.copy_(0.05 * torch.randn(parameter.shape, generator=generator))
        adapted.save_pretrained(directory)
    return directory


def in_peft(model: Path, adapter: Path) -> Logprobs:
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        base = transformers.AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
        logits = peft.PeftModel.from_pretrained(base, str(adapter)).eval()(torch.tensor([TOKENS])).logits[0]
    return torch.log_softmax(logits.double(), dim=-1).numpy()


def test_an_adapter_of_peft_is_fused_and_also_written_alone(
    tiny_model: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    adapter, output = by_peft(tiny_model, tmp_path / "adapter"), tmp_path / "out"
    expected = in_peft(tiny_model, adapter)
    report(capfd, "fuse", f"--model={tiny_model}", f"--adapter={adapter}", f"--output={output}", *UNVERIFIED)
    assert np.abs(in_llamacpp(output / "export" / UNVERIFIED_FILE) - expected).max() <= 1e-3

    report(capfd, "fuse", f"--model={tiny_model}", f"--output={tmp_path / 'base'}", *UNVERIFIED)
    alone = report(
        capfd,
        "fuse",
        f"--model={tiny_model}",
        f"--adapter={adapter}",
        f"--output={tmp_path / 'alone'}",
        "--adapter-only",
    )
    assert alone["left_out"] == {}
    base = tmp_path / "base" / "export" / UNVERIFIED_FILE
    assert kl(expected, in_llamacpp(base)) > 0.05
    assert np.abs(in_llamacpp(base, Path(alone["written"]["gguf"])) - expected).max() <= 1e-3
    assert np.abs(in_peft(tiny_model, Path(alone["written"]["peft"])) - expected).max() <= 1e-4
    assert np.abs(in_mlx(tiny_model, Path(alone["written"]["mlx"])) - expected).max() <= 1e-3


def test_a_model_in_mlx_s_older_form_is_exported(
    four_bit: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    model = tmp_path / "older"
    model.mkdir()
    for file in four_bit.iterdir():
        if file.suffix == ".safetensors":
            mx.savez(str(model / "weights.npz"), **mx.load(str(file)))  # type: ignore[arg-type]
        elif not file.name.endswith(".index.json"):
            (model / file.name).write_bytes(file.read_bytes())
    output = tmp_path / "out"
    report(capfd, "fuse", f"--model={model}", f"--output={output}", *UNVERIFIED)
    assert np.abs(in_llamacpp(output / "export" / UNVERIFIED_FILE) - in_mlx(four_bit)).max() <= 1e-3


def test_an_adapter_for_another_model_and_one_with_nan_write_nothing(
    tiny_model: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    adapter, output = by_peft(tiny_model, tmp_path / "adapter"), tmp_path / "out"
    other = tiny.tiny_llama(tmp_path / "other", hidden=96, heads=6)
    options = [f"--adapter={adapter}", f"--output={output}", "--quantize=F16"]
    status, _, err = call(capfd, "fuse", f"--model={other}", *options)
    assert status == 1
    said = " ".join(err.split())
    assert "model.layers.0.mlp.down_proj is (96, 128) in the model and (64, 128) in the adapter" in said
    file = adapter / "adapter_model.safetensors"
    held = load_file(file)
    name = "base_model.model.model.layers.1.mlp.up_proj.lora_B.weight"
    held[name][5, 0] = np.nan
    save_file(held, file)
    status, _, err = call(capfd, "fuse", f"--model={tiny_model}", *options)
    assert status == 1
    assert f"tensor {name} holds NaN" in " ".join(err.split())
    assert not output.exists() or list(output.rglob("*.*")) == []


def test_an_adapter_that_names_another_base_is_a_note(
    tiny_model: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    adapter = by_peft(tiny_model, tmp_path / "adapter")
    config = json.loads((adapter / "adapter_config.json").read_text())
    (adapter / "adapter_config.json").write_text(json.dumps(config | {"base_model_name_or_path": "someone/else-1B"}))
    options = [f"--model={tiny_model}", f"--adapter={adapter}", f"--output={tmp_path / 'out'}"]
    notes = report(capfd, "fuse", *options, *UNVERIFIED)["report"]["notes"]
    assert len(notes) == 1
    assert "trained on someone/else-1B" in notes[0]
