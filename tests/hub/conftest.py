"""A Hub of this machine, and a run to push to it."""

from __future__ import annotations

import shutil
import time
import types
from collections.abc import Iterator
from pathlib import Path

import huggingface_hub
import pytest
from huggingface_hub import constants

from chrysalis_mlx.run import Run
from tests.hub.runs import finish_all
from tests.hub.server import WRITER, Hub


@pytest.fixture
def hub() -> Iterator[Hub]:
    """Empty at the beginning of every test."""
    with Hub().running() as running:
        yield running


@pytest.fixture(scope="session")
def all_of_a_run(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """The folder of a run with everything; nobody writes to it."""
    folder = tmp_path_factory.mktemp("pushable")
    finish_all(folder, tiny_model)
    return folder


@pytest.fixture
def run(all_of_a_run: Path, tmp_path: Path) -> Run:
    """A copy to change."""
    return Run.open(Path(shutil.copytree(all_of_a_run / "run", tmp_path / "run")))


@pytest.fixture
def logged_in(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """The client of this process speaks to the Hub of this machine, as somebody who may write, and does not wait."""
    monkeypatch.setattr(constants, "ENDPOINT", hub.url)
    monkeypatch.setattr(
        constants, "HUGGINGFACE_CO_URL_TEMPLATE", f"{hub.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    )
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    for name in ("HF_TOKEN_PATH", "HF_HUB_CACHE", "AGENT_HARNESSES_PATH"):
        monkeypatch.setattr(constants, name, str(tmp_path / "home" / name))
    monkeypatch.setenv("HF_TOKEN", WRITER)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    at_once = types.SimpleNamespace(**(vars(time) | {"sleep": lambda seconds: None}))
    monkeypatch.setattr("huggingface_hub.utils._http.time", at_once)
    yield hub
    huggingface_hub.close_session()
