"""A page that follows a run: served to this machine alone, made anew when the run's files have changed."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Sequence
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from chrysalis_mlx.errors import ChrysalisError, UsageError
from chrysalis_mlx.report.facts import ODD
from chrysalis_mlx.run import STAGES, Run, sha256_json

HOST = "127.0.0.1"
_LONG = 1.0  # seconds; of a page that takes longer to be made
_PAUSE = 9  # times as long pass until the next one is made: the training needs the processor
_FILES = (
    "run.json",
    "blueprint.yaml",
    "genome.json",
    "corpus/expression.json",
    "training/metrics.jsonl",
    "evaluation.json",
    "export/verification.json",
)


def state_of(directories: Sequence[Path]) -> str:
    """Changes when something changes that a report tells: the files of the runs, or that a process is gone."""
    found: list[object] = []
    for directory in directories:
        for name in _FILES:
            try:
                status = (directory / name).stat()
                found.append([status.st_size, status.st_mtime_ns, status.st_ino])
            except OSError:
                found.append([])
        try:
            run = Run.open(directory)
            found.append([run.status(name) for name in STAGES])
        except (ChrysalisError, *ODD):
            found.append([])
    return sha256_json(found)[:16]


class WatchServer(ThreadingHTTPServer):
    """Serves one page at / and the state it shows at /state, to pages of its own only.

    Args:
        directories: of the runs.
        page: makes the page of a state.
        port: 0 takes a free one.

    Raises:
        UsageError: the port cannot be had.
    """

    daemon_threads = True
    request_queue_size = 64  # by default 5: a few tabs at once would wait for seconds

    def __init__(self, directories: Sequence[Path], page: Callable[[str], str], port: int = 0) -> None:
        self._directories, self._page = directories, page
        self._made: tuple[str, str] | None = None
        self._next = 0.0
        self._lock = threading.Lock()
        try:
            super().__init__((HOST, port), _Handler)
        except OSError as error:
            raise UsageError(
                f"port {port} cannot be had: {error.strerror}", where=HOST, fix="name another one; 0 takes a free one"
            ) from error

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that goes away in the middle of an answer is nothing to talk about."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.server_address[1]}/"

    @property
    def hosts(self) -> tuple[str, str]:
        """What a browser calls this server; another name is that of a page that wants to read it from outside."""
        port = self.server_address[1]
        return f"{HOST}:{port}", f"localhost:{port}"

    def state(self) -> str:
        """The state of the runs; for a while after a page that took long to be made, that of the page."""
        if self._made is not None and time.monotonic() < self._next:
            return self._made[0]
        return state_of(self._directories)

    def page(self) -> str:
        """The page of that state; made once for all who ask.

        Raises:
            ChrysalisError: the run cannot be read.
        """
        with self._lock:
            state = self.state()
            if self._made is None or self._made[0] != state:
                begun = time.monotonic()
                self._made = (state, self._page(state))
                ended = time.monotonic()
                self._next = ended + _PAUSE * (ended - begun) if ended - begun > _LONG else 0.0
            return self._made[1]


class _Handler(BaseHTTPRequestHandler):
    server: WatchServer
    timeout = 20.0  # seconds in which a browser says what it wants, and takes the next piece of an answer

    def do_GET(self) -> None:
        if self.headers.get("Host") not in self.server.hosts:
            self._answer("this server answers to its own name only\n", "text/plain", HTTPStatus.MISDIRECTED_REQUEST)
        elif self.path == "/":
            self._answer_page()
        elif self.path == "/state":
            self._answer(self.server.state(), "text/plain")
        else:
            self._answer("there is nothing here\n", "text/plain", HTTPStatus.NOT_FOUND)

    def _answer_page(self) -> None:
        try:
            page = self.server.page()
        except (ChrysalisError, OSError) as error:  # the run is moved, or replaced by another, at this moment
            self._answer(f"{error}\n", "text/plain", HTTPStatus.SERVICE_UNAVAILABLE)
        else:
            self._answer(page, "text/html")

    def _answer(self, text: str, kind: str, status: HTTPStatus = HTTPStatus.OK) -> None:
        body = text.encode("utf-8", "backslashreplace")
        self.send_response(status)
        for name, value in (
            ("Content-Type", f"{kind}; charset=utf-8"),
            ("Content-Length", str(len(body))),
            ("Cache-Control", "no-store"),
            ("X-Content-Type-Options", "nosniff"),
            ("X-Frame-Options", "DENY"),
            ("Referrer-Policy", "no-referrer"),
            ("Cross-Origin-Resource-Policy", "same-origin"),
        ):
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing: the page asks every few seconds."""
