"""`fuse --model`: any model to GGUF, without a run."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import gguf
import pytest

from tests import tiny
from tests.end_to_end.inputs import call, report
from tests.tiny import TEXT


def keys(file: Path) -> dict[str, object]:
    return {name: field.contents() for name, field in gguf.GGUFReader(file).fields.items()}


def test_a_plain_conversion_with_a_text_for_the_importance_matrix(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    model = tiny.tiny_qwen3(tmp_path / "butterfly", hidden=256, intermediate=256, head_dim=64)
    (tmp_path / "notes.txt").write_text("\n\n".join(TEXT.splitlines()))
    options = ["fuse", f"--model={model}", f"--output={tmp_path / 'out'}", f"--text={tmp_path / 'notes.txt'}"]
    found = report(capfd, *options, "--quantize=F16", "--quantize=IQ2_M", "--quantize=Q8_0")["report"]
    assert [entry["verified"] for entry in found["gguf"].values()] == [True] * 3
    assert found["gguf"]["F16"]["kl"] < 1e-4
    assert found["fused"] == {}
    assert found["imatrix"]["datasets"] == ["notes.txt"]
    export = tmp_path / "out/export"
    names = {path.name for path in export.iterdir()}
    files = {"imatrix.gguf", "Modelfile", "README.md", "verification.json"}
    assert names == files | {f"model-{name}.gguf" for name in ("F16", "IQ2_M", "Q8_0")}
    assert "quantize.imatrix.dataset" in keys(export / "model-IQ2_M.gguf")
    assert "quantize.imatrix.dataset" not in keys(export / "model-F16.gguf")
    assert keys(export / "model-F16.gguf")["general.name"] == "butterfly"
    assert json.loads((export / "verification.json").read_text())["gguf"] == found["gguf"]

    # The matrix that was collected is one that may be given, and makes the same file.
    (tmp_path / "given.gguf").write_bytes((export / "imatrix.gguf").read_bytes())
    first = (export / "model-IQ2_M.gguf").read_bytes()
    again = ["fuse", f"--model={model}", f"--output={tmp_path / 'again'}", f"--imatrix={tmp_path / 'given.gguf'}"]
    report(capfd, *again, "--quantize=IQ2_M", "--no-verify")
    tensors = [
        {tensor.name: tensor.data.tobytes() for tensor in gguf.GGUFReader(path).tensors}
        for path in (export / "model-IQ2_M.gguf", tmp_path / "again/export/model-IQ2_M.unverified.gguf")
    ]
    assert tensors[0] == tensors[1]
    assert first == (export / "model-IQ2_M.gguf").read_bytes()


def test_without_a_matrix_what_needs_one_is_refused_before_anything_is_written(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    model = tiny.tiny_llama(tmp_path / "model", hidden=256, intermediate=256)
    status, _, error = call(capfd, "fuse", f"--model={model}", f"-o{tmp_path / 'out'}", "--quantize=IQ2_M")
    assert status == 1
    assert "importance matrix" in error
    assert "--text" in error
    assert not (tmp_path / "out").exists()


def test_an_importance_matrix_of_another_model_is_refused(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "notes.txt").write_text(TEXT)
    for name, hidden in (("one", 256), ("other", 512)):
        tiny.tiny_llama(tmp_path / name, hidden=hidden, intermediate=256, layers=1)
    options = ["--quantize=Q4_K_M", "--no-verify"]
    report(capfd, "fuse", f"--model={tmp_path / 'one'}", f"-o{tmp_path}/a", f"--text={tmp_path}/notes.txt", *options)
    matrix = tmp_path / "a/export/imatrix.gguf"
    status, _, error = call(
        capfd, "fuse", f"--model={tmp_path / 'other'}", f"-o{tmp_path}/b", f"--imatrix={matrix}", *options
    )
    assert status == 1
    assert "has 256 values for blk.0.attn_" in error
    assert not (tmp_path / "b").exists()


def test_a_quantized_mlx_model_is_converted(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    model = tiny.quantized(tiny.tiny_llama(tmp_path / "plain"), tmp_path / "model", bits=4)
    found = report(capfd, "fuse", f"--model={model}", f"-o{tmp_path / 'out'}", "--quantize=F16")["report"]
    assert found["gguf"]["F16"]["verified"]


def test_a_file_that_fails_keeps_its_unverified_name(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny.tiny_llama(tmp_path / "model")
    options = ["fuse", f"--model={model}", f"-o{tmp_path / 'out'}", "--quantize=F16"]
    report(capfd, *options)
    monkeypatch.setattr("chrysalis_mlx.gguf.stream.permute", lambda values, heads: values)
    status, _, error = call(capfd, *options)
    assert status == 1
    assert "model-F16.unverified.gguf: KL" in error
    names = {path.name for path in (tmp_path / "out/export").iterdir()}
    assert "model-F16.unverified.gguf" in names
    assert "model-F16.gguf" not in names
    shutil.rmtree(tmp_path / "out")
