"""What a remote says: which commit a ref stands at, and whether a failure of it may pass."""

from __future__ import annotations

import difflib
import os
import random
import re
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

from chrysalis_mlx.errors import GenomeError
from chrysalis_mlx.genome.git.command import GitError, git

T = TypeVar("T")

_SCHEMES = ("https://", "http://", "ssh://", "git://", "file://")
# [user@]host:path. A host of one letter is a drive, "::" an external transport, "./a:b" a path.
_SCP_LIKE = re.compile(r"(?:[\w.+-]+@)?(?:[A-Za-z0-9][\w.-]+|\[[0-9A-Fa-f:.]+\]):(?!:|//).+")
# Over HTTP the name may be the token itself; to ssh it is a name and a part of the address.
_SECRET_USER = re.compile(r"(https?://)[^/\s'\"]*@", re.IGNORECASE)
_SECRET_PASSWORD = re.compile(r"([a-z][a-z0-9+.-]*://[^/\s:@'\"]*):[^/\s'\"]*@", re.IGNORECASE)
# Whatever a query says may be a token.
_SECRET_QUERY = re.compile(r"(https?://[^\s?#'\"]*\?)[^\s#'\"]+", re.IGNORECASE)
# A server's words end on a terminal, which obeys some of them. Git does the same with its own.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")

_LONGEST_WAIT = 60.0  # seconds
_SILENCE = 60.0  # seconds; a list of refs takes a few
# Words of git, curl and ssh, in the C locale. What is final outranks what may pass: ssh says both when it has no key.
_FINAL = re.compile(
    r"not found|does not exist|not exported|does not appear to be a git repository|authentication failed"
    r"|could not read (?:username|password)|terminal prompts disabled|permission denied|access denied"
    r"|host key verification failed|returned error: 4(?!08|29)\d\d|certificate|fsck|not allowed|not supported"
    r"|unsupported protocol|no space left|not our ref|unadvertised object",
    re.IGNORECASE,
)
_PASSING = re.compile(
    r"could not resolve|name resolution|failed to connect|couldn't connect|unable to connect|connection"
    r"|network is unreachable|no route to host|timed out|timeout|too slow|early eof|hung up|unexpected disconnect"
    r"|empty reply|broken pipe|reset by peer|transfer closed|http/2 stream|recv (?:error|failure)|send failure"
    r"|ssl_read|tls packet|(?:returned error:|http) (?:408|429|5\d\d)|unexpected end of file|bad pack header"
    r"|expected flush|bad line length",
    re.IGNORECASE,
)


def is_remote(location: str) -> bool:
    """Whether git would fetch from there: a URL of an open transport, or [user@]host:path as scp writes it.

    A path that exists is never remote, and neither is `transport::address`.
    """
    if location.lower().startswith(_SCHEMES):
        return True
    return _SCP_LIKE.fullmatch(location) is not None and not os.path.exists(location)


def shown(text: str) -> str:
    """A URL, or words with URLs in them, fit to be printed and kept: no passwords, tokens or control characters."""
    text = _SECRET_QUERY.sub(r"\1...", _CONTROL.sub("?", text))
    return _SECRET_PASSWORD.sub(r"\1@", _SECRET_USER.sub(r"\1", text))


def may_pass(words: str) -> bool:
    """Whether what git said speaks of trouble on the way, so that asking again may help."""
    return _FINAL.search(words) is None and _PASSING.search(words) is not None


def retrying(action: Callable[[], T], retries: int, *, sleep: Callable[[float], object] = time.sleep) -> T:
    """Do it, and again after 1, 2, 4 ... seconds (up to half more, by chance) while the failure is one that may pass.

    Raises:
        GitError: a failure that will not pass, at once; any failure when `retries` are used up.
    """
    for attempt in range(retries):
        try:
            return action()
        except GitError as error:
            if not may_pass(error.words):
                raise
        # By chance: many clones that one server turned away do not come back in one moment.
        sleep(min(2.0**attempt, _LONGEST_WAIT) * random.uniform(1.0, 1.5))
    return action()


def resolve(url: str, ref: str | None, *, retries: int) -> tuple[str, str]:
    """The full name of a remote's ref and the commit it stands at.

    Args:
        url: of the remote.
        ref: looked for as git does: a full name, then a tag, then a branch; None for what the remote has checked out.
        retries: how often the remote is asked again when it cannot be reached.

    Returns:
        name and commit; an annotated tag counts as the commit that it was put on.

    Raises:
        GitError: the remote cannot be read, with git's own words.
        GenomeError: it is empty or has no such ref.
    """
    wanted = ref or "HEAD"
    refs, head = _ask(url, retries, ["HEAD"] if wanted == "HEAD" else [])
    if wanted == "HEAD" and "HEAD" in refs:
        return head or "HEAD", refs["HEAD"]
    for name in (wanted, f"refs/{wanted}", f"refs/tags/{wanted}", f"refs/heads/{wanted}"):
        if name in refs:
            return name, refs.get(f"{name}^{{}}", refs[name])
    if wanted == "HEAD":
        refs, head = _ask(url, retries, [])
    raise _no_such_ref(url, wanted, refs, head)


def _ask(url: str, retries: int, patterns: Sequence[str]) -> tuple[dict[str, str], str | None]:
    """Every ref that matches, by full name, and the branch that HEAD stands for."""
    words = ("ls-remote", "--symref", "--", url, *patterns)
    try:
        said = retrying(lambda: git(None, *words, network=True, timeout=_SILENCE), retries)
    except GitError as error:
        # Not chained: the first error has the URL as it was written.
        raise GitError(
            "ls-remote", shown(error.words), error.status, where=shown(url), fix=error.fix or "try again later"
        ) from None
    refs: dict[str, str] = {}
    head = None
    for line in said.decode("utf-8", "replace").splitlines():
        value, _, name = line.partition("\t")
        if not value.startswith("ref: "):
            refs[name] = value
        elif name == "HEAD":
            head = value.removeprefix("ref: ")
    return refs, head


def _no_such_ref(url: str, wanted: str, refs: dict[str, str], head: str | None) -> GenomeError:
    short = {name.split("/", 2)[2]: name for name in refs if name.startswith(("refs/heads/", "refs/tags/"))}
    names = sorted(name for name in short if not name.endswith("^{}"))
    if not names:
        return GenomeError("the remote is empty", where=shown(url), fix="push a commit to it, or leave it out")
    if wanted == "HEAD":
        what = f"the remote's HEAD is {head}, which it does not have" if head else "the remote has no HEAD"
        return GenomeError(what, where=shown(url), fix=f"name a branch or tag: {_some(names)}")
    near = difflib.get_close_matches(wanted.removeprefix("refs/").partition("/")[2] or wanted, names, n=3)
    return GenomeError(
        f"the remote has no branch or tag {wanted!r}" + (f"; did you mean {' or '.join(near)}?" if near else ""),
        where=shown(url),
        fix=f"name one that it has: {_some(near or names)}; a commit has its own field, commit",
    )


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
