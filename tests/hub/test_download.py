"""`--model OWNER/NAME`: a model comes from the Hub, whatever happens on the way, and what is grown goes back there.

The program runs in processes of its own, because the Hub's client reads its settings once. They know one Hub, that of
this machine.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from chrysalis_mlx.gguf.keys import read_keys
from chrysalis_mlx.models.directory import ModelDirectory
from tests import tiny
from tests.end_to_end.inputs import write_inputs
from tests.hub.server import READER, WRITER, Fault, Hub
from tests.hub.store import Repository

TINY = "org/Tiny-1M"
QUICK = """\
name: quick
split: {valid: 0.1, test: 0.1}
adapter: {rank: 4, alpha: 8}
training: {row_length: 128, batch_size: 2, steps: 2, warmup_steps: 1, checkpoint_every: 2, max_valid_rows: 2}
evaluation: {max_rows: 2, continuations: 0, retention_tokens: 0}
export: {quantize: [Q8_0], verify_lines: 5, verify_positions: 2, imatrix_tokens: 0}
"""

# Calls the program once for each list of arguments; a token may stand before them.
CALLS = """\
import contextlib, io, json, os, sys
from chrysalis_mlx.cli import main
for token, arguments in json.loads(sys.argv[1]):
    os.environ.pop("HF_TOKEN", None)
    if token:
        os.environ["HF_TOKEN"] = token
    out, err = (io.TextIOWrapper(io.BytesIO(), "utf-8", write_through=True) for _ in range(2))
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = main(arguments)
    print(json.dumps([status, *(stream.buffer.getvalue().decode() for stream in (out, err))]))
