"""A page that follows a run, over real HTTP."""

from __future__ import annotations

import http.client
import json
import shutil
import socket
import threading
from pathlib import Path

import pytest

from chrysalis_mlx.errors import RunError, UsageError
from chrysalis_mlx.report.watch import WatchServer, state_of
from chrysalis_mlx.run import Run
from tests.serving import serving

Answer = tuple[int, dict[str, str], str]


def ask(server: WatchServer, path: str = "/", *, host: str | None = None, method: str = "GET") -> Answer:
    connection = http.client.HTTPConnection("127.0.0.1", server.server_address[1], timeout=10)
    try:
        connection.request(method, path, headers={"Host": host} if host is not None else {})
        answer = connection.getresponse()
        return answer.status, dict(answer.getheaders()), answer.read().decode()
    finally:
        connection.close()


@pytest.fixture
def begun(tmp_path: Path) -> Run:
    return Run.create(tmp_path / "run", {})


def test_the_page_is_made_once_for_each_state(begun: Run) -> None:
    made: list[str] = []

    def page(state: str) -> str:
        made.append(state)
        return f"page {len(made)} é\ud800"

    with serving(WatchServer([begun.directory], page)) as server:
        assert server.url == f"http://127.0.0.1:{server.server_address[1]}/"
        status, headers, text = ask(server)
        assert (status, text, headers["Content-Type"]) == (200, "page 1 é\\ud800", "text/html; charset=utf-8")
        assert headers["Cache-Control"] == "no-store"
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["X-Frame-Options"] == "DENY"
        assert ask(server)[2] == text
        assert ask(server, "/state")[2] == made[0] == state_of([begun.directory])
        begun.path("training").mkdir()
        begun.path("training/metrics.jsonl").write_text('{"step": 1}\n')
        assert ask(server, "/state")[2] != made[0]
        assert ask(server)[2] == "page 2 é\\ud800"
        assert len(made) == 2


def test_only_its_own_name_is_answered(begun: Run) -> None:
    with serving(WatchServer([begun.directory], lambda state: "secret")) as server:
        port = server.server_address[1]
        for host in (f"127.0.0.1:{port}", f"localhost:{port}"):
            assert ask(server, host=host)[0] == 200
        for host in ("evil.example", f"evil.example:{port}", "127.0.0.1", f"127.0.0.1:{port + 1}", ""):
            for path in ("/", "/state"):
                status, _, text = ask(server, path, host=host)
                assert (status, "secret" in text) == (421, False), host


@pytest.mark.parametrize("path", ["/run.json", "/../run.json", "/?x", "/state/", "/etc/passwd"])
def test_nothing_else_is_there(begun: Run, path: str) -> None:
    with serving(WatchServer([begun.directory], lambda state: "page")) as server:
        assert ask(server, path)[0] == 404


def test_nothing_can_be_sent(begun: Run) -> None:
    with serving(WatchServer([begun.directory], lambda state: "page")) as server:
        for method in ("POST", "PUT", "DELETE"):
            assert ask(server, method=method)[0] == 501


def test_a_run_that_is_damaged_meanwhile_is_told(begun: Run) -> None:
    def page(state: str) -> str:
        return json.dumps(Run.open(begun.directory).record["stages"])

    with serving(WatchServer([begun.directory], page)) as server:
        assert ask(server)[2] == "{}"
        begun.path("run.json").write_text("{")
        status, headers, text = ask(server)
        assert (status, headers["Content-Type"]) == (503, "text/plain; charset=utf-8")
        assert text.startswith("run.json is damaged\n")
        begun.save()
        assert ask(server)[0] == 200


def test_it_listens_to_this_machine_alone(begun: Run) -> None:
    with serving(WatchServer([begun.directory], lambda state: "page")) as server:
        assert server.socket.getsockname()[0] == "127.0.0.1"
        assert 5 <= server.RequestHandlerClass.timeout <= 60
        port = server.server_address[1]
        with pytest.raises(UsageError, match=f"^port {port} cannot be had: Address already in use"):
            WatchServer([begun.directory], lambda state: "page", port)


