"""Requests to llama.cpp's server, answered in one piece or as a stream of events."""

from __future__ import annotations

import http.client
import json
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

_REQUEST_SECONDS = 900.0  # one long prompt through a 7B model on a slow processor


class RefusedError(Exception):
    """llama.cpp answered a request with an error; its text is llama.cpp's."""


class Client:
    """Speaks to one server. No proxy of the environment comes between.

    Args:
        address: `http://HOST:PORT`.
        key: what the server asks for.

    Raises:
        RefusedError: by every method: the server refused, and said why.
        OSError, ValueError: by every method: it does not answer, or not in JSON.
    """

    def __init__(self, address: str, key: str) -> None:
        self._host = address.removeprefix("http://")
        self._headers = {"Content-Type": "application/json", "Authorization": f"Bearer {key}"}

    def get(self, path: str) -> Any:
        """What a GET request gives."""
        with self._answer("GET", path, None) as answer:
            return json.load(answer)

    def post(self, path: str, body: Mapping[str, Any]) -> Any:
        """What a POST request gives."""
        with self._answer("POST", path, body) as answer:
            return json.load(answer)

    def stream(self, path: str, body: Mapping[str, Any]) -> Generator[Any, None, None]:
        """The events of a POST request, as they come. Closing the iterator stops llama.cpp's work on it."""
        with self._answer("POST", path, {**body, "stream": True}) as answer:
            for line in answer:
                kind, _, content = line.partition(b": ")
                if kind not in (b"data", b"error") or content.startswith(b"[DONE]"):
                    continue
                event = json.loads(content)
                if kind == b"error" or "error" in event:
                    raise RefusedError(_message(content))
                yield event

    @contextmanager
    def _answer(self, method: str, path: str, body: Mapping[str, Any] | None) -> Iterator[http.client.HTTPResponse]:
        connection = http.client.HTTPConnection(self._host, timeout=_REQUEST_SECONDS)
        try:
            content = None if body is None else json.dumps(body).encode()
            connection.request(method, path, content, self._headers)
            answer = connection.getresponse()
            if answer.status != http.client.OK:
                raise RefusedError(_message(answer.read()))
            yield answer
        except http.client.HTTPException as error:  # what is no HTTP, or ends too early
            raise OSError(f"{type(error).__name__}: {error}") from error
        finally:
            connection.close()


def _message(body: bytes) -> str:
    try:
        content = json.loads(body)
        return str(content.get("error", content)["message"])
    except (ValueError, KeyError, TypeError, AttributeError):
        return body.decode("utf-8", errors="replace")
