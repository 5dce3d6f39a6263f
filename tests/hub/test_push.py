"""Pushing to a Hub that checks what it gets: what goes, where it lies, and who may see it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import snapshot_download

from chrysalis_mlx import __version__
from chrysalis_mlx.errors import ExportError, HubError, RunError, UsageError
from chrysalis_mlx.hub.files import Kind
from chrysalis_mlx.hub.push import Parcel, pack, push
from chrysalis_mlx.run import Run, write_json
from tests.export.finished import flip
from tests.hub.runs import COMMIT, FUSED, GGUF, MLX, PEFT, based_on_hub, export_all, with_location
from tests.hub.server import READER, WRITER, Hub
from tests.hub.store import Repository, is_large

LARVA = "me/larva"
ADAPTER = [*PEFT, *MLX, "adapter.gguf"]

# The client hands its files to httpx2 by a name that httpx2 gives up.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")


def content(parcel: Parcel) -> dict[str, bytes]:
    return {
        file.path: file.content if isinstance(file.content, bytes) else file.content.read_bytes()
        for file in parcel.files
    }


def below(folder: str, names: Sequence[str]) -> list[str]:
    return [f"{folder}/{name}" for name in names]


def front(parcel: Parcel) -> dict[str, Any]:
    found = yaml.safe_load(parcel.front_matter)
    assert isinstance(found, dict)
    return found


def uploads(hub: Hub) -> list[str]:
    return [line for line in hub.lines("storage") if line.startswith("PUT")]


@pytest.mark.parametrize(
    ("what", "expected"),
    [
        ((), [*GGUF, *below("adapter", ADAPTER)]),
        (("gguf",), GGUF),
        (("adapter",), ADAPTER),
        (("fused",), FUSED),
        (("adapter", "fused"), [*FUSED, *below("adapter", ADAPTER)]),
        (("fused", "gguf", "adapter"), [*GGUF, *below("fused", FUSED), *below("adapter", ADAPTER)]),
    ],
)
def test_what_goes_where(run: Run, what: Sequence[Kind], expected: list[str]) -> None:
    paths = [file.path for file in pack(run, LARVA, what).files]
    assert paths[0] == "README.md"
    assert sorted(paths[1:]) == sorted(expected)


def test_a_push_is_one_commit_of_exactly_these_bytes(run: Run, logged_in: Hub) -> None:
    parcel = pack(run, LARVA)
    pushed = push(parcel)
    repository = logged_in.repositories[LARVA]
    sent = {path: data for path, data in repository.files.items() if path != ".gitattributes"}
    assert sent == content(parcel)
    for name in ("model-F16.gguf", "model-Q4_K_M.gguf", "imatrix.gguf"):
        assert sent[name] == run.path("export", name).read_bytes()
    ((branch, header, operations),) = repository.log
    assert (branch, header["summary"]) == ("main", f"Tiny-1M-Instruct wings, by chrysalis-mlx {__version__}")
    large = {operation["value"]["path"] for operation in operations if operation["key"] == "lfsFile"}
    assert large == {path for path, data in sent.items() if is_large(path, len(data), data[:512])}
    assert (pushed.url, pushed.commit, pushed.changed) == (f"{logged_in.url}/{LARVA}", repository.head, True)
    assert (pushed.private, pushed.pull_request, pushed.others, pushed.warnings) == (False, None, (), ())
    assert parcel.commands == (f"ollama run hf.co/{LARVA}:Q4_K_M", f"llama-server -hf {LARVA}:Q4_K_M")


def test_the_token_goes_to_the_hub_alone(run: Run, logged_in: Hub) -> None:
    push(pack(run, LARVA))
    tokens = {(request.server, request.headers.get("authorization")) for request in logged_in.requests}
    tokens -= {("hub", None)}  # a list of programs that the client asks for, about nobody
    assert tokens == {("hub", f"Bearer {WRITER}"), ("storage", None)}


def test_what_was_pushed_can_be_downloaded_again(run: Run, logged_in: Hub, tmp_path: Path) -> None:
    parcel = pack(run, LARVA, ("gguf", "fused", "adapter"))
    pushed = push(parcel)
    found = Path(snapshot_download(LARVA, cache_dir=tmp_path / "cache"))
    assert found.name == pushed.commit
    files = {path.relative_to(found).as_posix(): path.read_bytes() for path in found.rglob("*") if path.is_file()}
    del files[".gitattributes"]
    assert files == content(parcel)


def test_a_second_push_sends_nothing(run: Run, logged_in: Hub) -> None:
    first = push(pack(run, LARVA))
    logged_in.requests.clear()
    second = push(pack(run, LARVA))
    assert (second.commit, second.changed) == (first.commit, False)
    assert uploads(logged_in) == []
    assert not [line for line in logged_in.lines() if "/commit/" in line]


def test_only_what_changed_is_sent(run: Run, tiny_model: Path, logged_in: Hub) -> None:
    logged_in.add(Repository.empty(LARVA)).commit("main", {"notes.md": b"mine", "model-Q8_0.gguf": b"old\0"})
    push(pack(run, LARVA, ("gguf",)))
    run.path("export/model-F16.gguf").write_bytes(b"GGUF, another\0")
    with run.recording("fuse", run.stage("fuse")["inputs"]) as record:
        record["outputs"] = [path for path in sorted(run.path("export").iterdir()) if path.name != "README.md"]
    logged_in.requests.clear()
    pushed = push(pack(run, LARVA, ("gguf",)), message="the second")
    _, header, operations = logged_in.repositories[LARVA].log[-1]
    assert header["summary"] == "the second"
    assert [operation["value"]["path"] for operation in operations] == ["model-F16.gguf"]
    assert len(uploads(logged_in)) == 1
    assert pushed.others == ("model-Q8_0.gguf", "notes.md")


def test_large_files_go_in_parts_when_the_hub_wants_it(run: Run, logged_in: Hub) -> None:
    logged_in.part_bytes = 1000
    parcel = pack(run, LARVA, ("fused",))
    push(parcel)
    assert logged_in.repositories[LARVA].files["model.safetensors"] == run.path("fused/model.safetensors").read_bytes()
    parts = -(-run.path("fused/model.safetensors").stat().st_size // 1000)
    assert len(uploads(logged_in)) == parts > 100
    assert [line for line in logged_in.lines("hub") if line.endswith("/complete")] == [f"POST /{LARVA}.git/complete"]


def test_a_branch_is_made_and_main_stays(run: Run, logged_in: Hub) -> None:
    repository = logged_in.add(Repository.empty(LARVA))
    before = repository.head
    parcel = pack(run, LARVA, branch="next/one")
    pushed = push(parcel)
    assert (repository.head, repository.branches["next/one"]) == (before, pushed.commit)
    assert repository.commits[pushed.commit]["README.md"] == content(parcel)["README.md"]
    assert parcel.commands == ()
    assert f"hf.co/{LARVA}" not in parcel.card
    assert "llama-server -m model-Q4_K_M.gguf" in parcel.card
    assert push(parcel).changed is False


def test_a_pull_request_needs_no_right_to_write(run: Run, logged_in: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    repository = logged_in.add(Repository.empty("org/larva"))
    before = repository.head
    monkeypatch.setenv("HF_TOKEN", READER)
    pushed = push(pack(run, "org/larva"), create_pr=True)
    assert pushed.pull_request == f"{logged_in.url}/org/larva/discussions/1"
    assert (repository.head, repository.branches["refs/pr/1"]) == (before, pushed.commit)
    with pytest.raises(HubError, match="the Hub knows no such repository"):
        push(pack(run, "org/nothing"), create_pr=True)


def test_who_may_see_a_new_repository(run: Run, logged_in: Hub) -> None:
    assert push(pack(run, LARVA), private=True).private is True
    assert logged_in.repositories[LARVA].private is True
    assert push(pack(run, "me/open"), private=False).private is False
    assert logged_in.repositories["me/open"].private is False


def test_private_files_do_not_go_to_a_public_repository(run: Run, logged_in: Hub) -> None:
    repository = logged_in.add(Repository.empty(LARVA))
    with pytest.raises(UsageError, match="me/larva is public"):
        push(pack(run, LARVA), private=True)
    assert (repository.log, uploads(logged_in)) == ([], [])


SECRET_PLACES = ("git@git.example.org:me/secret.git", "https://git.corp.internal/me/secret")


def test_what_looks_private_needs_a_word(run: Run, logged_in: Hub) -> None:
    with_location(run, *SECRET_PLACES)
    parcel = pack(run, LARVA)
    assert parcel.private == (
        f"an address for those who have a key: {SECRET_PLACES[0]}",
        f"a host that is not on the open Internet: {SECRET_PLACES[1]}",
    )
    with pytest.raises(UsageError, match=r"not meant for everybody: an address(.|\n)*--private, or --public"):
        push(parcel)
    assert logged_in.repositories == {}
    assert push(parcel, private=True).private is True
    assert push(parcel).private is True  # the repository is known to be private now
    logged_in.add(Repository.empty("me/open"))
    parcel = pack(run, "me/open")
    with pytest.raises(UsageError, match="not meant for everybody"):
        push(parcel)
    assert logged_in.repositories["me/open"].log == []
    assert push(parcel, private=False).private is False


@pytest.mark.parametrize(
    ("location", "why"),
    [
        ("https://github.com/o/r", None),
        ("https://github.com:443/o/r.git", None),
        ("git://example.org/r", None),
        ("http://192.0.2.7/r", "a host that is not on the open Internet"),
        ("http://[::1]/r", "a host that is not on the open Internet"),
        ("http://localhost:8080/r", "a host that is not on the open Internet"),
        ("https://gitea/r", "a host that is not on the open Internet"),
        ("file:///srv/git/r.git", "a path of this machine"),
        ("ssh://git@github.com/o/r", "an address for those who have a key"),
        ("github.com:o/r", "an address for those who have a key"),
        ("https://[bad/r", "an address that is no URL"),
    ],
)
def test_which_addresses_look_private(run: Run, location: str, why: str | None) -> None:
    found = pack(with_location(run, location), LARVA, ("gguf",)).private
    assert found == ((f"{why}: {location}",) if why else ())


@pytest.mark.parametrize(
    "location",
    ["https://tok3n@h.org/r", "https://me:tok3n@h.org/r", "ssh://me:tok3n@h.org/r", "https://h.org/r?t=tok3n"],
)
def test_a_token_in_an_address_is_never_told(run: Run, location: str) -> None:
    parcel = pack(with_location(run, location), LARVA, ("gguf",))
    assert "h.org/r" in content(parcel)["README.md"].decode()
    assert all(b"tok3n" not in data for data in content(parcel).values())
    assert "tok3n" not in str((parcel.notes, parcel.private, parcel.front_matter))


def test_no_path_of_this_machine_is_told(run: Run, all_of_a_run: Path) -> None:
    parcel = pack(run, LARVA, ("gguf", "fused", "adapter"))
    assert parcel.private == ()
    for data in content(parcel).values():
        assert str(all_of_a_run).encode() not in data
        assert str(run.directory).encode() not in data


def test_a_path_that_a_file_tells_is_found(run: Run, all_of_a_run: Path, tiny_model: Path) -> None:
    model = all_of_a_run / "model" / "Tiny-1M-Instruct"
    config = run.path("fused/tokenizer_config.json")
    write_json(config, json.loads(config.read_text()) | {"name_or_path": str(model)})
    with run.recording("fuse", run.stage("fuse")["inputs"]) as record:
        record["outputs"] = sorted(run.path("fused").iterdir())
    assert pack(run, LARVA, ("fused",)).private == (f"tokenizer_config.json names a path of this machine: {model}",)


def test_the_adapter_names_its_base_on_the_hub(run: Run) -> None:
    source = run.path("adapters/peft/adapter_config.json")
    before = json.loads(source.read_text())
    sent = content(pack(based_on_hub(run), LARVA, ("adapter",)))
    own = {"base_model_name_or_path": "org/Tiny-1M", "revision": COMMIT}
    assert json.loads(sent["adapter_config.json"]) == before | own
    assert json.loads(sent["mlx/adapter_config.json"])["model"] == "org/Tiny-1M"
    assert json.loads(source.read_text()) == before


def test_a_local_base_is_named_without_its_path(run: Run, all_of_a_run: Path) -> None:
    adapters, model = run.path("adapters"), str(all_of_a_run / "model" / "Tiny-1M-Instruct")
    for name, key in (("peft/adapter_config.json", "base_model_name_or_path"), ("adapter_config.json", "model")):
        write_json(adapters / name, json.loads((adapters / name).read_text()) | {key: model})
    with run.recording("train", {}) as record:
        record["outputs"] = sorted(path for path in adapters.rglob("*") if path.is_file())
    parcel = pack(run, LARVA, ("adapter",))
    assert parcel.private == ()
    sent = {path: json.loads(data) for path, data in content(parcel).items() if path.endswith("adapter_config.json")}
    assert sent["adapter_config.json"]["base_model_name_or_path"] == "Tiny-1M-Instruct"
    assert sent["adapter_config.json"]["revision"] is None
    assert sent["mlx/adapter_config.json"]["model"] == "Tiny-1M-Instruct"


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
def test_peft_loads_an_adapter_that_was_pushed(run: Run, logged_in: Hub, tmp_path: Path, tiny_model: Path) -> None:
    import peft
    import transformers

    push(pack(run, LARVA, ("adapter",)))
    found = snapshot_download(LARVA, cache_dir=tmp_path / "cache")
    base = transformers.AutoModelForCausalLM.from_pretrained(tiny_model)
    loaded = peft.PeftModel.from_pretrained(base, found)
    assert loaded.peft_config["default"].base_model_name_or_path == "Tiny-1M-Instruct"
    assert loaded.peft_config["default"].use_dora is True


@pytest.mark.parametrize(
    ("what", "library", "relation", "gguf"),
    [
        (("gguf",), "gguf", "finetune", True),
        (("gguf", "adapter"), "gguf", "finetune", True),
        (("fused",), "transformers", "finetune", False),
        (("fused", "adapter"), "gguf", "finetune", True),  # the adapter is there as GGUF too
        (("adapter",), "gguf", "adapter", True),
    ],
)
def test_the_card_tells_the_hub_what_it_is(
    run: Run, what: Sequence[Kind], library: str, relation: str, gguf: bool
) -> None:
    found = front(pack(based_on_hub(run), LARVA, what))
    assert (found["library_name"], found["base_model_relation"]) == (library, relation)
    assert (found["base_model"], "gguf" in found["tags"]) == ("org/Tiny-1M", gguf)


def test_an_adapter_that_has_no_gguf_is_one_of_peft(run: Run) -> None:
    with run.recording("fuse", run.stage("fuse")["inputs"]) as record:
        record["outputs"] = [run.path("export/model-F16.gguf")]
    parcel = pack(based_on_hub(run), LARVA, ("adapter",))
    assert sorted(file.path for file in parcel.files) == sorted(["README.md", *PEFT, *MLX])
    assert (front(parcel)["library_name"], "gguf" in front(parcel)["tags"]) == ("peft", False)
    assert ".gguf" not in parcel.card.split("## Use")[1].split("## ")[0]


def test_the_card_says_how_to_run_what_is_there(run: Run) -> None:
    def use(*what: Kind) -> list[str]:
        text = pack(run, LARVA, what).card.split("## Use\n")[1].split("\n## ")[0]
        return [line for line in text.splitlines() if line and not line.startswith("```")]

    based_on_hub(run)
    assert use("gguf") == [
        "ollama run hf.co/me/larva:Q4_K_M",
        "llama-server -hf me/larva:Q4_K_M",
        "hf download me/larva --local-dir .",
        "llama-server -m model-Q4_K_M.gguf",
        "ollama create NAME -f Modelfile   # with its system prompt, stops and sampling",
    ]
    assert use("fused") == [
        'mlx_lm.generate --model me/larva --prompt "..."',
        "from transformers import AutoModelForCausalLM",
        'model = AutoModelForCausalLM.from_pretrained("me/larva")',
    ]
    assert use("fused", "adapter")[1:5] == [
        'hf download me/larva --include "adapter/*" --local-dir .',
        'mlx_lm.generate --model org/Tiny-1M --adapter-path adapter/mlx --prompt "..."',
        "llama-server -m BASE.gguf --lora adapter/adapter.gguf   # BASE.gguf: the base model, converted to GGUF",
        "from transformers import AutoModelForCausalLM",
    ]
    assert use("adapter")[-2:] == [
        f'base = AutoModelForCausalLM.from_pretrained("org/Tiny-1M", revision="{COMMIT}")',
        'model = PeftModel.from_pretrained(base, "me/larva")',
    ]
    assert use("gguf", "adapter")[-1] == 'model = PeftModel.from_pretrained(base, "me/larva", subfolder="adapter")'
    assert "../fused" not in pack(run, LARVA).card


def test_the_card_has_the_proof_and_the_evaluation(run: Run) -> None:
    card = pack(run, LARVA).card
    assert "| `model-Q4_K_M.gguf` | 0.7 MB |" in card
    assert "1,234" in card.split("## Evaluation")[1]
    assert "## Verification" not in pack(run, LARVA, ("adapter",)).card


def test_what_to_know_is_told(run: Run) -> None:
    assert pack(run, LARVA).notes == (
        "the name, commit and licence of 2 repositories are told; 2 of them are folders of this machine, whose paths"
        " are not told",
        "1 of them state no licence: whether you may pass on what they taught is not known",
        "the base model was a local copy: the card cannot name it on the Hub",
    )
    (Path(run.record["model"]["directory"]) / "README.md").rename(run.path("README.md"))
    try:
        assert "the licence of the base model is not known here: find out whether you may pass the model on" in (
            pack(run, LARVA).notes
        )
    finally:
        run.path("README.md").rename(Path(run.record["model"]["directory"]) / "README.md")


def test_what_was_not_proved_is_not_sent(run: Run, tiny_model: Path) -> None:
    export_all(run, tiny_model, verified=False)
    for what in ("gguf", "fused"):
        with pytest.raises(ExportError, match=r"not proved(.|\n)*model-F16.unverified.gguf(.|\n)*without --no-verify"):
            pack(run, LARVA, (what,))
    assert [file.path for file in pack(run, LARVA, ("adapter",)).files][1:3] == ["mlx/adapters.safetensors", MLX[0]]


@pytest.mark.parametrize(
    ("path", "what"),
    [
        ("export/model-F16.gguf", "gguf"),
        ("export/Modelfile", "gguf"),
        ("fused/config.json", "fused"),
        ("adapters/adapters.safetensors", "adapter"),
    ],
)
def test_a_file_that_was_changed_is_not_sent(run: Run, path: str, what: Kind) -> None:
    first = run.path(path).read_bytes()[:1]
    flip(run.path(path), first, b"?")
    with pytest.raises(RunError, match=f"{path} was changed after the run recorded it"):
        pack(run, LARVA, (what,))
    run.path(path).unlink()
    with pytest.raises(RunError, match=f"is missing or was changed: {path}"):
        pack(run, LARVA, (what,))


def test_an_export_of_an_older_adapter_is_not_sent(run: Run) -> None:
    adapters = run.path("adapters")
    (adapters / "adapters.safetensors").write_bytes(b"trained again")
    with run.recording("train", {"more": "steps"}) as record:
        record["outputs"] = sorted(path for path in adapters.rglob("*") if path.is_file())
    with pytest.raises(RunError, match="the export is of another adapter"):
        pack(run, LARVA, ("gguf",))
    parcel = pack(run, LARVA, ("adapter",))
    assert "adapter.gguf" not in content(parcel)
    assert "## Evaluation" not in parcel.card


def test_a_stage_that_has_not_finished(run: Run) -> None:
    del run.record["stages"]["fuse"]
    with pytest.raises(RunError, match=r"the stage 'fuse' has not finished(.|\n)*chrysalis-mlx fuse"):
        pack(run, LARVA)
    assert len(pack(run, LARVA, ("adapter",)).files) == 1 + len(PEFT) + len(MLX)
    del run.record["stages"]["train"]
    with pytest.raises(RunError, match="the stage 'train' has not finished"):
        pack(run, LARVA, ("adapter",))


def test_a_full_fine_tuning_has_no_adapter(run: Run) -> None:
    outputs = run.record["stages"]["train"]["outputs"]
    for path in [path for path in outputs if "peft" in path]:
        del outputs[path]
    with pytest.raises(UsageError, match=r"a full fine-tuning has no adapter(.|\n)*--what fused"):
        pack(run, LARVA, ("adapter",))
    flip(run.path("blueprint.yaml"), b"kind: dora", b"kind: full")
    assert sorted(content(pack(run, LARVA))) == sorted(["README.md", *GGUF])


def test_a_modelfile_that_names_another_file(run: Run) -> None:
    run.path("export/Modelfile").write_text("FROM ./model-Q2_K.gguf\n")
    with run.recording("fuse", run.stage("fuse")["inputs"]) as record:
        record["outputs"] = [run.path("export/model-F16.gguf"), run.path("export/Modelfile")]
    with pytest.raises(RunError, match="the Modelfile names a file that is not of this export"):
        pack(run, LARVA, ("gguf",))


@pytest.mark.parametrize(
    "name",
    [
        "larva",
        "a/b/c",
        "me/",
        "/larva",
        "me/lar va",
        "me/-larva",
        "me/larva.git",
        "me/a--b",
        "me/a..b",
        "me/" + "a" * 95,
    ],
)
def test_names_that_no_repository_has(run: Run, name: str) -> None:
    with pytest.raises(UsageError, match=r"is no name for a repository(.|\n)*OWNER/NAME"):
        pack(run, name)


def test_the_hubs_own_words_about_the_card_are_handed_on(run: Run, logged_in: Hub) -> None:
    logged_in.card_warning = "empty or missing yaml metadata"
    (said,) = push(pack(run, LARVA)).warnings
    assert said.endswith("- empty or missing yaml metadata")
