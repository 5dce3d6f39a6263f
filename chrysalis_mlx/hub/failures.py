"""What the Hub's client raises while something is sent, said as what is wrong and what to do."""

from __future__ import annotations

import re
from collections.abc import Iterator

from chrysalis_mlx.errors import HubError

_LOGIN = "log in with a token that may write: hf auth login; HF_TOKEN, where it is set, comes first"
_AGAIN = "run it again: what the Hub has is not sent twice"

# HTTP status -> what is wrong, what to do.
_BY_STATUS = {
    401: ("the Hub does not accept the token", _LOGIN),
    402: ("the Hub wants a paid plan for this", "see what it says, or name another owner"),
    403: ("the token has no right to write there", "check the owner's name, or take a token that may write to it"),
    404: ("the Hub knows no such repository, or the token may not see it", "check the spelling and the token"),
    409: ("somebody else changed the repository in the same moment", "look at what they did, then run it again"),
    413: ("the Hub finds a file or the commit too large", "push fewer --what at a time, or smaller types of GGUF"),
    429: ("the Hub asks for a pause: too many requests", "wait some minutes, then run it again"),
}
# A signed URL of the storage is a key to it while it is young.
_QUERY = re.compile(r"(https?://[^\s?'\"]+)\?[^\s'\"]*")


def explained(error: Exception, repository: str) -> HubError:
    """The error to raise instead of one of the Hub's client."""
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled, RevisionNotFoundError

    words = _words(": ".join(str(cause) or type(cause).__name__ for cause in _causes(error)))
    if isinstance(error, ValueError) and not isinstance(error, HfHubHTTPError):  # of the client's own, as for the card
        return HubError(f"the Hub does not take it: {words}", where=repository, fix="see what it says")
    for cause in _causes(error):
        if isinstance(cause, OfflineModeIsEnabled):
            return HubError("HF_HUB_OFFLINE is set, so nothing is sent", where=repository, fix="unset it, or --dry-run")
        if isinstance(cause, RevisionNotFoundError):
            return HubError("the repository has no such branch", where=repository, fix="name another --revision")
        if isinstance(cause, HfHubHTTPError):
            said = f"({cause.response.status_code}: {_words(cause.server_message or str(cause))})"
            if cause is not error:  # one file of an upload, at the storage, which has other reasons
                return HubError(f"{_words(str(error))}: {said}", where=repository, fix=_AGAIN)
            return _of_status(cause.response.status_code, said, repository)
    if "xet" in words.lower():
        fix = f"{_AGAIN}; with HF_HUB_DISABLE_XET=1 files go over plain HTTP"
        return HubError(f"the Hub's storage cannot be written: {words}", where=repository, fix=fix)
    return HubError(f"the Hub cannot be reached: {words}", where=repository, fix=f"check the network; {_AGAIN}")


def _of_status(status: int, said: str, repository: str) -> HubError:
    if status in _BY_STATUS:
        what, fix = _BY_STATUS[status]
    elif status >= 500:
        what, fix = "the Hub has trouble of its own", f"wait a little; {_AGAIN}"
    else:
        what, fix = "the Hub refused", "see what it says"
    return HubError(f"{what} {said}", where=repository, fix=fix)


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error and what caused it, outermost first: a thread of an upload wraps what happened to it."""
    found: BaseException | None = error
    while found is not None:
        yield found
        found = found.__cause__


def _words(text: str) -> str:
    """A message on one line, without the keys of signed URLs."""
    return " ".join(_QUERY.sub(r"\1", text).split())
