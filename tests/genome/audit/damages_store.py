"""Damages of a clone and which levels of the audit have to see them, the other part: git's index and objects."""

from __future__ import annotations

import os
import shutil

from tests.genome.audit.clones import PLAIN, World, feed, flip
from tests.genome.audit.damages import CASES, sees
from tests.genome.repositories import git

__all__ = ["CASES"]


@sees(L3="untracked: plain-011.md")
def index_entry_removed(world: World) -> None:
    git(world.clone, "rm", "--quiet", "--cached", PLAIN[11])


@sees(L3="altered: plain-012.md")
def index_entry_of_another_content(world: World) -> None:
    other = git(world.clone, "rev-parse", f"HEAD:{PLAIN[0]}")
    git(world.clone, "update-index", "--cacheinfo", f"100644,{other},{PLAIN[12]}")


@sees(L4="altered: plain-013.md")
def change_staged(world: World) -> None:
    flip(world.file(PLAIN[13]), 0)
    git(world.clone, "add", PLAIN[13])


@sees(L3="unmerged: plain-014.md")
def merge_left_open(world: World) -> None:
    oid = git(world.clone, "rev-parse", f"HEAD:{PLAIN[14]}")
    lines = [f"0 {'0' * 40}\t{PLAIN[14]}", *(f"100644 {oid} {stage}\t{PLAIN[14]}" for stage in (1, 2, 3))]
    feed(world.clone, "\n".join(lines).encode(), "update-index", "--index-info")


@sees(L2="corrupt: bad index file")
def index_flipped_where_it_keeps_a_time(world: World) -> None:
    flip(world.file(".git/index"), 14)


@sees(L2="corrupt: ", L3="git ls-files failed")
def index_cut_short(world: World) -> None:
    os.truncate(world.file(".git/index"), 1000)


@sees(L2="corrupt: {}: object corrupt or missing")
def loose_object_cut_short(world: World) -> str:
    oid, loose = world.loose(f"HEAD:{PLAIN[15]}")
    os.truncate(loose, 10)
    return oid


@sees(L2="corrupt: {}: object corrupt or missing")
def loose_object_flipped(world: World) -> str:
    oid, loose = world.loose(f"HEAD:{PLAIN[15]}")
    flip(loose, loose.stat().st_size // 2)
    return oid


@sees(L2="hash-path mismatch, found at: .git/objects/{}")
def loose_object_of_another_content(world: World) -> str:
    _, other = world.loose(f"HEAD:{PLAIN[0]}")
    oid, loose = world.loose(f"HEAD:{PLAIN[15]}")
    shutil.copyfile(other, loose)
    return f"{oid[:2]}/{oid[2:]}"


@sees(L2="missing: blob {}")
def object_missing(world: World) -> str:
    oid, loose = world.loose(f"HEAD:{PLAIN[16]}")
    loose.unlink()
    return oid


@sees(L2="missing: tree {}", L4="{}")
def tree_missing(world: World) -> str:
    oid, loose = world.loose("HEAD:folder")
    loose.unlink()
    return oid


@sees(L2="missing: object {}", L4="{}")
def commit_missing(world: World) -> str:
    oid, loose = world.loose("HEAD")
    loose.unlink()
    return oid


@sees(L2="missing: object {}")
def object_left_at_the_remote_by_a_partial_clone(world: World) -> str:
    git(world.origin, "config", "uploadpack.allowFilter", "true")
    shutil.rmtree(world.file(".git"))
    partial = [
        "clone",
        "--quiet",
        "--bare",
        "--filter=blob:none",
        world.lock.repositories[0].location,
        str(world.file(".git")),
    ]
    git(world.origin.parent, *partial)
    for name in ("core.bare", "core.symlinks", "core.autocrlf"):
        git(world.clone, "config", name, "false")
    git(world.clone, "read-tree", "HEAD")
    return git(world.clone, "rev-parse", f"HEAD:{PLAIN[17]}")


@sees(L2="corrupt: packfile .git/objects/pack/{}", L4="{}")
def pack_cut_short(world: World) -> str:
    pack = world.pack()
    os.truncate(pack, pack.stat().st_size // 2)
    return pack.name


@sees(L2="{}")
def pack_flipped_in_a_blob(world: World) -> str:
    pack = world.pack()
    oid = git(world.clone, "rev-parse", f"HEAD:{PLAIN[18]}")
    listed = git(world.clone, "verify-pack", "--verbose", str(pack.with_suffix(".idx"))).splitlines()
    flip(pack, next(int(line.split()[4]) + 4 for line in listed if line.startswith(oid)))
    return oid


def forge(world: World, revision: str) -> str:
    """Alter a file, and let git's store give out what belongs to it where the locked object lies."""
    oid, loose = world.loose(revision)
    head = git(world.clone, "rev-parse", "HEAD")
    flip(world.file(PLAIN[20]), 0)
    git(world.clone, "commit", "--quiet", "-a", "-m", "own")
    _, own = world.loose(revision)
    git(world.clone, "update-ref", "--no-deref", "HEAD", head)
    shutil.copyfile(own, loose)
    return f"{oid[:2]}/{oid[2:]}"


@sees(L2="hash-path mismatch, found at: .git/objects/{}", L4="is not that commit")
def commit_forged(world: World) -> str:
    return forge(world, "HEAD")


@sees(L2="hash-path mismatch, found at: .git/objects/{}", L4="git ls-tree failed")
def tree_forged(world: World) -> str:
    return forge(world, "HEAD^{tree}")
