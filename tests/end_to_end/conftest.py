"""Inputs shared by the end-to-end tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.end_to_end.inputs import write_inputs


@pytest.fixture(scope="session")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with genome.txt and blueprint.yaml; nobody writes to it."""
    directory = tmp_path_factory.mktemp("inputs")
    write_inputs(directory)
    return directory
