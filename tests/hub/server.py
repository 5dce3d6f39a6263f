"""A Hub on 127.0.0.1 that speaks the calls of huggingface_hub: repositories, uploads through Git LFS, downloads.

Large files go to and come from a second server, as with the real Hub, whose storage is another host: it refuses every
request that carries a token. What is sent is checked as the Hub checks it (sizes, sha256, the commit's operations, who
may write), and kept, so that it can be downloaded again. Faults can be told to happen. Every request is remembered.
"""

from __future__ import annotations

import base64
import json
import re
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import yaml

from tests.hub.store import Account, Repository, git_oid, is_large, sha256
from tests.serving import serving

WRITER, READER = "hf_writer", "hf_reader"


@dataclass(frozen=True)
class Request:
    """One request: `server` is hub or storage, `size` that of its body."""

    server: str
    method: str
    path: str
    query: Mapping[str, list[str]]
    headers: Mapping[str, str]
    size: int

    @property
    def line(self) -> str:
        return f"{self.method} {self.path}"


@dataclass
class Fault:
    """What goes wrong with requests whose `METHOD /path` matches.

    Attributes:
        status: that is answered instead; 0: the true answer, of which only the first `cut` bytes are sent.
        times: how often; later requests are served.
    """

    pattern: str
    status: int = 0
    times: int = 1
    cut: int = 0
    headers: Mapping[str, str] | None = None
    message: str = "a fault"


class Hub:
    """Two servers and what they hold.

    Attributes:
        accounts: token to who has it.
        objects: the storage: sha256 to content.
        part_bytes: files larger than this are asked for in parts; 0: never.
        card_warning: what the Hub says about every card.
    """

    def __init__(self) -> None:
        self.accounts = {
            WRITER: Account("me", frozenset({"me", "org"})),
            READER: Account("reader", frozenset({"reader"})),
        }
        self.repositories: dict[str, Repository] = {}
        self.objects: dict[str, bytes] = {}
        self.parts: dict[tuple[str, int], bytes] = {}
        self.part_bytes = 0
        self.card_warning: str | None = None
        self.faults: list[Fault] = []
        self.requests: list[Request] = []
        self.crashes: list[BaseException] = []
        self.lock = threading.Lock()
        self.front, self.storage = _Server(self, "hub"), _Server(self, "storage")

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.front.server_port}"

    @property
    def storage_url(self) -> str:
        return f"http://127.0.0.1:{self.storage.server_port}"

    def add(self, repository: Repository) -> Repository:
        self.repositories[repository.name] = repository
        return repository

    def lines(self, server: str | None = None) -> list[str]:
        """`METHOD /path` of every request."""
        return [request.line for request in self.requests if server in (None, request.server)]

    def environment(self, home: object, token: str | None = None) -> dict[str, str]:
        """What makes a process of its own use this Hub, and no other place."""
        settings = {
            "HF_ENDPOINT": self.url,
            "HF_HOME": str(home),
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "NO_PROXY": "127.0.0.1",
            "no_proxy": "127.0.0.1",
        }
        return settings | ({"HF_TOKEN": token} if token else {})

    @contextmanager
    def running(self) -> Iterator[Hub]:
        try:
            with serving(self.front), serving(self.storage):
                yield self
        finally:
            for crash in self.crashes:
                raise crash


