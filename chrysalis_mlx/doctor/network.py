"""Ollama, and the Hugging Face Hub. Nothing here prints a token, or a password in an address."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import urllib.error
import urllib.request
from typing import Any
from urllib.parse import urlsplit

from chrysalis_mlx.doctor.check import Check, ok, problem, warning
from chrysalis_mlx.doctor.processes import run

SECONDS = 4.0  # for an answer over the network
_OLLAMA_PORT = 11434
_LOOPBACK = ("127.0.0.1", "::1", "localhost")


def ollama(limit: float, *, offline: bool = False) -> Check:
    """Whether Ollama is installed, and its server answers. It is optional.

    Args:
        limit: seconds that the program may take to tell its version.
        offline: ask a server on this machine only.
    """
    name = "ollama"
    asked = os.environ.get("OLLAMA_HOST", "")
    try:
        address, loopback = ollama_address(asked)
    except ValueError as error:
        return warning(name, f"OLLAMA_HOST is no address: {error}", "write HOST:PORT, or unset it")
    program = shutil.which("ollama")
    served = None if offline and not loopback else _ollama_version(address)
    if served:
        client = "" if program else "; the program ollama is not on this machine, and --ollama needs it"
        return ok(name, f"{served} serves at {address}{client}")
    if program is None:
        found = "not installed; only to run a model in Ollama it is needed"
        return warning(name, found, "install it from https://ollama.com/download, or: brew install ollama")
    ended = run([program, "--version"], limit)
    version = re.search(r"\d+(?:\.\d+)+", ended.out + ended.err)
    if version is None:
        return warning(name, f"{program} does not work: {ended.reason}", "install it again")
    if offline and not loopback:
        return ok(name, f"{version[0]}, {program}; its server at {address} was not asked (offline)")
    return warning(name, f"{version[0]}, {program}; its server at {address} does not answer", "start it: ollama serve")


def ollama_address(host: str) -> tuple[str, bool]:
    """The URL that OLLAMA_HOST means, and whether it is on this machine (envconfig.Host of ollama/ollama).

    Raises:
        ValueError: it means none.
    """
    scheme, found, rest = host.strip().strip("\"'").rpartition("://")
    port = {"http": 80, "https": 443}.get(scheme, _OLLAMA_PORT) if found else _OLLAMA_PORT
    parts = urlsplit(f"//{rest}")
    name = parts.hostname or "127.0.0.1"
    if name in ("0.0.0.0", "::"):  # where a server listens; one asks it here
        name = "127.0.0.1"
    shown = f"[{name}]" if ":" in name else name
    return f"{scheme or 'http'}://{shown}:{parts.port or port}{parts.path.rstrip('/')}", name in _LOOPBACK


def _ollama_version(address: str) -> str | None:
    # No proxy: the server is on this machine or beside it.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with contextlib.suppress(OSError, ValueError):
        with opener.open(f"{address}/api/version", timeout=SECONDS) as answer:
            told = json.load(answer)
        if isinstance(told, dict) and told.get("version"):
            return str(told["version"])
    return None


def hub(*, offline: bool = False) -> Check:
    """Whether the Hub, or what HF_ENDPOINT names instead, is an address and answers.

    Args:
        offline: do not ask.
    """
    name = "hub"
    url, shown = _endpoint()
    if shown is None:
        found = "HF_ENDPOINT is no address that begins with http:// or https://"
        return problem(name, found, "write https://HOST, or unset it")
    found = f"{shown} (HF_ENDPOINT)" if os.environ.get("HF_ENDPOINT") else shown
    if reason := _why_offline(offline):
        return ok(name, f"{found}, not asked ({reason})")
    try:
        status = _get(f"{url}/api/models?limit=1").status_code
    except Exception as error:  # the Hub's client hands on whatever its HTTP library raises
        fix = "check the network and the proxy, or name a mirror in HF_ENDPOINT; models that are here work without it"
        return warning(name, f"{found} does not answer: {_told(error, url)}", fix)
    if status >= 500:
        return warning(name, f"{found} answers with the status {status}", "try again later")
    return ok(name, f"{found} answers")


def login(*, offline: bool = False) -> Check:
    """Whether there is a token of the Hub, and the Hub takes it.

    Args:
        offline: do not ask.
    """
    from huggingface_hub import get_token

    name, token = "hub login", get_token()
    log_in = "make a token at https://huggingface.co/settings/tokens, then: hf auth login"
    if token is None:
        return warning(name, "no token: public models only, and no push", log_in)
    url, shown = _endpoint()
    if shown is None:
        return warning(name, "a token, not asked: HF_ENDPOINT is no address", "see hub")
    if reason := _why_offline(offline):
        return ok(name, f"a token, not asked ({reason})")
    try:
        answer = _get(f"{url}/api/whoami-v2", token)
        told: Any = answer.json() if answer.status_code == 200 else {}
    except Exception as error:  # as above
        return warning(name, f"a token; {shown} does not say whose: {_told(error, url)}", "check the network")
    if answer.status_code == 401:
        fix = f"{log_in} (HF_TOKEN in the environment counts first); or log out: hf auth logout"
        return problem(name, "the token is not valid, and with it even public models are refused", fix)
    if not isinstance(told, dict) or "name" not in told:
        found = f"a token; {shown} does not say whose (status {answer.status_code})"
        return warning(name, found, "try again later")
    role = ((told.get("auth") or {}).get("accessToken") or {}).get("role")
    if role == "read":
        return ok(name, f"{told['name']}; the token may read and not push")
    return ok(name, f"{told['name']}{f'; a token of the kind {role}' if role else ''}")


def _endpoint() -> tuple[str, str | None]:
    """The Hub's address, and how it is shown; None where it is no address."""
    from huggingface_hub import constants

    url = constants.ENDPOINT.rstrip("/")
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        return url, None
    if parts.scheme not in ("http", "https") or not host:
        return url, None
    shown = f"[{host}]" if ":" in host else host
    return url, f"{parts.scheme}://{shown}{f':{port}' if port else ''}{parts.path}"


def _why_offline(offline: bool) -> str | None:
    from huggingface_hub import constants

    return "--offline" if offline else "HF_HUB_OFFLINE" if constants.HF_HUB_OFFLINE else None


def _get(url: str, token: str | None = None) -> Any:
    """An answer of the Hub, through the client that downloads models: with its proxies and certificates."""
    from huggingface_hub import get_session

    headers = {"Authorization": f"Bearer {token}"} if token else {}
    return get_session().get(url, headers=headers, timeout=SECONDS)


def _told(error: Exception, url: str) -> str:
    """The first line of what it says, without an address that may hold a password."""
    first = str(error).replace(url, "it").strip().partition("\n")[0]
    return first or type(error).__name__
