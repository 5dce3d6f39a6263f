"""Ollama and the Hub, against servers of the test's own: they answer, refuse, stand still, or are not there."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from chrysalis_mlx.doctor import network
from chrysalis_mlx.doctor.network import hub, login, ollama, ollama_address
from tests.doctor.test_frameworks import program
from tests.serving import serving

TOKEN = "hf_notARealTokenButSecret"


class Server:
    """Answers every request with `status` and `body`; remembers the paths and what the requests carried."""

    def __init__(self, status: int = 200, body: object = None) -> None:
        self.status, self.body = status, body
        self.paths: list[str] = []
        self.tokens: list[str | None] = []
        self.address = ""


@contextmanager
def answering(server: Server) -> Iterator[Server]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            server.paths.append(self.path)
            server.tokens.append(self.headers.get("Authorization"))
            self.send_response(server.status)
            self.end_headers()
            self.wfile.write(json.dumps(server.body).encode() if server.body is not None else b"hello")

        def log_message(self, format: str, *arguments: object) -> None:
            """Say nothing."""

    listener = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.address = f"http://127.0.0.1:{listener.server_port}"
    with serving(listener):
        yield server


@contextmanager
def silent() -> Iterator[str]:
    """A server that takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


def closed() -> str:
    """An address at which nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return f"http://127.0.0.1:{listener.getsockname()[1]}"


@pytest.fixture(autouse=True)
def own_world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_ENDPOINT", "OLLAMA_HOST", "http_proxy", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(network, "SECONDS", 0.5)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")


def at(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    """Let the Hub be there."""
    from huggingface_hub import constants

    monkeypatch.setenv("HF_ENDPOINT", address)
    monkeypatch.setattr(constants, "ENDPOINT", address)


@pytest.mark.parametrize(
    ("host", "address", "loopback"),
    [
        ("", "http://127.0.0.1:11434", True),
        ("0.0.0.0", "http://127.0.0.1:11434", True),
        ("0.0.0.0:8080", "http://127.0.0.1:8080", True),
        (":5000", "http://127.0.0.1:5000", True),
        ("[::1]:5000", "http://[::1]:5000", True),
        ("gpu.lan", "http://gpu.lan:11434", False),
        ("https://gpu.lan", "https://gpu.lan:443", False),
        ("http://gpu.lan/", "http://gpu.lan:80", False),
        ("https://gpu.lan:8443/ollama/", "https://gpu.lan:8443/ollama", False),
        (' "localhost:1" ', "http://localhost:1", True),
    ],
)
def test_what_ollama_host_means(host: str, address: str, loopback: bool) -> None:
    assert ollama_address(host) == (address, loopback)


def test_an_ollama_that_serves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with answering(Server(body={"version": "0.12.3"})) as server:
        monkeypatch.setenv("OLLAMA_HOST", server.address)
        found = ollama(5.0, offline=True)
        assert found.status == "ok"
        assert found.found.startswith(f"0.12.3 serves at {server.address}; the program ollama is not on this machine")
        program(tmp_path, "ollama", "exit 1")
        assert ollama(5.0).found == f"0.12.3 serves at {server.address}"
    assert server.paths == ["/api/version", "/api/version"]


def test_no_ollama(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OLLAMA_HOST", closed())
    found = ollama(5.0)
    assert (found.status, found.found.startswith("not installed")) == ("warning", True)
    assert "https://ollama.com/download" in str(found.fix)


@pytest.mark.parametrize("kind", ["closed", "silent", "other"])
def test_an_ollama_whose_server_does_not_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    program(tmp_path, "ollama", "echo 'Warning: client version is 0.12.3' >&2")
    with silent() as address, answering(Server(body=["no", "ollama"])) as other:
        place = {"closed": closed(), "silent": address, "other": other.address}[kind]
        monkeypatch.setenv("OLLAMA_HOST", place)
        found = ollama(5.0)
    assert (found.status, found.fix) == ("warning", "start it: ollama serve")
    assert found.found == f"0.12.3, {tmp_path}/ollama; its server at {place} does not answer"


def test_an_ollama_elsewhere_is_not_asked_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(tmp_path, "ollama", "echo ollama version is 0.12.3")
    monkeypatch.setenv("OLLAMA_HOST", "gpu.invalid")
    assert ollama(5.0, offline=True).found.endswith("its server at http://gpu.invalid:11434 was not asked (offline)")


def test_an_ollama_that_is_broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(tmp_path, "ollama", "echo 'bad CPU type in executable' >&2; exit 126")
    monkeypatch.setenv("OLLAMA_HOST", closed())
    assert ollama(5.0).found == f"{tmp_path}/ollama does not work: bad CPU type in executable"
    monkeypatch.setenv("OLLAMA_HOST", "a:b:c")
    assert ollama(5.0).found.startswith("OLLAMA_HOST is no address")


def test_a_hub_that_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    with answering(Server(status=404)) as server:
        at(monkeypatch, server.address)
        assert (hub().status, hub().found) == ("ok", f"{server.address} (HF_ENDPOINT) answers")
        server.status = 503
        assert (hub().status, hub().found.endswith("answers with the status 503")) == ("warning", True)
    assert set(server.paths) == {"/api/models?limit=1"}
    assert set(server.tokens) == {None}


@pytest.mark.parametrize("kind", ["closed", "silent"])
def test_a_hub_that_does_not_answer(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    with silent() as address:
        place = closed() if kind == "closed" else address
        at(monkeypatch, place)
        found, logged = hub(), login()
    assert (found.status, found.found.startswith(f"{place} (HF_ENDPOINT) does not answer: ")) == ("warning", True)
    assert (logged.status, logged.found.startswith(f"a token; {place} does not say whose: ")) == ("warning", True)
    assert TOKEN not in f"{found}{logged}"


@pytest.mark.parametrize(
    "address", ["huggingface.co", "ftp://huggingface.co", "https://", "https://[::1", "https://h:p"]
)
def test_an_endpoint_that_is_no_address(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    at(monkeypatch, address)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert (hub().status, hub().fix) == ("problem", "write https://HOST, or unset it")
    assert (login().status, login().fix) == ("warning", "see hub")


def test_a_password_in_the_address_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    at(monkeypatch, closed().replace("http://", "http://me:secret@"))
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert "secret" not in f"{hub()}{login()}"

    def refuse(url: str, token: str | None = None) -> None:
        raise RuntimeError(f"cannot GET {url}: refused\nmore")

    monkeypatch.setattr(network, "_get", refuse)
    assert hub().found.endswith("does not answer: cannot GET it/api/models?limit=1: refused")
    assert login().found.endswith("does not say whose: cannot GET it/api/whoami-v2: refused")


def test_offline_nobody_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    with answering(Server()) as server:
        at(monkeypatch, server.address)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        assert hub(offline=True).found == f"{server.address} (HF_ENDPOINT), not asked (--offline)"
        assert login(offline=True).found == "a token, not asked (--offline)"
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
        assert hub().found == f"{server.address} (HF_ENDPOINT), not asked (HF_HUB_OFFLINE)"
        assert login().found == "a token, not asked (HF_HUB_OFFLINE)"
    assert server.paths == []


def test_without_a_token() -> None:
    found = login()
    assert (found.status, found.found) == ("warning", "no token: public models only, and no push")
    assert "hf auth login" in str(found.fix)


@pytest.mark.parametrize(
    ("status", "body", "verdict", "words"),
    [
        (200, {"name": "ada", "auth": {"accessToken": {"role": "write"}}}, "ok", "ada; a token of the kind write"),
        (200, {"name": "ada", "auth": {"accessToken": {"role": "read"}}}, "ok", "ada; the token may read and not push"),
        (200, {"name": "ada"}, "ok", "ada"),
        (200, ["no", "one"], "warning", "does not say whose (status 200)"),
        (200, None, "warning", "does not say whose: "),
        (401, {"error": "Invalid username or password."}, "problem", "the token is not valid"),
        (429, None, "warning", "does not say whose (status 429)"),
    ],
)
def test_a_token(monkeypatch: pytest.MonkeyPatch, status: int, body: object, verdict: str, words: str) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    with answering(Server(status, body)) as server:
        at(monkeypatch, server.address)
        found = login()
    assert (found.status, words in found.found) == (verdict, True), found
    assert (server.paths, server.tokens) == (["/api/whoami-v2"], [f"Bearer {TOKEN}"])
    assert TOKEN not in str(found)


def test_a_token_that_was_stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "token").write_text(TOKEN)
    with answering(Server(body={"name": "ada"})) as server:
        at(monkeypatch, server.address)
        assert login().found == "ada"
    assert server.tokens == [f"Bearer {TOKEN}"]
