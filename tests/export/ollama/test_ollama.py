"""The Modelfile, read as Ollama reads it, and `ollama create`."""

from __future__ import annotations

import json
import os
import shlex
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chrysalis_mlx.errors import ExportError, ModelError, UsageError
from chrysalis_mlx.export.ollama.modelfile import check_name, create, modelfile
from chrysalis_mlx.models.directory import ModelDirectory
from tests.export.ollama.modelfile import read
from tests.models.chat_templates import CHATML, GEMMA, LLAMA3, MISTRAL, SMOLLM2

TURN = "<|im_start|>{}\n{{{{ .Content }}}}<|im_end|>\n"
TEMPLATE = (
    f'{{{{ range .Messages }}}}{{{{ if eq .Role "system" }}}}{TURN.format("system")}'
    f'{{{{ else if eq .Role "user" }}}}{TURN.format("user")}'
    f'{{{{ else if eq .Role "assistant" }}}}{TURN.format("assistant")}'
    "{{ end }}{{ end }}<|im_start|>assistant\n"
)


@pytest.fixture
def copy(tiny_model: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_model, tmp_path / "model"))


def change(file: Path, **values: Any) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def with_template(directory: Path, source: str | None) -> ModelDirectory:
    change(directory / "tokenizer_config.json", chat_template=source)
    return ModelDirectory.open(directory)


def written(model: ModelDirectory | Path, system: str | None = None, **options: Any) -> list[tuple[str, ...]]:
    model = ModelDirectory.open(model) if isinstance(model, Path) else model
    return read(modelfile(Path("export/m.gguf"), model, system=system, context=None, **options))


def named(commands: list[tuple[str, ...]], *names: str) -> list[str]:
    return [command[-1] for command in commands if command[: len(names)] == names]


def test_what_a_plain_model_needs(tiny_model: Path) -> None:
    text = modelfile(Path("export/model-Q4_K_M.gguf"), ModelDirectory.open(tiny_model), system=None, context=None)
    assert text == (
        f'FROM ./model-Q4_K_M.gguf\nTEMPLATE """{TEMPLATE}"""\nPARAMETER num_ctx 512\n'
        'PARAMETER stop "<|im_end|>"\nPARAMETER stop "<|endoftext|>"\n'
    )
    assert read(text) == [
        ("FROM", "./model-Q4_K_M.gguf"),
        ("TEMPLATE", TEMPLATE),
        ("PARAMETER", "num_ctx", "512"),
        ("PARAMETER", "stop", "<|im_end|>"),
        ("PARAMETER", "stop", "<|endoftext|>"),
    ]


def test_system_prompt_context_and_the_makers_sampling(copy: Path) -> None:
    sampling = {"temperature": 0.6, "top_k": 20.0, "top_p": 0.95, "min_p": 0.05, "repetition_penalty": 1.1}
    change(copy / "generation_config.json", **sampling, do_sample=True)
    text = modelfile(Path("m.gguf"), ModelDirectory.open(copy), system='Say "yes".\nAlways.', context=256)
    assert 'SYSTEM """Say "yes".\nAlways."""\nPARAMETER num_ctx 256\n' in text
    assert named(read(text), "SYSTEM") == ['Say "yes".\nAlways.']
    assert read(text)[-5:] == [
        ("PARAMETER", "temperature", "0.6"),
        ("PARAMETER", "top_k", "20"),
        ("PARAMETER", "top_p", "0.95"),
        ("PARAMETER", "min_p", "0.05"),
        ("PARAMETER", "repeat_penalty", "1.1"),
    ]


def test_makers_that_do_not_sample_mean_temperature_0(copy: Path) -> None:
    change(copy / "generation_config.json", do_sample=False, temperature=0.6, top_k=20, repetition_penalty=1.2)
    assert written(copy)[-2:] == [("PARAMETER", "temperature", "0"), ("PARAMETER", "repeat_penalty", "1.2")]


