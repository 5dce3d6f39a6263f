"""A full disk and a full memory are told in words that help, and leave the last checkpoint whole."""

from __future__ import annotations

import errno
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors import SafetensorError

from chrysalis_mlx.errors import TrainingError
from chrysalis_mlx.training.failures import explained
from tests.training.engines import CountingEngine
from tests.training.runs import Training


@pytest.fixture
def training(tmp_path: Path) -> Training:
    return Training(tmp_path / "training")


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        MemoryError("Unable to allocate 3.2 GiB for an array with shape (1, 1)"),
        RuntimeError("[metal::malloc] Attempting to allocate 99 bytes which is greater than the maximum"),
        RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB\nmore"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."),
        RuntimeError("[malloc_or_wait] Unable to allocate 9 bytes."),
    ],
)
def test_a_full_memory_says_what_to_lower(training: Training, error: Exception) -> None:
    with pytest.raises(TrainingError) as caught:
        training(CountingEngine(raises={5: error}))
    for part in ("the memory is full", "batch_size", "row_length", "gradient_checkpointing", "chrysalis-mlx plan"):
        assert part in str(caught.value)
    assert (str(error).splitlines() or ["MemoryError"])[0] in str(caught.value)
    assert "more" not in str(caught.value).splitlines()
    assert training.standing == [2, 3, 4]
    assert training(CountingEngine()).resumed_at == 4


@pytest.mark.parametrize("error", [RuntimeError("shapes do not match"), ValueError("out of memory"), OSError("broken")])
def test_other_errors_stay_what_they_are(training: Training, error: Exception) -> None:
    with pytest.raises(type(error), match=str(error)):
        training(CountingEngine(raises={5: error}))


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_names_the_directory_and_the_bytes(training: Training, number: int) -> None:
    def full(step: int) -> None:
        if step == 4:
            raise OSError(number, "No space left on device")

    training.on_save = full
    with pytest.raises(TrainingError) as caught:
        training(CountingEngine())
    assert "a checkpoint needs 16 bytes" in str(caught.value)
    assert f"where: {training.directory}" in str(caught.value)
    assert "free some space" in str(caught.value)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EFBIG])
def test_what_safetensors_makes_of_a_full_disk_is_known(tmp_path: Path, number: int) -> None:
    text = f"Error while serializing: I/O error: File too large (os error {number})"
    with pytest.raises(TrainingError, match="there is no room"), explained(tmp_path, lambda: 1):
        raise SafetensorError(text)
    with pytest.raises(SafetensorError, match="header"), explained(tmp_path, lambda: 1):
        raise SafetensorError("header too large")


LIMITED = """
import resource, sys
from pathlib import Path
import numpy as np
from tests.training.engines import CountingEngine
from tests.training.runs import Training

class Growing(CountingEngine):
    def optimizer_state(self):
        return super().optimizer_state() | {"grown": np.zeros(5000 * (self.steps > 3))}

    def restore(self, arrays, state):
        super().restore(arrays, state)

training = Training(Path(sys.argv[1]))
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
try:
    training(Growing())
finally:
    print(training.standing)
"""


def test_a_file_that_the_disk_has_no_room_for(tmp_path: Path) -> None:
    """The limit of the size of a file stands in for the disk's: the system refuses the very write."""
    command = [sys.executable, "-c", LIMITED, str(tmp_path / "training")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2])
    assert done.returncode == 1
    assert done.stdout == "[0, 2, 3]\n"
    assert "TrainingError: there is no room for what the training writes: " in done.stderr
    assert "a checkpoint needs 40,016 bytes" in done.stderr
    assert not list((tmp_path / "training/checkpoints").glob("*.partial"))
