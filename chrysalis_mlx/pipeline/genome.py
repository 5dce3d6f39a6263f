"""Stage 1: the genome of a genome.yaml."""

from __future__ import annotations

from pathlib import Path

from chrysalis_mlx.errors import RunError
from chrysalis_mlx.genome.stage import is_built_from, lock_beside, make_genome, read_fresh_lock
from chrysalis_mlx.progress import Progress, silent
from chrysalis_mlx.run import Run


def genome(directory: Path, sources: Path, *, progress: Progress = silent) -> Path:
    """Stage 1: the genome of a genome.yaml, as genome.txt in the run's directory. Its manifest is the stage's record.

    A genome that is there, whole and built from the lock as it is now, is kept.

    Raises:
        GenomeError: a source cannot be used or had.
        RunError: the run was begun with another genome.
    """
    output, lock_file = directory / "genome.txt", lock_beside(sources)
    if output.exists() and lock_file.exists() and is_built_from(read_fresh_lock(lock_file), output):
        return output
    if Run.exists(directory):
        raise RunError(
            "this run was begun with another genome than the one that is locked now",
            where=lock_file,
            fix="use a new run directory, or leave out --sources to go on with the run's own genome",
        )
    make_genome(sources, output, progress=progress)
    return output
