"""What a genome is made of, file by file."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from chrysalis_mlx.genome.text import read_genome


def lineage(genome: Path) -> Iterator[dict[str, Any]]:
    """Repository, path, size in bytes and sha256 of every file of a genome, in its order."""
    for file in read_genome(genome):
        content = file.text.encode("utf-8", "surrogatepass")
        digest = hashlib.sha256(content).hexdigest()
        yield {"repository": file.repository, "path": file.path, "bytes": len(content), "sha256": digest}
