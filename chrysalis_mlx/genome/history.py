"""What was changed in the repositories of a genome, and with which words: its commits, their messages and diffs.

The commits are those on the way back from the pinned one along first parents; no merge is taken, and none whose parent
is not here, which would be the whole tree. The same pins and the same depth of the clones give the same commits.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from chrysalis_mlx.config import from_plain
from chrysalis_mlx.errors import GenomeError
from chrysalis_mlx.genome.files.rules import Refusal, Rules
from chrysalis_mlx.genome.git.command import GitError, TreeEntry, git
from chrysalis_mlx.genome.git.log import Diff, Store, borrow
from chrysalis_mlx.genome.git.patch import FileDiff
from chrysalis_mlx.genome.manifest import RepositoryRecord, read_manifest
from chrysalis_mlx.genome.sources.pins import OID, Lock, name_problem
from chrysalis_mlx.genome.sources.schema import FileRules
from chrysalis_mlx.run import sha256_json

MAX_BYTES = 64 * 1024  # of a file's diff and of a commit's; larger ones are generated, moved in or reformatted

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_TRAILER = re.compile(
    r"(?:[a-z]+(?:-[a-z]+)*-by|change-id|cc|git-svn-id):.*|\(cherry picked from commit [0-9a-f]+\)", re.IGNORECASE
)
_ADDRESS = re.compile(r"[ \t]*(?:<[^<>\s]+@[^<>\s]+>|\b[\w.+-]+@[\w-]+(?:\.[\w-]+)*\.[a-z]{2,})", re.IGNORECASE)
# Where no spaces stand between words, each character is one.
_WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]|[^\W\d_][\w./'-]*")
_FILLER = re.compile(
    r"an?|and|the|of|for|from|in|into|on|to|via|with|this|it|some|more|"
    r"(?:add|chang|commit|creat|delet|edit|fix|merg|releas|remov|sav|updat|upload)(?:e|ed|es|ing|s)?|"
    r"branch|files?|final|first|initial|minor|misc|new|pull|request|stuff|te?mp|test|version|wip|work"
)
_TELLING_WORDS = 2
_NUMBER = re.compile(r"[0-9]+")  # what a machine commits again and again differs by these alone


@dataclass(frozen=True)
class Commit:
    """One change of a repository.

    Attributes:
        repository: its name in the genome.
        sha: the commit's.
        message: without trailers and e-mail addresses; no line end at its end.
        files: what was changed in files that the genome's rules take, in the order of their paths.
    """

    repository: str
    sha: str
    message: str
    files: tuple[FileDiff, ...]

    @property
    def diff(self) -> str:
        return "".join(file.text for file in self.files)

    @property
    def text(self) -> str:
        """The message, and of each file what it shows from before and from after: to be compared with documents."""
        return "\n".join([self.message, *(file.lines(marks) for file in self.files for marks in (" -", " +"))])


@dataclass
class Account:
    """What became of one repository's history.

    Attributes:
        commits: how many were taken.
        left_out: how many were not, by reason, of those that were looked at.
        reason: why the repository has no commits to look at; None when it has.
    """

    repository: str
    commits: int = 0
    left_out: dict[str, int] = field(default_factory=dict)
    reason: str | None = None


def telling(message: str) -> str | None:
    """A commit's message, cleaned; None for one that says too little or holds control characters.

    Trailers (`...-by:`, Change-Id, Cc) and e-mail addresses are cut. It says enough with two words beside those that
    any commit may have, such as `update`, `fix` and `wip`; a file's name is one word.
    """
    message = message.replace("\r\n", "\n")
    if _CONTROL.search(message):
        return None
    lines = (line.rstrip() for line in message.split("\n") if not _TRAILER.fullmatch(line.strip()))
    cleaned = re.sub(r"\n{3,}", "\n\n", _ADDRESS.sub("", "\n".join(lines))).strip()
    words = [word for word in _WORD.findall(cleaned.lower()) if not _FILLER.fullmatch(word)]
    return cleaned if len(words) >= _TELLING_WORDS else None


class History:
    """The commits of a genome's repositories, in the genome's order, the newest first. Iterated, it reads them.

    Args:
        manifest: the genome's.
        folder: where its lock lies: relative locations count from here, and clones/ is here.
        max_commits: of each repository that are taken.
        takes: whether changes of a file are wanted, by repository and path.

    Attributes:
        accounts: one for each repository, as they are reached.

    Raises:
        GenomeError: no manifest, or a store that is damaged or lacks what its commits name.
    """

    def __init__(
        self,
        manifest: Path,
        folder: Path,
        *,
        max_commits: int,
        takes: Callable[[str, str], bool] = lambda repository, path: True,
    ) -> None:
        head, self._records = read_manifest(manifest)
        rules, problems = from_plain(FileRules, head["rules"] or {})
        if problems:
            raise GenomeError(
                "the manifest's rules for files cannot be read: " + "; ".join(problems),
                where=manifest,
                fix="build the genome again",
            )
        self._rules = Rules(rules)
        self._folder, self._max_commits, self._takes = folder, max_commits, takes
        self.accounts: list[Account] = []

    def __iter__(self) -> Generator[Commit, None, None]:
        self.accounts = []
        for record in self._records:
            account = Account(record.name)
            self.accounts.append(account)
            found = _store(record, self._folder)
            if isinstance(found, str):
                account.reason = found
                continue
            with found as store:
                yield from self._commits(record, store, account)
                if not account.commits and not account.left_out:
                    account.reason = store.why_empty

    def fingerprint(self) -> str:
        """sha256 of which commits there are: what the history depends on beside manifest and arguments.

        Raises:
            GenomeError: a store that is damaged.
        """
        return sha256_json([[record.name, self._walk_digest(record)] for record in self._records])

    def _walk_digest(self, record: RepositoryRecord) -> str:
        found = _store(record, self._folder)
        if isinstance(found, str):
            return found
        digest = hashlib.sha256()
        with found as store:
            for commit, _ in store.walk(messages=False):
                digest.update(commit.encode("ascii"))
        return digest.hexdigest()

    def _commits(self, record: RepositoryRecord, store: Store, account: Account) -> Iterator[Commit]:
        seen: set[bytes] = set()
        with store.differ(record.folder, max_bytes=self._rules.files.max_bytes, max_diff=MAX_BYTES) as diff:
            for sha, words in store.walk():
                made = self._commit(record, sha, words, diff, seen)
                if isinstance(made, Commit):
                    account.commits += 1
                    yield made
                else:
                    account.left_out[made] = account.left_out.get(made, 0) + 1
                if account.commits == self._max_commits:
                    return

    def _commit(self, record: RepositoryRecord, sha: str, words: bytes, diff: Diff, seen: set[bytes]) -> Commit | str:
        """The commit, or why it is left out; `seen` holds what newer commits say."""
        try:
            message = telling(words.decode("utf-8"))
        except UnicodeDecodeError:
            message = None
        if message is None:
            return "message says too little"
        said = hashlib.sha256(_NUMBER.sub("0", message).encode()).digest()
        if said in seen:
            return "message repeats a newer one"
        seen.add(said)
        if isinstance(self._rules.text_of("message", message.encode()), Refusal):
            return "secret in the message"
        files, size = [], 0
        for file in diff(sha):  # to its end also when it is too large: the next commit's follows
            if file is not None and size <= MAX_BYTES and self._is_taken(record.name, file):
                files.append(file)
                size += len(file.text.encode())
        if size > MAX_BYTES:
            return "diff too large"
        return Commit(record.name, sha, message, tuple(files)) if files else "no diff that is taken"

    def _is_taken(self, repository: str, file: FileDiff) -> bool:
        """Whether the rules for files take it, under its old name as well, and what the diff shows of it."""
        rules = self._rules.files
        for path in {file.path: None, file.old_path or file.path: None}:
            entry = TreeEntry(path.encode(), file.mode, "", 0)  # git has looked at its size
            # A notebook and a table are not in the genome as git has them.
            if PurePosixPath(path).suffix.lower() in rules.notebook + rules.table or self._rules.refuse(entry):
                return False
            if not self._takes(repository, path):
                return False
        return not isinstance(self._rules.text_of(file.path, file.lines(" -+").encode()), Refusal)


def _store(record: RepositoryRecord, folder: Path) -> contextlib.AbstractContextManager[Store] | str:
    """The git store of a repository, or why none can be had."""
    if record.kind is None:
        return "made elsewhere: the manifest does not say from what"
    if record.kind == "directory" or record.commit is None:
        return "a plain directory has no commits"
    if not record.files:
        return "none of its files is in the genome"
    if not OID.fullmatch(record.commit) or name_problem(record.name):  # a stranger may have written the manifest
        return "the manifest does not name a commit, or not a repository"
    root = Lock().at(folder).root(record.pin(), folder / "clones")
    if not (root / ".git").exists():
        return "no clone" if record.kind == "remote" else "the checkout is not here"
    try:
        git(root, "cat-file", "-e", f"{record.commit}^{{commit}}")
    except GitError:
        return "the pinned commit is not here"
    return borrow(root, record.commit)