def test_what_is_no_number_is_no_sampling(copy: Path) -> None:
    change(copy / "generation_config.json", temperature=None, top_k=True, top_p=float("nan"), min_p="0.1")
    assert [command[1] for command in written(copy) if command[0] == "PARAMETER"] == ["num_ctx", "stop", "stop"]


def test_no_sampling_file_is_fine_and_a_damaged_one_is_not(copy: Path) -> None:
    (copy / "generation_config.json").unlink()
    assert not named(written(copy), "PARAMETER", "temperature")
    (copy / "generation_config.json").write_text("{")
    with pytest.raises(ModelError, match=r"generation_config.json is not valid JSON"):
        written(copy)


def test_a_long_context_is_cut_to_what_laptops_hold(copy: Path) -> None:
    change(copy / "config.json", max_position_embeddings=131072)
    model = ModelDirectory.open(copy)
    assert named(written(model), "PARAMETER", "num_ctx") == ["8192"]
    text = modelfile(Path("m.gguf"), model, system=None, context=32768)
    assert named(read(text), "PARAMETER", "num_ctx") == ["32768"]


def test_every_end_token_stops(copy: Path) -> None:
    file = copy / "tokenizer.json"
    content = json.loads(file.read_text())
    like = content["added_tokens"][0]
    names = ['""end', 'a "quoted" end', "<|turn|>", "<|zero\u200bwidth|>", "other"]
    content["added_tokens"] += [{**like, "id": 512 + n, "content": name} for n, name in enumerate(names)]
    file.write_text(json.dumps(content))
    change(copy / "generation_config.json", eos_token_id=[513, 2, 512])
    change(copy / "config.json", eos_token_id=515)
    model = with_template(copy, CHATML.replace("<|im_end|>", "<|turn|>"))
    stops = named(written(model), "PARAMETER", "stop")
    assert stops == ["<|im_end|>", 'a "quoted" end', '""end', "<|turn|>", "<|endoftext|>"]


def test_an_adapter_stands_on_a_base(tiny_model: Path) -> None:
    model = ModelDirectory.open(tiny_model)
    for base, said in ((Path("export/model-F16.gguf"), "./model-F16.gguf"), ("smollm2:135m", "smollm2:135m")):
        text = modelfile(base, model, system=None, context=None, adapter=Path("export/adapter.gguf"))
        assert read(text)[:2] == [("FROM", said), ("ADAPTER", "./adapter.gguf")]


@pytest.mark.parametrize("base", [Path("a\nSYSTEM b.gguf"), Path("no\u00a0break.gguf"), '"larva"', "", " larva"])
def test_a_base_that_cannot_be_named(tiny_model: Path, base: Path | str) -> None:
    with pytest.raises(ExportError, match="cannot be named in a Modelfile"):
        modelfile(base, ModelDirectory.open(tiny_model), system=None, context=None)


def test_the_default_system_prompt_of_the_template_is_written_down(copy: Path) -> None:
    model = with_template(copy, SMOLLM2)
    assert named(written(model), "SYSTEM") == ["You are a helpful larva."]
    assert named(written(model), "TEMPLATE") == [TEMPLATE]
    assert named(written(model, "Another."), "SYSTEM") == ["Another."]
    with pytest.raises(ExportError, match="an empty system prompt cannot be written"):
        written(model, "")
    assert not named(written(with_template(copy, CHATML), ""), "SYSTEM")


def test_a_default_that_ollama_would_change_is_left_to_the_gguf(copy: Path) -> None:
    commands = written(with_template(copy, SMOLLM2.replace("helpful larva", "helpful\u00a0larva")))
    assert [command[0] for command in commands] == ["FROM", "PARAMETER", "PARAMETER", "PARAMETER"]