@pytest.mark.parametrize(
    "name", ["blueprint.yaml", "genome.json", "evaluation.json", "corpus/expression.json", "export/verification.json"]
)
def test_every_file_that_is_told_of_counts(begun: Run, name: str) -> None:
    before = state_of([begun.directory])
    assert state_of([begun.directory]) == before
    begun.path(name).parent.mkdir(exist_ok=True)
    begun.path(name).write_text("{}")
    assert state_of([begun.directory]) != before
    begun.path(name).unlink()
    assert state_of([begun.directory]) == before


def test_a_process_that_ends_counts(begun: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    with begun.recording("train", {}) as record:
        before = state_of([begun.directory])
        monkeypatch.setattr("chrysalis_mlx.run._is_gone", lambda process: True)
        assert state_of([begun.directory]) != before
        record["outputs"] = []


def test_a_state_needs_no_run(tmp_path: Path) -> None:
    assert state_of([tmp_path]) == state_of([tmp_path / "nothing"])
    with pytest.raises(RunError):
        Run.open(tmp_path)


def test_a_page_that_takes_long_is_made_seldom_and_never_lost(begun: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten million steps take minutes to be read: the training needs the processor more than the page does."""
    now = [100.0]
    monkeypatch.setattr("chrysalis_mlx.report.watch.time.monotonic", lambda: now[0])
    made: list[str] = []

    def page(state: str) -> str:
        now[0] += 2.0
        made.append(state)
        return f"page {len(made)}"

    with serving(WatchServer([begun.directory], page)) as server:
        assert ask(server)[2] == "page 1"
        begun.path("evaluation.json").write_text("{}")
        now[0] += 17.0
        assert (ask(server, "/state")[2], ask(server)[2]) == (made[0], "page 1")  # they still agree
        now[0] += 2.0
        assert ask(server, "/state")[2] == state_of([begun.directory]) != made[0]
        assert ask(server)[2] == "page 2"


def test_clients_that_say_nothing_do_not_stay(begun: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chrysalis_mlx.report.watch._Handler.timeout", 0.5)
    before = threading.active_count()
    with serving(WatchServer([begun.directory], lambda state: "page")) as server:
        silent = [socket.create_connection(server.server_address[:2], timeout=30) for _ in range(60)]
        for number, connection in enumerate(silent):
            connection.sendall(b"GET / HTTP/1.1\r\nHost: " if number % 2 else b"")
        assert ask(server)[0] == 200
        assert [connection.recv(100) for connection in silent] == [b""] * 60
        for connection in silent:
            connection.close()
    assert threading.active_count() == before


def test_a_client_that_does_not_read_is_left_without_a_word(
    begun: Run, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("chrysalis_mlx.report.watch._Handler.timeout", 0.2)
    before = threading.active_count()
    server = WatchServer([begun.directory], lambda state: "x" * (32 << 20))
    with serving(server), socket.create_connection(server.server_address[:2]) as connection:
        connection.sendall(f"GET / HTTP/1.0\r\nHost: 127.0.0.1:{server.server_address[1]}\r\n\r\n".encode())
        assert ask(server)[0] == 200
        for _ in range(500):
            if threading.active_count() == before + 1:  # the server's own
                break
            threading.Event().wait(0.02)
        assert threading.active_count() == before + 1
    assert capfd.readouterr().err == ""


def test_a_run_that_is_deleted_and_replaced_meanwhile(begun: Run) -> None:
    def page(state: str) -> str:
        return Run.open(begun.directory).record["name"]

    begun.record["name"] = "first"
    begun.save()
    with serving(WatchServer([begun.directory], page)) as server:
        first = ask(server, "/state")[2]
        assert ask(server)[2] == "first"
        shutil.rmtree(begun.directory)
        assert ask(server, "/state")[2] != first
        status, _, text = ask(server)
        assert (status, text.split("\n")[0]) == (503, "this is not a run directory")
        begun.path("run.json").parent.mkdir()
        begun.path("run.json").write_text('{"schema": 1, "stages": true, "name": "second"}')
        assert ask(server)[2] == "second"
