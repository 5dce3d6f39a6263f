"""One talking run for all tests of this room."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.inference.runs import talking_run


@pytest.fixture(scope="session")
def larva(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run; nobody writes to it."""
    return talking_run(tmp_path_factory.mktemp("talking"))


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Tiny matrices gain nothing from a second thread, and wait long for it on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