@pytest.mark.parametrize(
    ("source", "why"),
    [
        (LLAMA3, "the chat template knows tools; Ollama takes it as it is from the GGUF."),
        (GEMMA, "the chat template shows the first turn differently from later ones; Ollama takes it as it is from "),
        (CHATML.replace("<|im_start|>", "\u200b"), "the chat template has characters that Ollama drops: U+200B; "),
        (CHATML.replace("<|im_end|>", '"""'), "the chat template has a line that ends with three quotes; Ollama "),
        (None, "the model has no chat template, and Ollama hands it the prompt as it is."),
    ],
)
def test_a_comment_says_why_there_is_no_template(copy: Path, source: str | None, why: str) -> None:
    text = modelfile(Path("m.gguf"), with_template(copy, source), system=None, context=None)
    assert f"\n# No TEMPLATE: {why}" in text
    assert [command[0] for command in read(text)] == ["FROM", "PARAMETER", "PARAMETER", "PARAMETER"]


def test_nothing_that_a_template_says_becomes_a_command(copy: Path) -> None:
    evil = "{{ raise_exception('no\\nFROM ./other.gguf') }}"
    assert named(written(with_template(copy, evil)), "FROM") == ["./m.gguf"]


def test_a_system_prompt_that_is_shown_nowhere(copy: Path) -> None:
    with pytest.raises(ExportError, match="chat template shows no system prompt"):
        written(with_template(copy, MISTRAL), "Be brief.")
    with pytest.raises(ExportError, match="the model has no chat template"):
        written(with_template(copy, None), "Be brief.")


@pytest.mark.parametrize(
    "text",
    ['"quoted"', '"', '""', '"""', 'a """ b', '"""\t"', "\n\n", "  around  ", '""\n"', "# no\nFROM x", "東京 🦋"],
)  # fmt: skip
def test_a_text_is_read_as_it_was_written(tiny_model: Path, text: str) -> None:
    model = ModelDirectory.open(tiny_model)
    commands = written(model, text, messages=[{"role": "user", "content": text}])
    assert named(commands, "SYSTEM") == named(commands, "MESSAGE", "user") == [text]


@given(st.lists(st.sampled_from(['"""', '"', "\n", "\r", "\t", " ", "a", "#"]), min_size=1, max_size=8))
def test_only_what_would_be_read_otherwise_is_refused(tiny_model: Path, pieces: list[str]) -> None:
    text = "".join(pieces)
    try:
        commands = written(tiny_model, text)
    except ExportError:
        assert read_or_none(f'SYSTEM """{text}"""\n') != [("SYSTEM", text)]
    else:
        assert named(commands, "SYSTEM") == [text]


def read_or_none(text: str) -> list[tuple[str, ...]] | None:
    try:
        return read(text)
    except AssertionError:
        return None


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ('say """\nand more', "a line that ends with three quotes"),
        ('say """ \r\nand more', "a line that ends with three quotes"),
        ("10\u00a0kg, \x1b[1m", r"characters that Ollama drops: U\+001B, U\+00A0"),
        ("👩\u200d🔬", r"characters that Ollama drops: U\+200D"),
    ],
)
def test_what_a_modelfile_cannot_say(tiny_model: Path, text: str, why: str) -> None:
    with pytest.raises(ExportError, match=f"the system prompt cannot be written into a Modelfile: it has {why}"):
        written(tiny_model, text)
    with pytest.raises(ExportError, match=f"an example message cannot be written into a Modelfile: it has {why}"):
        written(tiny_model, messages=[{"role": "user", "content": text}])


def test_licences(copy: Path) -> None:
    assert not named(written(copy), "LICENSE")
    assert named(written(copy, license_id="apache-2.0"), "LICENSE") == ["apache-2.0"]
    (copy / "LICENSE.md").write_text('You may\n\f\u00a0"copy" it.\n')
    (copy / "LICENCE-data").write_text("And the data.")
    (copy / "license_list.json").write_text("{}")
    assert named(written(copy), "LICENSE") == ["And the data.", 'You may\n  "copy" it.']
    assert named(written(copy, license_id="apache-2.0"), "LICENSE") == ["And the data.", 'You may\n  "copy" it.']


