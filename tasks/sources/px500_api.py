"""500px's GraphQL endpoint: what is asked, in which words, under which headers, and what its refusals mean.

The site documents none of this. SCHEMA is the day whose schema these queries speak; when the site changes, this file
and px500_rows.py change, and nothing else does. Reports of which headers it wants differ, so all of them are sent: both
spellings of the device id, the CSRF token as header and cookie, platform, Origin and Referer.

Source: the requests of the site's own pages, as clients of September 2026 repeat them
(github.com/mikf/gallery-dl/issues/9754, github.com/searxng/searxng/pull/6716).
"""

import re
import secrets
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any, TypeVar
from urllib.parse import urlsplit

from storage.settings import Settings
from tasks import web
from tasks.errors import PermanentSourceError, SourceChanged, SourceUnavailable
from tasks.sources.px500_rows import PX500_PAGES, Json, mapping, pages_of
from tasks.verdicts import classify

T = TypeVar("T")

SCHEMA = "2026-09-14"
PHOTO_FACTS = (
    "id title uploadedAt takenAt width height category downloadable isNsfw isPrivate isDeleted isInReview "
    "needLoginToView taggedAigc userDeclaredAigc licensing { status } uploader { id username displayName } "
    "urls { size_600 size_1024 size_2048 size_4k }"
)
AI_OPT_IN = "aiTrainingOptIn"  # seen on videos; whether photos have it, the site says when it is asked for
SEARCH_QUERY = """
query searchResource(
  $keyword: String!, $type: SearchType, $first: Int!, $after: String, $resourceTypes: [SearchResourceType!],
  $categories: [String!], $sort: SearchSortOption, $excludeNsfw: Boolean
) {
  searchResource(
    keyword: $keyword, type: $type, first: $first, after: $after, resourceTypes: $resourceTypes,
    categories: $categories, sort: $sort, excludeNsfw: $excludeNsfw
  ) {
    totalCount
    edges { node { __typename ... on Photo { %(facts)s } } }
    pageInfo { hasNextPage endCursor }
  }
}"""
PHOTO_QUERY = "query getPhotoById($id: ID!) { getPhotoById(id: $id) { __typename %(facts)s } }"
QUERIES = {"searchResource": SEARCH_QUERY, "getPhotoById": PHOTO_QUERY}
NEWEST, RELEVANCE = "CREATED_AT_DESC", "RELEVANCE"  # the first is the word of the site's other lists
GUESSES = frozenset({AI_OPT_IN, NEWEST})  # what is left out once the site says that it does not know it

DEVICE, CSRF = "x-500px-device-id-prod", "x-500px-csrf-token-prod"
TRIES = 4  # of a call that fails for a passing reason

_COOKIE = re.compile(rf"\b({DEVICE}|{CSRF})=([^;,\s]+)")


@dataclass(frozen=True)
class Session:
    """Who this process is to one endpoint, and which of our GUESSES that endpoint has turned down."""

    device_id: str
    csrf_token: str
    unknown: set[str] = field(default_factory=set)

    def headers(self, pages: str) -> dict[str, str]:
        """Everything that any client was seen to need; who asks says the User-Agent of tasks/web.py."""
        return {
            "Accept": "application/graphql-response+json, application/json;q=0.9", "Content-Type": "application/json",
            "Origin": pages, "Referer": f"{pages}/", "x-500px-platform": "Web",
            "x-500px-device-id": self.device_id, DEVICE: self.device_id, CSRF: self.csrf_token,
            "Cookie": f"{DEVICE}={self.device_id}; {CSRF}={self.csrf_token}",
        }  # fmt: skip


class CsrfRefused(PermanentSourceError):
    """The endpoint does not take the session; a fresh one may do."""


class PhotoGone(PermanentSourceError):
    """There is no such photo, or none that anybody may see."""


class Unreadable(SourceUnavailable):
    """HTTP is content, but there is no answer in it; the next one may be better."""


class Unknown(PermanentSourceError):
    """The endpoint does not know some of our GUESSES: ``names``."""

    def __init__(self, names: set[str]) -> None:
        super().__init__(f"500px does not know {', '.join(sorted(names))}")
        self.names = names