"""


@dataclass(frozen=True)
class Told:
    status: int
    out: str
    err: str


@pytest.fixture(scope="module")
def hub(tiny_model: Path) -> Iterator[Hub]:
    with Hub().running() as running:
        running.add(Repository.of_directory(TINY, tiny_model))
        yield running


@pytest.fixture(autouse=True)
def fresh(hub: Hub) -> Iterator[None]:
    hub.requests.clear()
    yield
    hub.faults = []


@pytest.fixture(scope="module")
def genome(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("inputs")
    write_inputs(folder)
    (folder / "blueprint.yaml").write_text(QUICK)
    return folder


def calls(hub: Hub, home: Path, *asked: tuple[str | None, Sequence[object]], **environment: str) -> list[Told]:
    arguments = json.dumps([[token, [str(word) for word in words]] for token, words in asked])
    settings = {**os.environ, **hub.environment(home), **environment}
    command = [sys.executable, "-c", CALLS, arguments]
    done = subprocess.run(command, env=settings, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    return [Told(*json.loads(line)) for line in done.stdout.splitlines()]


def grow(genome: Path, run: Path, model: str = TINY) -> list[object]:
    return [
        "grow",
        run,
        f"--genome={genome / 'genome.txt'}",
        f"--blueprint={genome / 'blueprint.yaml'}",
        f"--model={model}",
    ]


def corpus(genome: Path, run: Path, model: str = TINY) -> list[object]:
    return ["corpus", "build", *grow(genome, run, model)[1:]]


def test_a_model_of_the_hub_is_grown_and_goes_back_there(
    hub: Hub, genome: Path, tmp_path: Path, tiny_model: Path
) -> None:
    source = "org/Hidden-1M"
    run, repository = tmp_path / "run", hub.add(Repository.of_directory(source, tiny_model, private=True))
    push = ["push", run, "me/larva", "--what", "gguf", "--what", "fused", "--what", "adapter", "--json"]
    home = tmp_path / "home"
    grown, pushed = calls(hub, home, (WRITER, [*grow(genome, run, source), "--json"]), (WRITER, push))
    assert (grown.status, pushed.status) == (0, 0), grown.err + pushed.err
    model = json.loads((run / "run.json").read_text())["model"]
    assert (model["source"], Path(model["directory"]).name) == (source, repository.head)
    assert ModelDirectory.open(Path(model["directory"])).hashes() == ModelDirectory.open(tiny_model).hashes()
    keys = read_keys(run / "export/model-Q8_0.gguf")
    assert (keys["chrysalis.model.source"], keys["chrysalis.model.revision"]) == (source, repository.head)
    told, sent = json.loads(pushed.out), hub.repositories["me/larva"].files
    assert told["looks_private"] == []
    here = {"model-Q8_0.gguf": "export/", "fused/model.safetensors": "", "adapter/adapter.gguf": "export/"}
    for path, folder in here.items():
        assert sent[path] == (run / (folder + path.removeprefix("adapter/"))).read_bytes()
    assert set(sent) == {".gitattributes", *(file["path"] for file in told["files"])}
    assert f"[{source}](https://huggingface.co/{source})" in sent["README.md"].decode()
    assert f"The base is at commit `{repository.head}`." in sent["README.md"].decode()
    assert json.loads(sent["adapter/adapter_config.json"])["revision"] == repository.head
    tokens = {(request.server, request.headers.get("authorization")) for request in hub.requests}
    assert tokens - {("hub", None)} == {("hub", f"Bearer {WRITER}"), ("storage", None)}


def test_what_stopped_in_the_middle_of_a_file_goes_on_from_there(hub: Hub, genome: Path, tmp_path: Path) -> None:
    large = tiny.tiny_llama(tmp_path / "large", hidden=128, intermediate=4096, layers=2)  # more than a block of 10 MiB
    repository = hub.add(Repository.of_directory("org/Large", large))
    weights = large / "model.safetensors"
    cut = 11 << 20
    assert weights.stat().st_size > cut
    hub.faults = [Fault(r"GET /[0-9a-f]{64}", cut=cut)]
    (told,) = calls(hub, tmp_path / "home", (None, corpus(genome, tmp_path / "run", "org/Large")))
    assert told.status == 0, told.err
    asked = [request.headers.get("range") for request in hub.requests if request.server == "storage"]
    assert asked == [None, f"bytes={10 << 20}-"]
    directory = Path(json.loads((tmp_path / "run/run.json").read_text())["model"]["directory"])
    assert (directory.name, (directory / "model.safetensors").read_bytes()) == (repository.head, weights.read_bytes())


def test_a_download_that_failed_goes_on_in_the_next_call(hub: Hub, genome: Path, tmp_path: Path) -> None:
    hub.faults = [Fault(r"GET /[0-9a-f]{64}", status=500)]
    words = corpus(genome, tmp_path / "run")
    failed, done = calls(hub, tmp_path / "home", (None, words), (None, words))
    assert (failed.status, done.status) == (1, 0), done.err
    assert "the Hub is too busy or has trouble of its own (HTTP status 500)" in failed.err
    assert "files that are whole are kept" in failed.err
    assert "Fetching" not in failed.err + done.err  # the client's bars are not for a log
    fetched = [line for line in hub.lines("hub") if line.startswith("GET") and line.endswith("/tokenizer.json")]
    assert len(fetched) == 1


def test_without_the_network_the_cache_is_enough(hub: Hub, genome: Path, tmp_path: Path) -> None:
    home, revision = tmp_path / "home", hub.repositories[TINY].head
    (first,) = calls(hub, home, (None, corpus(genome, tmp_path / "first")))
    assert first.status == 0, first.err
    hub.requests.clear()
    model = next(home.rglob(f"snapshots/{revision}/model.safetensors"))
    (offline,) = calls(hub, home, (None, corpus(genome, tmp_path / "second")), HF_HUB_OFFLINE="1")
    assert (offline.status, hub.requests) == (0, [])
    records = [json.loads((tmp_path / name / "run.json").read_text())["model"] for name in ("first", "second")]
    assert records[0] == records[1]
    model.unlink()
    incomplete = calls(hub, home, (None, corpus(genome, tmp_path / "third")), HF_HUB_OFFLINE="1")
    empty = calls(hub, tmp_path / "nothing", (None, corpus(genome, tmp_path / "third")), HF_HUB_OFFLINE="1")
    for told in (*incomplete, *empty):
        assert told.status == 1
        assert "not all of the model is in the cache of this machine, and HF_HUB_OFFLINE is set" in told.err
        assert "unset HF_HUB_OFFLINE until it is downloaded" in told.err
    assert hub.requests == []
    assert not (tmp_path / "third").exists()


def test_what_cannot_be_had_is_said_in_a_sentence(hub: Hub, genome: Path, tmp_path: Path, tiny_model: Path) -> None:
    hub.add(Repository.of_directory("org/Gated", tiny_model, gated=True)).granted.add("me")
    hub.add(Repository.of_directory("org/Secret", tiny_model, private=True))
    hub.add(Repository.of_directory("org/Broken", tiny_model))
    hub.faults = [Fault("GET /api/models/org/Broken.*", status=503, times=9)]
    other = tmp_path / "other"
    other.mkdir()
    (other / "genome.txt").symlink_to(genome / "genome.txt")
    (other / "blueprint.yaml").write_text(f"{QUICK}model: {{source: {TINY}, revision: v9}}\n")
    run = tmp_path / "run"
    told = calls(
        hub,
        tmp_path / "home",
        (None, grow(genome, run, "org/Gated")),
        (READER, grow(genome, run, "org/Gated")),
        (None, grow(genome, run, "org/Nothing")),
        (READER, grow(genome, run, "org/Secret")),
        (None, grow(genome, run, "org/a--b")),
        ("hf_forgotten", grow(genome, run)),
        (None, grow(other, run)),
        (None, grow(genome, run, "org/Broken")),
    )
    assert [(one.status, one.err.splitlines()[0]) for one in told] == [
        (1, "error: the model is gated"),
        (1, "error: the model is gated"),
        (1, "error: the Hub knows no such model"),
        (1, "error: the Hub knows no such model"),
        (1, "error: the Hub knows no such model"),
        (1, "error: the Hub does not accept the token"),
        (1, "error: the model has no revision 'v9'"),
        (1, "error: the Hub is too busy or has trouble of its own (HTTP status 503)"),
    ]
    assert not any("Traceback" in one.err or "hf_forgotten" in one.err for one in told)
    assert "accept its licence on its page, then log in with: hf auth login" in told[0].err
    assert "set model.revision in the blueprint" in told[6].err
    assert not run.exists()


def test_a_revision_of_the_blueprint_is_taken(hub: Hub, genome: Path, tmp_path: Path) -> None:
    repository = hub.repositories[TINY]
    old = repository.head
    repository.branches["v1"] = old
    repository.commit("main", {"README.md": b"a newer one"})
    (tmp_path / "genome.txt").symlink_to(genome / "genome.txt")
    (tmp_path / "blueprint.yaml").write_text(f"{QUICK}model: {{source: {TINY}, revision: v1}}\n")
    (told,) = calls(hub, tmp_path / "home", (None, corpus(tmp_path, tmp_path / "run")))
    assert told.status == 0, told.err
    assert Path(json.loads((tmp_path / "run/run.json").read_text())["model"]["directory"]).name == old


def test_nothing_answers(hub: Hub, genome: Path, tmp_path: Path) -> None:
    (told,) = calls(hub, tmp_path, (None, grow(genome, tmp_path / "run")), HF_ENDPOINT="http://127.0.0.1:9")
    assert (told.status, told.err.startswith("error: the model cannot be downloaded: ")) == (1, True)
    assert "check the network, or give a local directory" in told.err
    assert hub.requests == []
