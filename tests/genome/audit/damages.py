"""Damages of a clone and which levels of the audit have to see them, one part: its files, its HEAD and its remote."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable

from tests.genome.audit.clones import PLAIN, UNUSUAL, World, feed, flip
from tests.genome.repositories import git, make_repository, put

Damage = Callable[[World], "str | None"]
CASES: dict[str, tuple[Damage, dict[str, str], str]] = {}


def sees(word: str = "current", /, **evidence: str) -> Callable[[Damage], Damage]:
    """Enter a damage into the table: which levels fail, with what evidence ({} is what the damage returns)."""

    def enter(damage: Damage) -> Damage:
        CASES[damage.__name__] = (damage, evidence, word)
        return damage

    return enter


@sees(L3="altered: plain-003.md", L4="altered: plain-003.md")
def byte_altered_with_size_and_time_kept(world: World) -> None:
    about = world.file(PLAIN[3]).stat()
    flip(world.file(PLAIN[3]), 0)
    os.utime(world.file(PLAIN[3]), ns=(about.st_atime_ns, about.st_mtime_ns))


@sees(L3="deleted: plain-004.md", L4="deleted: plain-004.md")
def file_deleted(world: World) -> None:
    world.file(PLAIN[4]).unlink()


@sees(L3="untracked: folder/new.md", L4="not in the commit: folder/new.md")
def file_added(world: World) -> None:
    put(world.clone, "folder/new.md")


@sees(L3="untracked: build/out.o", L4="not in the commit: build/out.o")
def ignored_file_added(world: World) -> None:
    put(world.clone, "build/out.o")


@sees(L3="unreadable: pipe (neither a file nor a folder)")
def pipe_added(world: World) -> None:
    os.mkfifo(world.file("pipe"))


@sees(L3="mode changed: plain-005.md is 100755 and should be 100644", L4="mode changed: plain-005.md")
def mode_flipped(world: World) -> None:
    world.file(PLAIN[5]).chmod(0o755)


@sees(L3="altered: plain-006.md; altered: plain-007.md", L4="altered: plain-006.md; altered: plain-007.md")
def two_files_swapped(world: World) -> None:
    world.file(PLAIN[6]).rename(world.file("aside"))
    world.file(PLAIN[7]).rename(world.file(PLAIN[6]))
    world.file("aside").rename(world.file(PLAIN[7]))


@sees(L3="altered: dökumente/日本 語.md", L4="altered: dökumente/日本 語.md")
def not_ascii_path_altered(world: World) -> None:
    flip(world.file("dökumente/日本 語.md"), -1)


@sees(L3='altered: "odd \\042name\\042 \\134\\012.md"', L4='altered: "odd \\042name\\042 \\134\\012.md"')
def odd_path_altered(world: World) -> None:
    flip(world.file(UNUSUAL), 0)


@sees(L3="altered: plain-100.md", L4="altered: plain-100.md")
def file_101_of_150_altered(world: World) -> None:
    flip(world.file(PLAIN[100]), 0)


@sees(L3="altered: link", L4="altered: link")
def link_replaced_by_a_file(world: World) -> None:
    world.file("link").write_text("not the target")


@sees(L3="altered: link", L4="altered: link")
def link_replaced_by_another_link(world: World) -> None:
    world.file("link").unlink()
    world.file("link").symlink_to("/etc/passwd")


@sees(L3="deleted: folder/inner.md; untracked: folder", L4="deleted: folder/inner.md; not in the commit: folder")
def folder_replaced_by_a_link_to_its_copy(world: World) -> None:
    elsewhere = world.clone.parent / "elsewhere"
    world.file("folder").rename(elsewhere)
    world.file("folder").symlink_to(elsewhere)


@sees(L3="deleted: plain-008.md; untracked: plain-008.md/inside", L4="deleted: plain-008.md")
def file_replaced_by_a_folder(world: World) -> None:
    world.file(PLAIN[8]).unlink()
    put(world.clone, f"{PLAIN[8]}/inside")


@sees(L3="altered: plain-009.md", L4="altered: plain-009.md")
def assumed_unchanged_and_altered(world: World) -> None:
    git(world.clone, "update-index", "--assume-unchanged", PLAIN[9])
    flip(world.file(PLAIN[9]), 0)


@sees(L3="deleted: plain-010.md", L4="deleted: plain-010.md")
def skipped_and_deleted(world: World) -> None:
    git(world.clone, "update-index", "--skip-worktree", PLAIN[10])
    world.file(PLAIN[10]).unlink()


@sees(L1="HEAD is {}")
def head_moved_by_an_empty_commit(world: World) -> str:
    git(world.clone, "commit", "--quiet", "--allow-empty", "-m", "own")
    return git(world.clone, "rev-parse", "HEAD")


@sees(L1="HEAD is {}", L4="altered: plain-019.md")
def head_moved_by_a_new_commit(world: World) -> str:
    flip(world.file(PLAIN[19]), 0)
    git(world.clone, "commit", "--quiet", "-a", "-m", "own")
    return git(world.clone, "rev-parse", "HEAD")


@sees(L1="HEAD is {}", L4="not in the commit: early.md")
def detached_at_another_commit(world: World) -> str:
    first = git(world.origin, "rev-parse", "HEAD~1")
    git(world.clone, "fetch", "--quiet", "--depth=1", "origin", first)
    git(world.clone, "checkout", "--quiet", "--detach", first)
    return first


@sees("behind")
def remote_ahead(world: World) -> None:
    make_repository(world.origin, {"later.md": "later\n"})


@sees("behind")
def ref_of_the_remote_renamed(world: World) -> None:
    git(world.origin, "branch", "--move", "main", "trunk")


@sees("unreachable")
def remote_gone(world: World) -> None:
    world.origin.rename(world.origin.with_name("gone"))


@sees(L1="remote.origin.url is https://example.org/other.git and should be file://")
def remote_url_changed(world: World) -> None:
    git(world.clone, "config", "remote.origin.url", "https://example.org/other.git")


@sees(L1="there is no repository at")
def clone_deleted(world: World) -> None:
    shutil.rmtree(world.clone)


@sees(L1="there is no .git in")
def git_folder_deleted_inside_of_another_repository(world: World) -> None:
    git(world.clone.parent, "init", "--quiet")
    shutil.rmtree(world.file(".git"))


@sees(L1="not a git repository")
def git_folder_damaged_inside_of_another_repository(world: World) -> None:
    git(world.clone.parent, "init", "--quiet")
    world.file(".git/HEAD").unlink()


@sees()
def nothing(world: World) -> None:
    pass


@sees()
def every_time_touched(world: World) -> None:
    for path in world.clone.rglob("*"):
        os.utime(path, (1, 1))


@sees()
def object_dangling(world: World) -> None:
    feed(world.clone, b"of nobody", "hash-object", "-w", "--stdin")


@sees()
def link_made_a_real_link(world: World) -> None:
    world.file("link").unlink()
    world.file("link").symlink_to("folder/inner.md")


@sees(L1="core.filemode is false and should be true", L3="mode changed: plain-005.md", L4="mode changed: plain-005.md")
def modes_switched_off_and_mode_flipped(world: World) -> None:
    git(world.clone, "config", "core.fileMode", "false")
    world.file(PLAIN[5]).chmod(0o755)


@sees(L1="core.symlinks is true and should be false", L3="altered: link", L4="altered: link")
def links_switched_on_and_link_altered(world: World) -> None:
    git(world.clone, "config", "core.symlinks", "true")
    flip(world.file("link"), 0)


@sees(L1="core.autocrlf is input and should be false")
def line_ends_converted(world: World) -> None:
    git(world.clone, "config", "core.autocrlf", "input")


@sees(L1="core.autocrlf is not set and should be false")
def setting_removed(world: World) -> None:
    git(world.clone, "config", "--unset", "core.autocrlf")


@sees(L1="core.filemode is true, false and should be true")
def setting_added_to(world: World) -> None:
    git(world.clone, "config", "--add", "core.fileMode", "false")
