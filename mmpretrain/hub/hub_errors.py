"""What the Hub's errors mean, in one sentence each; never a token, never a request's headers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError

from mmpretrain.problems import one_line

TRANSIENT = (408, 429, 500, 502, 503, 504)


class PushError(ValueError):
    """A release cannot be pushed; ``problems`` holds one sentence each."""

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = list(problems)
        super().__init__("\n".join(self.problems))


def status_of(error: BaseException) -> int | None:
    """The status of the answer that an error comes from; None without an answer."""
    found = [cause for cause in _causes(error) if isinstance(cause, HfHubHTTPError)]
    return int(found[0].response.status_code) if found and found[0].response is not None else None


def transient(error: BaseException) -> bool:
    """Whether another try may go well: the server is busy, or the connection broke."""
    status = status_of(error)
    if status is not None:
        return status in TRANSIENT
    return any(isinstance(cause, ConnectionError | TimeoutError) or _of_transport(cause) for cause in _causes(error))


def wait_asked(error: BaseException, usual: float, longest: float) -> float:
    """Seconds to wait: what the server asks for, if it does and that is not too long."""
    for cause in _causes(error):
        asked = cause.response.headers.get("Retry-After", "") if isinstance(cause, HfHubHTTPError) else ""
        if asked.isdigit():
            return max(usual, min(float(asked), longest))
    return usual


def told(error: BaseException, repo: str) -> PushError:
    """The same as a sentence that says what to do."""
    status, owner = status_of(error), repo.split("/")[0]
    if isinstance(error, PushError):
        return error
    sentences = {
        401: f"the Hub knows no token that may write to {repo}: set HF_TOKEN, or run `hf auth login` once",
        403: f"the token may not write to {repo}: give it the write permission for {owner} on the Hub",
        404: f"there is no {repo} on the Hub, or the token may not see it: check the name",
        412: f"somebody pushed to {repo} meanwhile: look at what is there, and push again",
        429: f"the Hub takes no more requests for now (while pushing to {repo}): push again later",
    }
    if isinstance(error, RepositoryNotFoundError) and status not in (401, 404):
        status = 404
    if status in sentences:
        return PushError([sentences[status]])
    if transient(error):
        return PushError(
            [f"the Hub cannot be reached ({one_line(_root(error))}): push again, what was sent is not sent twice"]
        )
    return PushError([f"the Hub refused the push to {repo} ({one_line(_root(error))})"])


def _of_transport(error: BaseException) -> bool:
    # The client's HTTP library is its own affair, and has changed before.
    names = {kind.__name__ for kind in type(error).__mro__}
    return "TransportError" in names


def _root(error: BaseException) -> Exception:
    *_, last = (cause for cause in _causes(error) if isinstance(cause, Exception))
    return last


def _causes(error: BaseException) -> Iterator[BaseException]:
    found: BaseException | None = error
    while found is not None:
        yield found
        found = found.__cause__ or found.__context__
