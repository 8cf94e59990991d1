"""Flickr's REST endpoint: one call, and what its errors mean for a run.

Source: https://www.flickr.com/services/api/ (pages flickr.photos.search and flickr.photos.licenses.getInfo).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar
from urllib.parse import urlsplit

from storage.settings import Settings
from tasks import verdicts, web
from tasks.addresses import redact
from tasks.errors import (
    ConfigError,
    CredentialsRejected,
    DarkroomError,
    PermanentSourceError,
    SourceChanged,
    SourceUnavailable,
)
from tasks.sources.flickr_rows import Json, Licences, integer, text

T = TypeVar("T")

KEY_PAGE = "https://www.flickr.com/services/apps/create/"
TRIES = 4  # of a call that fails for a passing reason

_KEY_REJECTED = {96, 97, 98, 99, 100}
_IMPOSSIBLE = {
    3: "the query has nothing that Flickr can search for: give it text, tags, a bbox or dates",
    95: "Flickr wants https: set DARKROOM_FLICKR_URL accordingly",
}


class PhotoGone(PermanentSourceError):
    """Flickr shows no photo of this id: it is deleted, private, or never was."""


class TooManyResults(ConfigError):
    """Flickr lists no result so far down: ask for less at once."""


@dataclass
class Api:
    """Flickr's REST endpoint. ``calls`` counts what was spent of the hourly quota."""

    client: web.Client
    settings: Settings
    calls: int = 0

    def call(self, method: str, read: Callable[[Json], T], **arguments: str) -> T:
        """What ``read`` finds in the reply to ``method``. Passing faults and unreadable replies are asked for again."""
        attempt, key = 0, self._key()
        while True:
            answer = self._get(method, arguments)
            if (refusal := web.failure(answer)) and answer.outcome != "truncated":
                raise refusal
            try:
                return read(readable(method, answer, key))
            except (SourceUnavailable, SourceChanged) as error:
                attempt += 1
                if attempt == TRIES:
                    raise _at(answer.url, error) from None
            self.client.sleep(self.client.limits.backoff(attempt - 1))

    def _key(self) -> str:
        return self.settings.flickr_api_key.get_secret_value() if self.settings.flickr_api_key else ""

    def _get(self, method: str, arguments: Mapping[str, str]) -> verdicts.Answer:
        """One call."""
        fixed = {"method": method, "format": "json", "nojsoncallback": "1"}
        secret = {"api_key": self._key()}
        self.calls += 1
        url = self.settings.flickr_url
        hosts = frozenset({urlsplit(url).netloc})
        return self.client.get(url, kind="api", hosts=hosts, params=fixed | dict(arguments) | secret)


def readable(method: str, answer: verdicts.Answer, key: str = "") -> Json:
    """The reply in ``answer``; raises what its error code says, less ``key``, and SourceChanged if it is no reply."""
    verdict = verdicts.classify_reply(method, answer)
    code, message = integer(verdict.reply.get("code")), redact(text(verdict.reply.get("message")) or "", key)
    match verdict.what:
        case "ok":
            return verdict.reply
        case "retry" if verdict.reply.get("stat") != "fail":
            raise changed(method, "stat" if verdict.reply else "the whole body")
        case "retry":
            raise SourceUnavailable(
                f"Flickr's {method} is out of order for a moment ({code}: {message}): run again later"
            )
        case "gone":
            raise PhotoGone(f"{method}: {code}: {message}")
        case "split":
            raise TooManyResults("the query has more results than Flickr lists: narrow it by its dates of upload")
        case _:
            raise _refusal(method, code, message)


def _refusal(method: str, code: int | None, message: str) -> DarkroomError:
    """The exception for a call that no repetition helps: get another key, ask otherwise, or give up."""
    if code in _KEY_REJECTED:
        what = "expired" if "expired" in message else "malformed" if "format" in message else "not accepted"
        return CredentialsRejected(f"Flickr says that FLICKR_API_KEY is {what} ({code}): get a valid key at {KEY_PAGE}")
    if code in _IMPOSSIBLE:
        return ConfigError(_IMPOSSIBLE[code])
    return PermanentSourceError(
        f"Flickr refuses {method} ({code}: {message}): asking again will not help, change the query"
    )


def changed(method: str, place: str) -> SourceChanged:
    """The exception for a reply in which ``place`` is not what the documentation says."""
    hint = "check DARKROOM_FLICKR_URL, or update Darkroom"
    return SourceChanged(f"Flickr's {method} answered, but {place!r} cannot be read: {hint}", field=place)


def _at(url: str, error: DarkroomError) -> DarkroomError:
    """``error`` with the URL that it happened at, if it is one that tells."""
    if isinstance(error, SourceChanged):
        error.url = url
    return error


def parse_licences(reply: Json) -> Licences:
    """(name, URL) of every licence that Flickr knows now, by id: names and ids have changed before."""
    try:
        found = [[text(item[name]) for name in ("id", "name", "url")] for item in reply["licenses"]["license"]]
        return {number: (name or "", url or "") for number, name, url in found if number}
    except (KeyError, TypeError, ValueError):
        raise changed("flickr.photos.licenses.getInfo", "licenses.license") from None