def test_example_messages(tiny_model: Path) -> None:
    messages = [{"role": "user", "content": "What: is a larva?"}, {"role": "assistant", "content": ""}]
    commands = written(tiny_model, messages=messages)
    assert commands[-2:] == [("MESSAGE", "user", "What: is a larva?"), ("MESSAGE", "assistant", "")]
    for wrong in ({"role": "tool", "content": "a"}, {"role": "user"}, {"content": "a"}):
        with pytest.raises(ExportError, match=r"an example message has the role .*, or no text"):
            written(tiny_model, messages=[wrong])


@pytest.mark.parametrize("name", ["larva", "larva:q4", "me/larva:q4_K_M", "host:5000/me/larva.1:v1.0", "_a", "a" * 80])
def test_names_that_ollama_takes(name: str) -> None:
    check_name(name)


@pytest.mark.parametrize(
    "name",
    ["", "-f", "a b", "a/", "/a", "a:", ":b", "a:b:c", "a.b/c", "a/b/c/d", "a" * 81, "a:" + "b" * 81, "größe", "a\n"],
)  # fmt: skip
def test_names_that_it_does_not_take(name: str, tmp_path: Path) -> None:
    for check in (check_name, lambda name: create(name, tmp_path)):
        with pytest.raises(UsageError, match="is no name for a model in Ollama"):
            check(name)


class Shown:
    """A progress that keeps what it is told."""

    def __init__(self) -> None:
        self.lines: list[object] = []
        self.done = 0

    @contextmanager
    def __call__(self, description: str, total: int, *, completed: int = 0, unit: str = "") -> Iterator[Shown]:
        self.lines.append(description)
        yield self
        assert self.done == total

    def update(self, advance: int = 1, **fields: object) -> None:
        self.done += advance
        self.lines += fields.values()


def program(directory: Path, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put an `ollama` before all others: the real one cannot be had here."""
    directory.mkdir()
    file = directory / "ollama"
    file.write_text(script)
    file.chmod(0o755)
    monkeypatch.setenv("PATH", f"{directory}{os.pathsep}{os.environ['PATH']}")


def test_create_runs_the_program_beside_the_modelfile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    export, log = tmp_path / "my export", tmp_path / "bin"
    export.mkdir()
    (export / "Modelfile").write_text("FROM ./m.gguf\n")
    program(
        log,
        f"#!/bin/sh\ncd {shlex.quote(str(log))}\nprintf '%s\\n' \"$@\" > argv\nprintf '%s' \"$OLDPWD\" > cwd\n"
        f"cp \"$OLDPWD/$4\" given\nprintf '\\033[?25l10%%\\r\\033[K10%%\\r90%%\\n' >&2\necho 'größe success'\n",
        monkeypatch,
    )
    shown = Shown()
    assert create("me/larva:q4", export, progress=shown) is None
    assert (log / "argv").read_text().splitlines() == ["create", "me/larva:q4", "-f", "Modelfile"]
    assert Path((log / "cwd").read_text()) == export.resolve()
    assert (log / "given").read_text() == "FROM ./m.gguf\n"
    assert shown.lines == ["ollama create", "10%", "90%", "größe success"]


def test_create_says_how_the_program_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = "".join(f"echo line {number}\n" for number in range(9))
    program(tmp_path / "bin", f"#!/bin/sh\n{lines}echo 'Error: no server' >&2\nexit 3\n", monkeypatch)
    with pytest.raises(ExportError) as caught:
        create("larva", tmp_path)
    assert caught.value.what == (
        "ollama create failed (exit status 3): line 5; line 6; line 7; line 8; Error: no server"
    )
    assert caught.value.where == str(tmp_path / "Modelfile")
    assert caught.value.fix is not None
    assert caught.value.fix.endswith(f"ollama create larva -f {tmp_path}/Modelfile")


def test_create_says_when_the_program_cannot_be_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(tmp_path / "bin", "no program\0", monkeypatch)
    with pytest.raises(ExportError, match="ollama cannot be started: "):
        create("larva", tmp_path)


def test_without_the_program_the_command_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    export = tmp_path / "my export"
    assert create("larva", export) == f"ollama create larva -f '{export}/Modelfile'"
