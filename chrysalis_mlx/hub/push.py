"""Sending a run's files and their card to a repository of the Hub, as one commit.

An upload that stops goes on when it is started again: the Hub says which files it has already.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from chrysalis_mlx import __version__
from chrysalis_mlx.errors import ChrysalisError, HubError, UsageError
from chrysalis_mlx.export.lineage.card import CARD
from chrysalis_mlx.export.lineage.lineage import Lineage
from chrysalis_mlx.hub.card import commands, front_matter, gguf_types, repository_card
from chrysalis_mlx.hub.disclosure import disclosure
from chrysalis_mlx.hub.failures import explained
from chrysalis_mlx.hub.files import KINDS, File, Kind, collect
from chrysalis_mlx.models.source import progress_bars
from chrysalis_mlx.progress import Progress, silent
from chrysalis_mlx.run import Run

if TYPE_CHECKING:
    from huggingface_hub import HfApi
    from huggingface_hub.hf_api import ModelInfo

MAIN = "main"
_OF_THE_HUB = ".gitattributes"  # it writes this one itself
# As the Hub's own client has it; a repository is named before anything is asked of the Hub.
_PART = r"[A-Za-z0-9_](?:(?!--|\.\.)[A-Za-z0-9_.-])*(?<![.-])"
_NAME = re.compile(rf"{_PART}/{_PART}(?<!\.git)")
_LONGEST_NAME = 96


@dataclass(frozen=True)
class Parcel:
    """Everything that would be sent, made without asking the Hub.

    Attributes:
        repository: `owner/name`.
        name: of the model.
        branch: that it goes to.
        files: all of them; the card is the first.
        notes: what to know before it is published.
        private: what looks as if it were not meant for everybody.
    """

    repository: str
    name: str
    branch: str
    files: tuple[File, ...]
    notes: tuple[str, ...]
    private: tuple[str, ...]

    @property
    def bytes(self) -> int:
        return sum(file.bytes for file in self.files)

    @property
    def card(self) -> str:
        content = self.files[0].content
        assert isinstance(content, bytes)
        return content.decode()

    @property
    def front_matter(self) -> str:
        """The YAML at the top of the card."""
        return front_matter(self.card)

    @property
    def commands(self) -> tuple[str, ...]:
        """What will run it: Ollama and llama.cpp take GGUF files of the main branch."""
        types = gguf_types([Path(file.path) for file in self.files])
        return commands(self.repository, types[-1]) if types and self.branch == MAIN else ()


@dataclass(frozen=True)
class Pushed:
    """What became of a parcel.

    Attributes:
        url: of the repository.
        commit: that the files are in; the latest one where nothing had changed.
        changed: whether there was anything new to commit.
        private: whether the repository is.
        pull_request: its URL, where one was opened.
        others: files that the branch also has, from somebody else or an earlier push.
        warnings: of the Hub, about the card.
    """

    url: str
    commit: str
    changed: bool
    private: bool
    pull_request: str | None
    others: tuple[str, ...]
    warnings: tuple[str, ...] = ()


def pack(
    run: Run, repository: str, what: Sequence[Kind] = (), *, branch: str = MAIN, progress: Progress = silent
) -> Parcel:
    """Choose the files, see that they are what the run recorded, and write their card.

    Args:
        repository: `owner/name`.
        what: kinds of files; empty takes the GGUF files, and the adapter where there is one.
        branch: that they are meant for.

    Raises:
        UsageError: no name for a repository, or a full fine-tuning's adapter is asked for.
        RunError: a stage has not finished, or a file is not as it was recorded.
        ExportError: a GGUF file was not proved.
    """
    _check_name(repository)
    lineage = Lineage.of_run(run)
    full = lineage.adapter is not None and lineage.adapter.kind == "full"
    default: tuple[Kind, ...] = ("gguf",) if full else ("gguf", "adapter")
    kinds = [kind for kind in KINDS if kind in (what or default)]
    files = collect(run, kinds, lineage, progress=progress)
    card = repository_card(run, lineage, repository, kinds, files, on_main=branch == MAIN)
    files = [File(CARD, card.encode()), *files]
    told = disclosure(run, lineage, files)
    return Parcel(repository, lineage.name, branch, tuple(files), told.notes, told.private)


def push(
    parcel: Parcel,
    *,
    private: bool | None = None,
    create_pr: bool = False,
    message: str | None = None,
    bars: bool = False,
) -> Pushed:
    """Send a parcel; the repository and the branch are made where they are missing.

    HF_TOKEN or the token of `hf auth login`, HF_ENDPOINT and HF_HUB_DISABLE_XET are honoured.

    Args:
        private: who may see a new repository; None leaves that to the Hub. True refuses one that is public, False says
            that what looks private may be read by everybody.
        create_pr: open a pull request instead of writing to the branch.
        message: the commit's first line.
        bars: let the Hub's client show its progress.

    Raises:
        UsageError: something looks private, and the repository is not.
        HubError: not logged in, no right to write, no network, too large, or the Hub refuses the card.
    """
    try:
        with progress_bars(bars), warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always", UserWarning)
            pushed = _push(parcel, private, create_pr, message or f"{parcel.name}, by chrysalis-mlx {__version__}")
    except ChrysalisError:
        raise
    except Exception as error:  # the Hub's client hands on whatever its HTTP library raises
        raise explained(error, parcel.repository) from error
    said = tuple(" ".join(str(warning.message).split()) for warning in warned if warning.category is UserWarning)
    return replace(pushed, warnings=said)


def _push(parcel: Parcel, private: bool | None, create_pr: bool, message: str) -> Pushed:
    from huggingface_hub import CommitOperationAdd, HfApi, get_token

    if not get_token():
        raise HubError("you are not logged in to the Hub", fix="hf auth login, or set HF_TOKEN")
    api = HfApi(library_name="chrysalis-mlx", library_version=__version__)
    repository, branch = parcel.repository, parcel.branch
    info = _repository(api, parcel, private, create_pr)
    if branch != MAIN and not create_pr and not branch.startswith("refs/"):
        api.create_branch(repository, branch=branch, exist_ok=True)
    before = info if branch == MAIN else api.model_info(repository, revision=branch)
    commit = api.create_commit(
        repository,
        [CommitOperationAdd(file.path, file.content) for file in parcel.files],
        commit_message=message,
        revision=branch,
        create_pr=create_pr,
    )
    own = {file.path for file in parcel.files} | {_OF_THE_HUB}
    others = sorted({sibling.rfilename for sibling in before.siblings or ()} - own)
    return Pushed(
        url=f"{api.endpoint}/{repository}",
        commit=commit.oid,
        changed=commit.oid != before.sha,
        private=bool(info.private),
        pull_request=commit.pr_url,
        others=tuple(others),
    )


def _repository(api: HfApi, parcel: Parcel, private: bool | None, create_pr: bool) -> ModelInfo:
    """The repository, made when it is missing; who may see it is settled before anything is sent."""
    from huggingface_hub.errors import RepositoryNotFoundError

    try:
        info = api.model_info(parcel.repository)
    except RepositoryNotFoundError:
        if create_pr:
            raise
        _settle(parcel, private, bool(private))
        api.create_repo(parcel.repository, private=private, exist_ok=True)
        info = api.model_info(parcel.repository)
    _settle(parcel, private, bool(info.private))
    return info


def _settle(parcel: Parcel, asked: bool | None, is_private: bool) -> None:
    if asked and not is_private:
        raise UsageError(
            f"{parcel.repository} is public",
            fix="make it private on its page, name another repository, or say --public instead of --private",
        )
    if parcel.private and asked is None and not is_private:
        raise UsageError(
            "some of it looks as if it were not meant for everybody: " + "; ".join(parcel.private),
            where=parcel.repository,
            fix="add --private, or --public if everybody may read it",
        )


def _check_name(repository: str) -> None:
    if not _NAME.fullmatch(repository) or len(repository) > _LONGEST_NAME:
        raise UsageError(
            f"{repository!r} is no name for a repository of the Hub",
            fix="give OWNER/NAME: letters, digits, single '-', '_' and '.', at most 96 in all",
        )
