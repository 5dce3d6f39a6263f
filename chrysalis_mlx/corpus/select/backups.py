"""What of the backup repositories is expressed."""

from __future__ import annotations

from collections.abc import Sequence

from chrysalis_mlx.blueprint.schema import CopiesSection
from chrysalis_mlx.corpus.document import Document
from chrysalis_mlx.corpus.select.copies import SHINGLE, Finding
from chrysalis_mlx.corpus.select.words import Hashes, contained, ngram_hashes, union

_KNOWN = 0.5


def judge_backups(
    documents: Sequence[Document], candidates: Sequence[int], section: CopiesSection
) -> dict[int, Finding]:
    """The backups that the policy leaves out, by their place in the list.

    `unique-only` leaves out what has half of its shingles or more in live files and in the backups that stay, all of
    them together. That is not similarity: an older version is short beside the live file it grew into, and may have
    been divided among several. Numbers do not count: of a hundred snapshots of one statistic a few say all.

    Args:
        documents: live and backup, in genome order; live ones too that other rules leave out, for what they hold is no
            less live.
        candidates: places of the documents that no other rule has left out, in curriculum order.
    """
    backups = [number for number in candidates if documents[number].backup]
    if section.backups == "keep" or not backups:
        return {}
    if section.backups == "drop":
        return {number: Finding("backup", None) for number in backups}
    live = (document.text for document in documents if not document.backup)
    known = _Known(union(ngram_hashes(live, SHINGLE, numbers=False)))
    found = {}
    of_backups = ngram_hashes((documents[number].text for number in backups), SHINGLE, numbers=False)
    for number, shingles in zip(backups, of_backups, strict=True):
        if not len(shingles):
            continue
        share = known.share(shingles)
        if share >= _KNOWN:
            found[number] = Finding("backup of known text", share)
        else:
            known.add(shingles)
    return found


class _Known:
    """A set of hashes that grows. Sorted arrays, each larger than those after it: n log n in all."""

    def __init__(self, hashes: Hashes) -> None:
        self._arrays = [hashes]

    def share(self, hashes: Hashes) -> float:
        """How much of these hashes is in the set."""
        seen = contained(hashes, self._arrays[0])
        for array in self._arrays[1:]:
            seen |= contained(hashes, array)
        return float(seen.mean())

    def add(self, hashes: Hashes) -> None:
        self._arrays.append(hashes)
        while len(self._arrays) > 1 and len(self._arrays[-1]) >= len(self._arrays[-2]):
            self._arrays[-2:] = [union(self._arrays[-2:])]
