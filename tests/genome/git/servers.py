"""Real git servers on loopback: `git daemon`, and an HTTP server around git's http-backend that can fail on demand."""

from __future__ import annotations

import gzip
import os
import select
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote_to_bytes

import pytest


def backend(name: str) -> Path:
    """One of git's own programs; the test is skipped where it is not installed."""
    folder = subprocess.run(["git", "--exec-path"], check=True, capture_output=True, text=True).stdout.strip()
    if not (Path(folder) / name).exists():
        pytest.skip(f"{name} is not among git's programs in {folder}")
    return Path(folder) / name


class HttpServer(ThreadingHTTPServer):
    """Serves the repositories below `root`. A transfer is the request that brings a pack.

    Attributes:
        requests: method and path of every request so far; `transfers` counts the transfers among them.
        refuse: status of each of the next requests, before anything else is done.
        cut: how many of the next transfers are cut in the middle.
        hold: transfers stop in the middle, tell so by `holding`, and go on when `released` is set;
            `abandoned` is set when the client goes away first.
        protocol: 0 or 2, the highest that the server speaks.
        redirect: where every request is sent to.
        complaint: what every request is answered with, as an error of the remote.
    """

    daemon_threads = True

    def __init__(self, root: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.root, self.program = root, backend("git-http-backend")
        self.requests: list[str] = []
        self.transfers, self.cut, self.protocol = 0, 0, 2
        self.refuse: list[int] = []
        self.hold = False
        self.redirect = ""
        self.complaint = b""
        self.holding, self.released, self.abandoned = threading.Event(), threading.Event(), threading.Event()

    def url(self, name: str) -> str:
        return f"http://127.0.0.1:{self.server_port}/{name}"

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that was killed is what the tests are about."""


class _Handler(BaseHTTPRequestHandler):
    server: HttpServer

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        server = self.server
        server.requests.append(f"{self.command} {self.path}")
        if server.refuse:
            status = server.refuse.pop(0)
            self.send_response(status)
            if status == 401:
                self.send_header("WWW-Authenticate", 'Basic realm="t"')
            self.send_header("Content-Length", "0")
            self.end_headers()
        elif server.redirect:
            self.send_response(302)
            self.send_header("Location", server.redirect)
            self.send_header("Content-Length", "0")
            self.end_headers()
        elif server.complaint:
            packet = b"ERR " + server.complaint
            self.send_response(200)
            self.send_header("Content-Type", "application/x-git-upload-pack-advertisement")
            self.end_headers()
            self.wfile.write(b"001e# service=git-upload-pack\n0000%04x%s" % (len(packet) + 4, packet))
        else:
            self._answer()

    do_POST = do_GET  # noqa: N815

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        head, _, content = self._backend(body).partition(b"\r\n\r\n")
        fields = dict(line.split(": ", 1) for line in head.decode().split("\r\n"))
        self.send_response(int(fields.pop("Status", "200").split()[0]))
        for name, value in fields.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if b"want " in body:
            self._transfer(content)
        else:
            self.wfile.write(content)

    def _transfer(self, content: bytes) -> None:
        server = self.server
        server.transfers += 1
        half = len(content) // 2
        self.wfile.write(content[:half])
        self.wfile.flush()
        if server.cut:
            server.cut -= 1
            self.connection.shutdown(socket.SHUT_RDWR)
            return
        if server.hold:
            server.holding.set()
            while not server.released.wait(0.02):
                if self._is_left():
                    server.abandoned.set()
                    return
        self.wfile.write(content[half:])

    def _is_left(self) -> bool:
        try:
            return bool(select.select([self.connection], [], [], 0)[0]) and not self.connection.recv(1, socket.MSG_PEEK)
        except ConnectionResetError:  # it went with bytes unread
            return True

    def _backend(self, body: bytes) -> bytes:
        path, _, query = self.path.partition("?")
        about = {
            "GIT_PROJECT_ROOT": str(self.server.root),
            "GIT_HTTP_EXPORT_ALL": "1",
            "REQUEST_METHOD": self.command,
            "PATH_INFO": os.fsdecode(unquote_to_bytes(path.encode("latin-1"))),
            "QUERY_STRING": query,
            "CONTENT_TYPE": self.headers.get("Content-Type") or "",
            "CONTENT_LENGTH": str(len(body)),
            "REMOTE_ADDR": "127.0.0.1",
        }
        if self.server.protocol == 2:
            about["GIT_PROTOCOL"] = self.headers.get("Git-Protocol") or ""
        done = subprocess.run([self.server.program], input=body, capture_output=True, env={**os.environ, **about})
        return done.stdout


@contextmanager
def http_server(root: Path) -> Iterator[HttpServer]:
    server = HttpServer(root)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.released.set()
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def git_daemon(root: Path) -> Iterator[str]:
    """The URL under which `git daemon` serves the repositories below `root`."""
    backend("git-daemon")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen(
        ["git", "daemon", "--export-all", "--reuseaddr", "--listen=127.0.0.1", f"--port={port}", f"--base-path={root}"],
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        for _ in range(200):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.02)
        yield f"git://127.0.0.1:{port}"
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait()


@pytest.fixture
def served(tmp_path: Path) -> Path:
    """The folder whose repositories the servers of a test serve."""
    folder = tmp_path / "served"
    folder.mkdir()
    return folder


@pytest.fixture
def http(served: Path) -> Iterator[HttpServer]:
    with http_server(served) as server:
        yield server


@pytest.fixture
def daemon(served: Path) -> Iterator[str]:
    with git_daemon(served) as url:
        yield url
