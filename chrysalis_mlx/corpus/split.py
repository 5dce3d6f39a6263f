"""Which documents are trained on, validated on and tested on."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from chrysalis_mlx.blueprint.schema import SplitSection
from chrysalis_mlx.errors import CorpusError

SIDES = ("train", "valid", "test")


def split_documents(digests: Sequence[str], section: SplitSection) -> list[str]:
    """The side of every document, by its content's digest.

    Documents are ranked by sha256(seed, digest); the first go to test, the next to valid. So the order of the genome
    plays no part, and a new document moves few others.

    Raises:
        CorpusError: fewer than three documents.
    """
    if len(digests) < len(SIDES):
        raise CorpusError(
            f"{len(digests)} document(s) are left after expression; train, valid and test need one each",
            fix="loosen the blueprint's expression (include, exclude, min_characters) or give a larger genome",
        )
    ranked = sorted(range(len(digests)), key=lambda i: hashlib.sha256(f"{section.seed}:{digests[i]}".encode()).digest())
    test = max(1, round(section.test * len(digests)))
    valid = max(1, round(section.valid * len(digests)))
    sides = ["train"] * len(digests)
    for index in ranked[:test]:
        sides[index] = "test"
    for index in ranked[test : test + valid]:
        sides[index] = "valid"
    return sides