@cache
def session(endpoint: str) -> Session:
    """The session of this process with ``endpoint``: the cookies of its first page, or else our own.

    Neither value is a secret of anybody's: the site wants to see some, and the same in header and cookie.
    """
    pages = pages_of(endpoint)
    answer = web.client().get(f"{pages}/", kind="api", hosts=frozenset({urlsplit(pages).netloc}))
    given = dict(_COOKIE.findall(answer.headers.get("Set-Cookie", "")))
    return Session(given.get(DEVICE, str(uuid.uuid4())), given.get(CSRF, secrets.token_urlsafe(32)))


@dataclass
class Api:
    """The endpoint. ``calls`` counts what it was asked."""

    client: web.Client
    settings: Settings
    calls: int = 0

    @property
    def is_newest_first(self) -> bool:
        """Whether a search lists the newest first; not where the endpoint does not know that order."""
        return NEWEST not in session(self.settings.px500_url).unknown

    def call(self, operation: str, read: Callable[[Json], T], **variables: Any) -> T:
        """What ``read`` finds in ``data`` of the reply to ``operation``. Passing faults are asked for again, a session
        that is refused is replaced once, and a guess that the site does not know is left out from then on.
        """
        attempt, is_fresh = 0, False
        while True:
            try:
                return read(self._ask(operation, variables))
            except Unknown:
                continue  # there are as many rounds of this as there are guesses
            except CsrfRefused:
                if is_fresh:
                    raise changed("session", "no session of ours is accepted") from None
                is_fresh = True
                session.cache_clear()
            except Unreadable:
                attempt += 1
                if attempt == TRIES:
                    raise
                self.client.sleep(self.client.limits.backoff(attempt - 1))

    def _ask(self, operation: str, variables: Mapping[str, Any]) -> Json:
        """``data`` of the reply to one call. Raises what its errors say."""
        url = self.settings.px500_url
        now = session(url)
        guesses = GUESSES - now.unknown
        facts = f"{PHOTO_FACTS} {AI_OPT_IN}" if AI_OPT_IN in guesses else PHOTO_FACTS
        values = dict(variables)
        if operation == "searchResource":
            values["sort"] = NEWEST if NEWEST in guesses else RELEVANCE
        payload = {"operationName": operation, "variables": values, "query": QUERIES[operation] % {"facts": facts}}
        self.calls += 1
        answer = self.client.post_json(
            url, payload, kind="api", hosts=frozenset({urlsplit(url).netloc}), headers=now.headers(pages_of(url))
        )
        try:
            return parse_reply(answer, operation, guesses)
        except Unknown as refusal:
            now.unknown.update(refusal.names)
            raise


def parse_reply(answer: web.Answer, operation: str, guesses: frozenset[str] = frozenset()) -> Json:
    """``data`` of a reply, which has something of ``operation``. Raises what the reply says otherwise.

    ``guesses``: words of the query that the site may not know.
    """
    verdict = classify(answer, operation)
    if verdict.what == "ok":
        return mapping(verdict.reply["data"])
    if answer.status == 422 or "csrf" in verdict.reason.lower():
        raise CsrfRefused(f"500px refuses the session: {verdict.reason}")
    if refused := {name for name in guesses if re.search(rf"\b{name}\b", verdict.reason)}:
        raise Unknown(refused)
    if verdict.what == "fatal" and answer.outcome == "ok":
        raise changed("data", f"it is retired or in maintenance ({verdict.reason})")
    if verdict.what == "fatal":
        raise changed("query", f"it refuses {operation} ({verdict.reason})")
    if answer.outcome != "truncated" and (refusal := web.failure(answer)):  # among them a 404, which is no photo's
        raise refusal
    if verdict.what == "gone":
        raise PhotoGone(f"{operation}: {verdict.reason} (HTTP {answer.status})")
    raise Unreadable(f"500px could not answer {operation} ({verdict.reason}): run again later")


def changed(place: str, what: str) -> SourceChanged:
    """The exception for a site that no longer is what SCHEMA says."""
    return SourceChanged(
        f"500px's API cannot be asked as on {SCHEMA}, {what}: look at {PX500_PAGES}, or update Darkroom", field=place
    )
