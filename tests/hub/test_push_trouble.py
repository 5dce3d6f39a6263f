"""Pushes that something hinders: they go on where they stopped, or say what is wrong and what to do."""

from __future__ import annotations

import socket

import pytest
from huggingface_hub import constants

from chrysalis_mlx.errors import HubError
from chrysalis_mlx.hub.failures import explained
from chrysalis_mlx.hub.push import pack, push
from chrysalis_mlx.run import Run
from tests.hub.server import READER, Fault, Hub
from tests.hub.store import Repository, sha256

LARVA = "me/larva"
COMMIT_CALL = f"POST /api/models/{LARVA}/commit/main"

pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")


def test_an_upload_that_stopped_goes_on(run: Run, logged_in: Hub) -> None:
    stops = sha256(run.path("export/model-Q4_K_M.gguf").read_bytes())
    logged_in.faults = [Fault(f"PUT /{stops}", status=403, message="the signature is too old")]
    told = r"Error while uploading 'model-Q4_K_M\.gguf' to the Hub\.: \(403: (.|\n)*the signature is too old"
    with pytest.raises(HubError, match=told):
        push(pack(run, LARVA, ("gguf",)))
    assert logged_in.repositories[LARVA].log == []
    before = set(logged_in.objects)
    assert sha256(run.path("export/model-F16.gguf").read_bytes()) in before
    logged_in.requests.clear()
    push(pack(run, LARVA, ("gguf",)))
    sent = [line.removeprefix("PUT /") for line in logged_in.lines("storage")]
    assert stops in sent
    assert set(sent).isdisjoint(before)
    assert len(logged_in.repositories[LARVA].log) == 1


@pytest.mark.parametrize("status", [500, 503, 429])
def test_trouble_that_passes_is_waited_out(run: Run, logged_in: Hub, status: int) -> None:
    calls = (
        rf"POST /api/models/{LARVA}/preupload/main",
        rf"POST /{LARVA}.git/info/lfs/objects/batch",
        r"PUT /[0-9a-f]+",
    )
    logged_in.faults = [Fault(pattern, status=status, times=2) for pattern in calls]
    pushed = push(pack(run, LARVA, ("gguf",)))
    assert [fault.times for fault in logged_in.faults] == [0, 0, 0]
    assert logged_in.repositories[LARVA].head == pushed.commit


@pytest.mark.parametrize(
    ("status", "what", "fix"),
    [
        (401, "the Hub does not accept the token", "hf auth login"),
        (402, "the Hub wants a paid plan for this", "another owner"),
        (403, "the token has no right to write there", "a token that may write"),
        (404, "the Hub knows no such repository", "check the spelling"),
        (409, "somebody else changed the repository", "run it again"),
        (413, "the Hub finds a file or the commit too large", "fewer --what"),
        (418, "the Hub refused", "see what it says"),
        (429, "the Hub asks for a pause", "wait some minutes"),
        (500, "the Hub has trouble of its own", "run it again: what the Hub has is not sent twice"),
    ],
)
def test_what_the_hub_answers_is_explained(run: Run, logged_in: Hub, status: int, what: str, fix: str) -> None:
    logged_in.faults = [Fault(COMMIT_CALL, status=status, message="words of the server")]
    with pytest.raises(HubError) as raised:
        push(pack(run, LARVA, ("adapter",)))
    assert raised.value.what.startswith(what)
    assert f"({status}: " in raised.value.what
    assert "words of the server" in raised.value.what
    assert raised.value.where == LARVA
    assert fix in str(raised.value.fix)
    assert logged_in.repositories[LARVA].log == []


def test_nobody_is_logged_in(run: Run, logged_in: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(HubError, match=r"you are not logged in to the Hub(.|\n)*hf auth login"):
        push(pack(run, LARVA))
    assert logged_in.requests == []


def test_a_token_that_nobody_has(run: Run, logged_in: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_forgotten")
    with pytest.raises(HubError, match="the Hub does not accept the token") as raised:
        push(pack(run, LARVA))
    assert "hf_forgotten" not in str(raised.value)


def test_another_owners_place(run: Run, logged_in: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", READER)
    with pytest.raises(HubError, match="no right to write there"):
        push(pack(run, "org/new"))
    logged_in.add(Repository.empty("org/old"))
    with pytest.raises(HubError, match="no right to write there"):
        push(pack(run, "org/old"))
    assert list(logged_in.repositories) == ["org/old"]
    assert logged_in.objects == {}


def test_a_private_repository_of_somebody_else_cannot_be_told_from_none(
    run: Run, logged_in: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    logged_in.add(Repository.empty("org/secret", private=True))
    monkeypatch.setenv("HF_TOKEN", READER)
    with pytest.raises(HubError, match="no right to write there"):
        push(pack(run, "org/secret"))


def test_a_branch_that_nothing_can_be_written_to(run: Run, logged_in: Hub) -> None:
    logged_in.add(Repository.empty(LARVA))
    with pytest.raises(HubError, match="the repository has no such branch"):
        push(pack(run, LARVA, branch="refs/pr/7"))


def test_a_card_that_the_hub_does_not_take(run: Run, logged_in: Hub) -> None:
    logged_in.faults = [Fault("POST /api/validate-yaml", status=400)]
    with pytest.raises(HubError, match=r"the Hub does not take it: Invalid metadata in README\.md"):
        push(pack(run, LARVA))
    assert logged_in.objects == {}


def test_no_network(run: Run, logged_in: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{port}")
    with pytest.raises(HubError, match=r"the Hub cannot be reached: (.|\n)*check the network"):
        push(pack(run, LARVA))


def test_offline(run: Run, logged_in: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(HubError, match=r"HF_HUB_OFFLINE is set(.|\n)*--dry-run"):
        push(pack(run, LARVA))
    assert logged_in.requests == []


def test_keys_of_signed_urls_are_not_told() -> None:
    told = explained(RuntimeError("403 for 'https://s3.example.org/ab?X-Amz-Signature=secret' again"), LARVA)
    assert told.what == "the Hub cannot be reached: 403 for 'https://s3.example.org/ab' again"


def test_without_the_newer_storage_of_the_hub_the_way_around_is_named(
    run: Run, logged_in: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", False)
    with pytest.raises(HubError, match="HF_HUB_DISABLE_XET=1"):
        push(pack(run, LARVA, ("adapter",)))
    assert logged_in.repositories[LARVA].log == []
