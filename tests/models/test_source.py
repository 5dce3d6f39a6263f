"""Directories, GGUF files and Hub ids as sources of a model."""

from __future__ import annotations

import http.server
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from chrysalis_mlx.errors import ModelError
from chrysalis_mlx.models.directory import ModelDirectory
from chrysalis_mlx.models.source import cache_directory, resolve_model
from chrysalis_mlx.run import sha256_file
from tests.gguf.parity import export

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub(http.server.ThreadingHTTPServer):
    """The part of the Hub's file API that snapshot_download calls, serving one model as org/tiny."""

    def __init__(self, model: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files = {path.name: path for path in sorted(model.iterdir())}
        self.seen: list[str] = []


class _Handler(http.server.BaseHTTPRequestHandler):
    server: Hub

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def log_message(self, format: str, *args: object) -> None:
        self.server.seen.append(f"{self.command} {self.path.split('?')[0]}")

    def _answer(self, *, body: bool) -> None:
        path = self.path.split("?")[0]
        files = self.server.files
        if path in ("/api/models/org/tiny", *(f"/api/models/org/tiny/revision/{name}" for name in ("main", COMMIT))):
            siblings = [{"rfilename": name} for name in files]
            self._send(json.dumps({"id": "org/tiny", "sha": COMMIT, "siblings": siblings}).encode(), body)
        elif path == f"/api/models/org/tiny/tree/{COMMIT}":
            entries = [
                {"type": "file", "path": name, "oid": sha256_file(file)[:40], "size": file.stat().st_size}
                for name, file in files.items()
            ]
            self._send(json.dumps(entries).encode(), body)
        elif path.startswith(f"/org/tiny/resolve/{COMMIT}/") and (name := path.rsplit("/", 1)[1]) in files:
            content = files[name].read_bytes()
            self._send(content, body, ETag=f'"{sha256_file(files[name])[:40]}"')
        elif path.startswith("/api/models/org/tiny/revision/"):
            self._send(b'{"error": "no such revision"}', body, status=404, **{"X-Error-Code": "RevisionNotFound"})
        else:
            self._send(b'{"error": "not found"}', body, status=404, **{"X-Error-Code": "RepoNotFound"})

    def _send(self, content: bytes, body: bool, status: int = 200, **headers: str) -> None:
        self.send_response(status)
        for name, value in {"X-Repo-Commit": COMMIT, "Content-Length": str(len(content)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if body:
            self.wfile.write(content)


@pytest.fixture(scope="module")
def hub(tiny_model: Path) -> Iterator[Hub]:
    server = Hub(tiny_model)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


RESOLVE = (
    "import json, sys\n"
    "from chrysalis_mlx.errors import ModelError\n"
    "from chrysalis_mlx.models.source import resolve_model\n"
    "try:\n"
    "    model = resolve_model(*json.loads(sys.argv[1]))\n"
    "    print(model.path, model.architecture, model.tokenizer.encode('wings')[0], len(model.checkpoint().names))\n"
    "except ModelError as error:\n"
    "    sys.exit(str(error))\n"
)


def resolve(
    hub: Hub, home: Path, *arguments: str | None, code: str = RESOLVE, **environment: str
) -> subprocess.CompletedProcess[str]:
    """`code` in a process of its own, because the Hub's client reads its settings once, at import."""
    settings = {
        "HF_ENDPOINT": f"http://127.0.0.1:{hub.server_port}",
        "HF_HOME": str(home),
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "NO_PROXY": "127.0.0.1",
        "no_proxy": "127.0.0.1",
    }
    command = [sys.executable, "-c", code, json.dumps(arguments)]
    return subprocess.run(
        command, env=os.environ | settings | environment, capture_output=True, text=True, check=False, timeout=120
    )


def test_a_hub_id_is_downloaded_once_and_works_offline_then(hub: Hub, tmp_path: Path, tiny_model: Path) -> None:
    done = resolve(hub, tmp_path, "org/tiny")
    assert done.returncode == 0, done.stderr
    path, architecture, _, tensors = done.stdout.split()
    assert (architecture, tensors) == ("LlamaForCausalLM", "20")
    assert Path(path).is_relative_to(tmp_path)
    assert ModelDirectory.open(Path(path)).hashes() == ModelDirectory.open(tiny_model).hashes()
    assert f"GET /org/tiny/resolve/{COMMIT}/model.safetensors" in hub.seen
    hub.seen.clear()
    offline = resolve(hub, tmp_path, "org/tiny", HF_HUB_OFFLINE="1")
    assert (offline.returncode, offline.stdout) == (0, done.stdout)
    assert hub.seen == []


def test_an_unknown_repository_and_revision_are_errors(hub: Hub, tmp_path: Path) -> None:
    unknown = resolve(hub, tmp_path, "org/missing")
    assert unknown.returncode == 1
    assert "the Hub knows no such model" in unknown.stderr
    assert "where: org/missing" in unknown.stderr
    assert "Traceback" not in unknown.stderr
    revision = resolve(hub, tmp_path, "org/tiny", "v9")
    assert "the model has no revision 'v9'" in revision.stderr


@pytest.mark.parametrize("source", ["./nowhere", "/no/where", "~/nowhere-at-all", "a/b/c", "missing.gguf"])
def test_a_path_that_is_not_there_never_asks_the_hub(source: str) -> None:
    with pytest.raises(ModelError, match=r"the model is not there(.|\n)*give a directory, a .gguf file or a Hub id"):
        resolve_model(source)


def test_a_file_that_is_no_model_never_asks_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("model.bin").write_bytes(b"x")
    with pytest.raises(ModelError, match=r"this file is no model(.|\n)*where: model.bin"):
        resolve_model("model.bin")


def test_a_directory_becomes_absolute(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tiny_model.parent)
    assert resolve_model(tiny_model.name).path == tiny_model


def test_a_gguf_is_imported_once(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHRYSALIS_CACHE", str(tmp_path / "cache"))
    file = export(tiny_model, tmp_path / "tiny.gguf").path
    model = resolve_model(str(file))
    assert model.path == cache_directory() / "imported" / f"tiny-{sha256_file(file)[:16]}"
    original = ModelDirectory.open(tiny_model).checkpoint()
    assert set(model.checkpoint().names) == set(original.names)
    for name in original.names:
        assert np.array_equal(model.checkpoint().read(name), original.read(name))
    before = (model.path / "model.safetensors").stat().st_mtime_ns
    assert resolve_model(str(file)).path == model.path
    assert (model.path / "model.safetensors").stat().st_mtime_ns == before


def test_a_damaged_gguf_is_an_error_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHRYSALIS_CACHE", str(tmp_path / "cache"))
    (tmp_path / "x.gguf").write_bytes(b"GGUF" + bytes(40))
    with pytest.raises(ModelError):
        resolve_model(str(tmp_path / "x.gguf"))
    assert [path for path in (tmp_path / "cache").rglob("*") if path.is_file()] == []


def test_where_the_cache_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CHRYSALIS_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_directory() == tmp_path / "chrysalis-mlx"
    monkeypatch.setenv("CHRYSALIS_CACHE", "relative")
    assert cache_directory() == Path.cwd() / "relative"