class _Server(ThreadingHTTPServer):
    def __init__(self, hub: Hub, kind: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.hub, self.kind = hub, kind

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is no error of the server; anything else fails the test at its end."""
        error = sys.exception()
        if error is not None and not isinstance(error, ConnectionError):
            self.hub.crashes.append(error)


class _RefusedError(Exception):
    def __init__(self, status: int, message: str, **headers: str) -> None:
        super().__init__(message)
        self.status, self.headers = status, headers


_Route = Callable[..., None]
_ROUTES: list[tuple[str, re.Pattern[str], _Route]] = []


def _route(pattern: str) -> Callable[[_Route], _Route]:
    server, method, path = pattern.split(" ")

    def added(function: _Route) -> _Route:
        _ROUTES.append((f"{server} {method}", re.compile(path), function))
        return function

    return added


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def do_GET(self) -> None:
        self._serve()

    def do_HEAD(self) -> None:
        self._serve()

    def do_POST(self) -> None:
        self._serve()

    def do_PUT(self) -> None:
        self._serve()

    def log_message(self, format: str, *args: object) -> None:
        """Requests are remembered, not printed."""

    @property
    def hub(self) -> Hub:
        return self.server.hub

    def _serve(self) -> None:
        url = urlsplit(self.path)
        self.body, self.cut = self._read_body(), 0
        headers = {name.lower(): value for name, value in self.headers.items()}
        query, size = parse_qs(url.query), len(self.body)
        self.request_seen = Request(self.server.kind, self.command, unquote(url.path), query, headers, size)
        # As it came: a slash in a branch's name is escaped in it.
        try:
            with self.hub.lock:
                self.hub.requests.append(self.request_seen)
                self._inject()
                for kind, pattern, function in _ROUTES:
                    found = pattern.fullmatch(url.path)
                    if found and kind in (f"{self.server.kind} {self.command}", f"{self.server.kind} {self._as_get()}"):
                        return function(
                            self, **{name: unquote(value) for name, value in found.groupdict().items() if value}
                        )
                raise _RefusedError(404, "not found", **{"X-Error-Code": "EntryNotFound"})
        except _RefusedError as refusal:
            self.answer({"error": str(refusal)}, refusal.status, **refusal.headers)

    def _as_get(self) -> str:
        return "GET" if self.command == "HEAD" else self.command

    def _read_body(self) -> bytes:
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        found = b""
        while size := int(self.rfile.readline(), 16):
            found += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return found

    def _inject(self) -> None:
        for fault in self.hub.faults:
            if fault.times and re.fullmatch(fault.pattern, self.request_seen.line):
                fault.times -= 1
                if fault.status:
                    raise _RefusedError(fault.status, fault.message, **(fault.headers or {}))
                self.cut = fault.cut

    def answer(self, content: Any, status: int = 200, **headers: str) -> None:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body[: self.cut] if self.cut else body)

    def json(self) -> Any:
        return json.loads(self.body)

    def account(self) -> Account | None:
        """Who asks."""
        word = self.request_seen.headers.get("authorization", "").removeprefix("Bearer ")
        if word and word not in self.hub.accounts:
            raise _RefusedError(
                401, "no such token", **{"X-Error-Message": "Invalid credentials in Authorization header"}
            )
        return self.hub.accounts.get(word)

    def writer(self, owner: str) -> Account:
        account = self.account()
        if account is None:
            raise _RefusedError(401, "who are you?")
        if owner not in account.writes:
            raise _RefusedError(
                403, "no right to write", **{"X-Error-Message": f"You have no right to write to {owner}"}
            )
        return account

    def repository(self, name: str) -> Repository:
        """A repository that the account may know of."""
        found, account = self.hub.repositories.get(name), self.account()
        if found is None or (found.private and (account is None or found.owner not in account.writes)):
            raise _RefusedError(404 if account else 401, "no such repository", **{"X-Error-Code": "RepoNotFound"})
        return found

    def commit_of(self, repository: Repository, revision: str) -> str:
        found = repository.resolve(revision)
        if found is None:
            raise _RefusedError(404, "no such revision", **{"X-Error-Code": "RevisionNotFound"})
        return found


_ID = r"(?P<name>[^/]+/[^/]+)"


@_route("hub GET /api/whoami-v2")
def _whoami(handler: _Handler) -> None:
    account = handler.account()
    if account is None:
        raise _RefusedError(401, "who are you?")
    handler.answer({"type": "user", "name": account.name, "orgs": []})


@_route("hub POST /api/repos/create")
def _create(handler: _Handler) -> None:
    asked = handler.json()
    account = handler.writer(asked["organization"])
    name = f"{asked['organization'] or account.name}/{asked['name']}"
    if name in handler.hub.repositories:
        raise _RefusedError(409, "it is there already")
    private = asked.get("visibility", "private" if asked.get("private") else "public") == "private"
    handler.hub.add(Repository.empty(name, private=private))
    handler.answer({"url": f"{handler.hub.url}/{name}", "name": name})


@_route(rf"hub GET /api/models/{_ID}(?:/revision/(?P<revision>[^/]+))?")
def _info(handler: _Handler, name: str, revision: str = "main") -> None:
    repository = handler.repository(name)
    commit = handler.commit_of(repository, revision)
    siblings = [{"rfilename": path} for path in repository.commits[commit]]
    told = {"id": name, "modelId": name, "sha": commit, "siblings": siblings}
    handler.answer(told | {"private": repository.private, "gated": "manual" if repository.gated else False})


@_route(rf"hub GET /api/models/{_ID}/tree/(?P<revision>[^/]+)")
def _tree(handler: _Handler, name: str, revision: str) -> None:
    repository = handler.repository(name)
    entries = []
    for path, content in repository.commits[handler.commit_of(repository, revision)].items():
        entry: dict[str, Any] = {"type": "file", "path": path, "oid": git_oid(content), "size": len(content)}
        if is_large(path, len(content)):
            entry["lfs"] = {"oid": sha256(content), "size": len(content), "pointerSize": 134}
        entries.append(entry)
    handler.answer(entries)


@_route(rf"hub POST /api/models/{_ID}/branch/(?P<branch>[^/]+)")
def _branch(handler: _Handler, name: str, branch: str) -> None:
    repository = handler.repository(name)
    handler.writer(repository.owner)
    if branch in repository.branches:
        raise _RefusedError(409, "it is there already")
    repository.branches[branch] = repository.head
    handler.answer({})


@_route("hub POST /api/validate-yaml")
def _validate(handler: _Handler) -> None:
    asked = handler.json()
    front = asked["content"].split("---\n", 2)
    data = yaml.safe_load(front[1]) if len(front) == 3 else {}
    errors = (
        [] if isinstance(data.get("tags", []), list) and "license" in data else [{"message": '"license" is needed'}]
    )
    warnings = [{"message": handler.hub.card_warning}] if handler.hub.card_warning else []
    handler.answer({"errors": errors, "warnings": warnings}, 400 if errors else 200)


@_route(rf"hub POST /api/models/{_ID}/preupload/(?P<revision>[^/]+)")
def _preupload(handler: _Handler, name: str, revision: str) -> None:
    repository = handler.repository(name)
    _require_writer(handler, repository)
    files = repository.commits[handler.commit_of(repository, revision)]
    told = []
    for file in handler.json()["files"]:
        path, sample = file["path"], base64.b64decode(file["sample"])
        large = is_large(path, file["size"], sample)
        known = files.get(path)
        oid = None if known is None else sha256(known) if large else git_oid(known)
        mode = "lfs" if large else "regular"
        told.append({"path": path, "uploadMode": mode, "shouldIgnore": False, "oid": oid})
    handler.answer({"files": told})


def _require_writer(handler: _Handler, repository: Repository) -> None:
    """A pull request is open to everybody who may read."""
    if "create_pr" not in handler.request_seen.query:
        handler.writer(repository.owner)
    elif handler.account() is None:
        raise _RefusedError(401, "who are you?")


@_route(rf"hub POST /{_ID}\.git/info/lfs/objects/batch")
def _batch(handler: _Handler, name: str) -> None:
    handler.repository(name)
    if handler.account() is None:
        raise _RefusedError(401, "who are you?")
    asked, hub = handler.json(), handler.hub
    assert (asked["operation"], asked["hash_algo"]) == ("upload", "sha256")
    told = []
    for item in asked["objects"]:
        oid, size = item["oid"], item["size"]
        entry: dict[str, Any] = {"oid": oid, "size": size}
        if oid not in hub.objects:
            upload: dict[str, Any] = {"href": f"{hub.storage_url}/{oid}?X-Amz-Signature=secret&size={size}"}
            if hub.part_bytes and size > hub.part_bytes:
                count = -(-size // hub.part_bytes)
                numbers = {str(n): f"{hub.storage_url}/{oid}/part/{n}" for n in range(1, count + 1)}
                upload = {"href": f"{hub.url}/{name}.git/complete"}
                upload["header"] = {"chunk_size": str(hub.part_bytes), **numbers}
            entry["actions"] = {"upload": upload, "verify": {"href": f"{hub.url}/{name}.git/verify"}}
        told.append(entry)
    handler.answer({"transfer": "basic", "objects": told})


@_route(r"storage PUT /(?P<oid>[0-9a-f]{64})")
def _store(handler: _Handler, oid: str) -> None:
    _refuse_token(handler)
    size = int(handler.request_seen.query["size"][0])
    if (len(handler.body), sha256(handler.body)) != (size, oid):
        raise _RefusedError(400, "other bytes than were announced")
    handler.hub.objects[oid] = handler.body
    handler.answer({})


@_route(r"storage PUT /(?P<oid>[0-9a-f]{64})/part/(?P<number>\d+)")
def _store_part(handler: _Handler, oid: str, number: str) -> None:
    _refuse_token(handler)
    handler.hub.parts[oid, int(number)] = handler.body
    handler.answer({}, ETag=f'"{sha256(handler.body)}"')


@_route(rf"hub POST /{_ID}\.git/complete")
def _complete(handler: _Handler, name: str) -> None:
    asked, content = handler.json(), b""
    for part in asked["parts"]:
        found = handler.hub.parts.pop((asked["oid"], part["partNumber"]))
        assert part["etag"] == f'"{sha256(found)}"'
        content += found
    if sha256(content) != asked["oid"]:
        raise _RefusedError(400, "other bytes than were announced")
    handler.hub.objects[asked["oid"]] = content
    handler.answer({})


@_route(rf"hub POST /{_ID}\.git/verify")
def _verify(handler: _Handler, name: str) -> None:
    asked = handler.json()
    if len(handler.hub.objects.get(asked["oid"], b"")) != asked["size"]:
        raise _RefusedError(404, "it has not arrived")
    handler.answer({})


@_route(rf"hub POST /api/models/{_ID}/commit/(?P<branch>[^/]+)")
def _commit(handler: _Handler, name: str, branch: str) -> None:
    repository = handler.repository(name)
    _require_writer(handler, repository)
    parent = handler.commit_of(repository, branch)
    assert handler.request_seen.headers["content-type"] == "application/x-ndjson"
    header, *operations = [json.loads(line) for line in handler.body.splitlines()]
    assert header["key"] == "header"
    changes = dict(_change(handler, operation) for operation in operations)
    number = sum(known.startswith("refs/pr/") for known in repository.branches) + 1
    is_pull_request = "create_pr" in handler.request_seen.query
    target = f"refs/pr/{number}" if is_pull_request else branch
    commit = repository.commit(target, changes, onto=parent)
    repository.log.append((target, header["value"], operations))
    told = {"commitUrl": f"{handler.hub.url}/{name}/commit/{commit}", "commitOid": commit, "success": True}
    pull_request = {"pullRequestUrl": f"{handler.hub.url}/{name}/discussions/{number}"} if is_pull_request else {}
    handler.answer(told | pull_request)


def _change(handler: _Handler, operation: Mapping[str, Any]) -> tuple[str, bytes]:
    value = operation["value"]
    if operation["key"] == "file":
        content = base64.b64decode(value["content"])
        if is_large(value["path"], len(content), content[:512]):
            raise _RefusedError(400, f"{value['path']} belongs into the storage")
        return value["path"], content
    assert (operation["key"], value["algo"]) == ("lfsFile", "sha256")
    found = handler.hub.objects.get(value["oid"])
    if found is None or len(found) != value["size"]:
        raise _RefusedError(400, f"the content of {value['path']} was not uploaded")
    return value["path"], found


@_route(rf"hub GET /{_ID}/resolve/(?P<revision>[^/]+)/(?P<path>.+)")
def _resolve(handler: _Handler, name: str, revision: str, path: str) -> None:
    repository = handler.repository(name)
    account = handler.account()
    if repository.gated and (account is None or account.name not in repository.granted):
        raise _RefusedError(403 if account else 401, "it is gated", **{"X-Error-Code": "GatedRepo"})
    commit = handler.commit_of(repository, revision)
    content = repository.commits[commit].get(path)
    told = {"X-Repo-Commit": commit}
    if content is None:
        raise _RefusedError(404, "no such file", **told, **{"X-Error-Code": "EntryNotFound"})
    if not is_large(path, len(content)):
        return handler.answer(content, ETag=f'"{git_oid(content)}"', **told)
    handler.hub.objects[sha256(content)] = content
    told |= {"X-Linked-Etag": f'"{sha256(content)}"', "X-Linked-Size": str(len(content))}
    return handler.answer(b"", 302, Location=f"{handler.hub.storage_url}/{sha256(content)}", **told)


@_route(r"storage GET /(?P<oid>[0-9a-f]{64})")
def _fetch(handler: _Handler, oid: str) -> None:
    _refuse_token(handler)
    content, wanted = handler.hub.objects[oid], handler.request_seen.headers.get("range")
    if wanted is None:
        return handler.answer(content)
    first = int(wanted.removeprefix("bytes=").rstrip("-"))
    span = f"bytes {first}-{len(content) - 1}/{len(content)}"
    return handler.answer(content[first:], 206, **{"Content-Range": span})


def _refuse_token(handler: _Handler) -> None:
    """The storage knows signed URLs, and a token that reaches it has leaked."""
    if "authorization" in handler.request_seen.headers:
        raise _RefusedError(400, "only one way to authenticate is allowed")
