"""`chrysalis-mlx chat` with a stranger's GGUF, whose chat template llama.cpp runs while it loads the file."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import gguf
import pexpect
import pytest

from tests.inference.runs import talking_run

PROGRAM = [sys.executable, "-m", "chrysalis_mlx", "chat"]
_TEMPLATE = "tokenizer.chat_template"
_OWN = ("GGUF.version", "GGUF.tensor_count", "GGUF.kv_count", "general.architecture", _TEMPLATE)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A GGUF that talks."""
    return talking_run(tmp_path_factory.mktemp("talking")) / "export/model-F32.gguf"


def with_template(exported: Path, template: str, file: Path) -> Path:
    """The same GGUF with another chat template."""
    reader, writer = gguf.GGUFReader(exported), gguf.GGUFWriter(file, "llama")
    for name, field in reader.fields.items():
        if name not in _OWN:
            writer.add_key_value(name, field.contents(), field.types[0], field.types[-1])
    writer.add_chat_template(template)
    for tensor in reader.tensors:
        writer.add_tensor(tensor.name, tensor.data)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


@pytest.mark.parametrize(
    ("template", "shown"),
    [
        ("{{ raise_exception('\x1b]52;c;AAAA\x07\u202e') }}", "\\x1b]52;c;AAAA\\x07\\u202e"),
        ("{% if %}", "llama.cpp cannot load the file"),
        ("{{ " + "(" * 60_000 + "1" + ")" * 60_000 + " }}", "llama.cpp cannot load the file"),
    ],
)
def test_a_template_that_fails_is_told_and_never_obeyed(
    template: str, shown: str, exported: Path, tmp_path: Path
) -> None:
    file = with_template(exported, template, tmp_path / "model.gguf")
    done = subprocess.run([*PROGRAM, str(file)], input="Hi\n", capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert shown in done.stderr
    assert "\x1b" not in done.stderr
    assert "Traceback" not in done.stderr


def test_a_template_without_end_is_left_with_ctrl_c(exported: Path, tmp_path: Path) -> None:
    loop = "{% for i in range(2000000000) %}{% for j in range(2000000000) %}{% endfor %}{% endfor %}"
    file = with_template(exported, loop, tmp_path / "model.gguf")
    child = pexpect.spawn(PROGRAM[0], [*PROGRAM[1:], str(file)], encoding="utf-8", timeout=60)
    child.expect("loading the model")
    time.sleep(0.3)
    child.sendintr()
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 130
    assert "Traceback" not in child.before
