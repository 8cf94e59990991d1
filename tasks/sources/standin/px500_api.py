"""500px's GraphQL operations over a catalogue, by operation name and variables; the text of a query is only skimmed.

What the site does is known from its clients, and they disagree about headers: ``Px500Habits.is_strict`` asks for all
that any of them sends and knows only fields that one of them has seen; lenient asks for nothing. The address of the
older API answers what it answers since September 2026.

Source: github.com/mikf/gallery-dl/issues/9754, github.com/searxng/searxng/pull/6716 and the clients named there.
"""

import base64
import binascii
import json
import random
import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

from tasks.sources.standin.answer import Answer, html_answer
from tasks.sources.standin.catalogue import Catalogue
from tasks.sources.standin.facts import Photo
from tasks.sources.standin.faults import CHANGES, FaultScript
from tasks.sources.standin.flickr_api import damaged, overtake
from tasks.sources.standin.px500_images import Px500Images
from tasks.sources.standin.px500_rows import (
    CATEGORIES,
    NODES_PER_OTHER,
    Json,
    base62,
    category_of,
    is_nsfw,
    other_node,
    photo_node,
    user_node,
)

PX500_PATH = "/graphql"
LEGACY_PATH = "/legacy/graphql"  # of a host that now answers one thing only
DEVICES = ("x-500px-device-id", "x-500px-device-id-prod")
CSRF = "x-500px-csrf-token-prod"
RETIRED = {
    "data": None,
    "errors": [{"message": "A fresh version of 500px is rolling out", "extensions": {"code": "1503"}}],
}
WORD = re.compile(r"[^\W_]+")
NAME = re.compile(r"\$?[A-Za-z_]\w*")

# Every name that a client was seen to use, whatever the type that has it.
VOCABULARY = frozenset(
    NAME.findall(
        """query fragment on true false null __typename
    searchResource keyword type first after resourceTypes categories equipments downloadable sort excludeNsfw
    String Int ID Boolean SearchType SearchResourceType PhotoDownloadable SearchSortOption ResourceType
    ResourceSortOption TEXT RELEVANCE CREATED_AT_DESC edges cursor node pageInfo hasNextPage hasPreviousPage endCursor
    totalCount Photo PhotoGroup Video User id title description licensing status urls size_600 size_1024 size_2048
    size_4k uploader displayName username avatar isNsfw width height dominantColorLight dominantColorDark uploadedAt
    uploadedLocation takenAt location locationText camera lens aperture focalLength shutterSpeed iso category techniques
    isPrivate isDeleted isInReview needLoginToView aiArtAnalysis taggedAigc userDeclaredAigc geminiDetail style
    technique numCount publicItemCount coverPhotos videoUrl coverUrl publicResourceCount viewCount likeCount
    getPhotoById getPhotoByLegacyId legacyId getUser getUserProfile pageResources userId"""
    )
)


@dataclass(frozen=True)
class Px500Habits:
    """How the site behaves, where reports differ or times change.

    is_strict: wants headers, refuses unknown fields. in_maintenance: answers nothing but 1503. url_life_s: of a signed
    address. heeds_exclude_nsfw: excludeNsfw has an effect. is_mixed: lists hold more than photos, whatever is asked
    for. sorts: the orders that it knows. has_ai_opt_in: photos have aiTrainingOptIn. gone_as: what a hidden photo looks
    like, ``null``, ``error`` (null, with errors) or ``flags`` (isDeleted, isPrivate). gives_cookie: its first page sets
    one.
    """

    is_strict: bool = True
    in_maintenance: bool = False
    url_life_s: float = 3600.0
    heeds_exclude_nsfw: bool = False
    is_mixed: bool = True
    sorts: tuple[str, ...] = ("RELEVANCE",)
    has_ai_opt_in: bool = False
    gone_as: str = "null"
    gives_cookie: bool = True
    max_first: int = 100


class RefusalError(Exception):
    """An error of GraphQL, sent with ``status``."""

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.status = status


class Px500Api:
    """Answers operations; ``images`` signs the addresses in its answers."""

    def __init__(self, catalogue: Catalogue, faults: FaultScript, images: Px500Images, habits: Px500Habits) -> None:
        self.catalogue, self.faults, self.images, self.habits = catalogue, faults, images, habits
        self.calls: Counter[str] = Counter()

    def first_page(self) -> Answer:
        """What a browser opens first."""
        cookie = {"Set-Cookie": f"{CSRF}={base62('csrf')}; Path=/; Secure"} if self.habits.gives_cookie else {}
        return Answer(200, b"<!DOCTYPE html><title>500px</title>", {"Content-Type": "text/html"} | cookie)

    def answer(self, path: str, headers: Mapping[str, str], body: bytes) -> Answer:
        """The response to a POST; ``headers`` by their names in small letters."""
        if path == LEGACY_PATH or self.habits.in_maintenance:
            self.calls["retired"] += 1
            return _json_answer(200, RETIRED)
        try:
            if self.habits.is_strict:
                _check_headers(headers)
            operation, variables = self._read(body)
        except RefusalError as refusal:
            return _refused(refusal)
        self.calls[operation] += 1
        identity = f"{operation}{json.dumps(variables, sort_keys=True)}"
        fault = self.faults.draw("api", identity, identity)
        if fault is not None and fault.kind.startswith("http_"):
            return html_answer(fault.number, "The site cannot answer.", fault.retry_after_s)
        if fault is not None and fault.kind.startswith("code_"):
            error = {"message": "Something went wrong", "extensions": {"code": str(fault.number)}}
            return _json_answer(200, {"data": None, "errors": [error]})
        try:
            content = OPERATIONS[operation](self, variables)
        except RefusalError as refusal:
            return _refused(refusal)
        if fault is not None and fault.kind in CHANGES:
            overtake(self.catalogue, fault, self._shown(content))
        whole = _json_answer(200, content)
        return whole if fault is None else damaged(whole, fault)

    def _shown(self, content: Json) -> list[str]:
        """The photos that the answer of a search shows, as the catalogue calls them."""
        names = {base62(photo.id): photo.id for photo in self.catalogue.photos()}
        nodes = [edge["node"] for edge in content["data"].get("searchResource", {}).get("edges", [])]
        return [names[node["id"]] for node in nodes if node.get("id") in names]

    def _read(self, body: bytes) -> tuple[str, Json]:
        """Operation and variables. Raises RefusalError for what the server's own checks refuse."""
        try:
            request = json.loads(body)
            operation, variables, query = request["operationName"], request.get("variables") or {}, request["query"]
        except (ValueError, KeyError, TypeError):
            raise RefusalError("POST body missing, invalid Content-Type, or JSON object has no keys.") from None
        if not isinstance(variables, dict):
            raise RefusalError("`variables` in a POST body should be provided as an object, not as a string of JSON.")
        if "__schema" in query or "__type(" in query:
            raise RefusalError("GraphQL introspection is not allowed, but the query contained __schema or __type.")
        if operation not in OPERATIONS or ROOTS.get(operation, operation) not in query:
            raise RefusalError(f'Unknown operation named "{operation}".')
        if self.habits.is_strict:
            self._check_names(query)
        return operation, variables

    def _check_names(self, query: str) -> None:
        """Raises RefusalError for the first field that nobody has seen."""
        known = VOCABULARY | ({"aiTrainingOptIn"} if self.habits.has_ai_opt_in else set())
        fragments = set(re.findall(r"(?:\.\.\.|fragment )\s*(\w+)", query))
        operation = set(re.findall(r"query (\w+)", query))
        for name in NAME.findall(query):
            if not name.startswith("$") and name not in known | fragments | operation:
                raise RefusalError(f'Cannot query field "{name}" on type "Photo".')

    def node(self, photo: Photo) -> Json:
        """A photo with freshly signed addresses."""
        return photo_node(photo, self.images.sign, self.habits.has_ai_opt_in)

    def visible(self, photo: Photo | None) -> Json | None:
        """The photo as somebody sees it who names it. Raises RefusalError where it is hidden with an error."""
        if photo is None or ((photo.is_deleted or not photo.is_public) and self.habits.gone_as != "flags"):
            if self.habits.gone_as == "error":
                raise RefusalError("Photo not found", 200)
            return None
        flags = {"isDeleted": photo.is_deleted, "isPrivate": not photo.is_public}
        return self.node(photo) | (flags if any(flags.values()) else {})

    def page(self, photos: list[Photo], variables: Json) -> Json:
        """edges, pageInfo and totalCount of the page that ``first`` and ``after`` ask for. Raises RefusalError."""
        first = variables.get("first")
        if not isinstance(first, int) or isinstance(first, bool) or not 0 < first <= self.habits.max_first:
            raise RefusalError(f'Variable "$first" got invalid value {first!r}.')
        nodes: list[Photo | int] = list(photos)
        if self.habits.is_mixed:
            for place in range(NODES_PER_OTHER // 2, len(nodes), NODES_PER_OTHER):
                nodes.insert(place, place)
        start = _position(variables.get("after")) + 1
        chosen = nodes[start : start + first]
        edges = [
            {"cursor": _cursor(start + i), "node": other_node(node) if isinstance(node, int) else self.node(node)}
            for i, node in enumerate(chosen)
        ]
        info = {"hasNextPage": start + first < len(nodes), "endCursor": edges[-1]["cursor"] if edges else None}
        return {"totalCount": len(nodes), "edges": edges, "pageInfo": info | {"__typename": "PageInfo"}}


def search_resource(api: Px500Api, variables: Json) -> Json:
    """searchResource: photos whose words hold all of the keyword's, in one of the categories if any is named."""
    keyword, sort = variables.get("keyword"), variables.get("sort") or "RELEVANCE"
    if not isinstance(keyword, str):
        raise RefusalError('Variable "$keyword" of required type "String!" was not provided.')
    if sort not in api.habits.sorts:
        what = f'Value "{sort}" does not exist in "SearchSortOption" enum.'
        raise RefusalError(f'Variable "$sort" got invalid value "{sort}"; {what}')
    words, categories = set(WORD.findall(keyword.lower())), variables.get("categories") or CATEGORIES
    safe_only = api.habits.heeds_exclude_nsfw and variables.get("excludeNsfw")
    found = [
        photo
        for photo in api.catalogue.photos()
        if photo.is_public and not photo.is_deleted and category_of(photo) in categories
        if words and words <= _words_of(photo) and not (safe_only and is_nsfw(photo))
    ]
    return {"data": {"searchResource": api.page(_sorted(found, sort, keyword), variables)}}


def _words_of(photo: Photo) -> set[str]:
    """Everything that a search looks at."""
    return set(WORD.findall(" ".join((photo.title, photo.description, *photo.tags, category_of(photo))).lower()))


def _sorted(photos: list[Photo], sort: str, keyword: str) -> list[Photo]:
    """Newest first, or by a relevance that follows from photo and keyword."""
    if sort == "CREATED_AT_DESC":
        return sorted(photos, key=lambda photo: (photo.uploaded_at, photo.id), reverse=True)
    return sorted(photos, key=lambda photo: random.Random(f"{keyword}/{photo.id}").random())


def get_photo_by_id(api: Px500Api, variables: Json) -> Json:
    """getPhotoById."""
    wanted = variables.get("id")
    photo = next((photo for photo in api.catalogue.photos() if base62(photo.id) == wanted), None)
    return _nullable("getPhotoById", lambda: api.visible(photo))


def get_photo_by_legacy_id(api: Px500Api, variables: Json) -> Json:
    """getPhotoByLegacyId: by the number that a photo had before."""
    photo = api.catalogue.photo(str(variables.get("legacyId")))
    return _nullable("getPhotoByLegacyId", lambda: api.visible(photo))


def get_user_profile(api: Px500Api, variables: Json) -> Json:
    """getUserProfile, which answers getUser."""
    name = variables.get("username")
    owned = [photo for photo in api.catalogue.listed() if user_node(photo.owner)["username"] == name]
    user = user_node(owned[0].owner) | {"publicResourceCount": len(owned)} if owned else None
    return {"data": {"getUser": user}}


def page_resources(api: Px500Api, variables: Json) -> Json:
    """pageResources: what one user has uploaded, newest first."""
    owned = [photo for photo in api.catalogue.listed() if user_node(photo.owner)["id"] == variables.get("userId")]
    return {"data": {"pageResources": api.page(_sorted(owned, "CREATED_AT_DESC", ""), variables)}}


def _nullable(root: str, read: Callable[[], Json | None]) -> Json:
    """``data`` whose field is null where ``read`` refuses."""
    try:
        return {"data": {root: read()}}
    except RefusalError as refusal:
        return {"data": {root: None}, "errors": [{"message": str(refusal), "path": [root]}]}


def _check_headers(headers: Mapping[str, str]) -> None:
    """Raises RefusalError for what a browser would send and a client forgot."""
    if headers.get("content-type", "").partition(";")[0].strip() != "application/json":
        raise RefusalError("This operation has been blocked: its Content-Type is not application/json.", 415)
    if not any(headers.get(name) for name in DEVICES):
        raise RefusalError("Internal Server Error", 500)
    cookies = dict(part.strip().partition("=")[::2] for part in headers.get("cookie", "").split(";"))
    token = headers.get(CSRF, "")
    if not token or unquote(cookies.get(CSRF, "")) != token:
        raise RefusalError("CSRF invalid", 422)


def _cursor(position: int) -> str:
    """The cursor of the item at ``position``, the first being 0."""
    return base64.b64encode(f"pos-{position}".encode()).decode()


def _position(cursor: Any) -> int:
    """The position that a cursor names, -1 for none. Raises RefusalError."""
    if cursor is None:
        return -1
    try:
        return int(base64.b64decode(str(cursor), validate=False).decode().removeprefix("pos-"))
    except (binascii.Error, ValueError):
        raise RefusalError(f"Invalid cursor {cursor!r}") from None


def _json_answer(status: int, content: object) -> Answer:
    body = json.dumps(content, ensure_ascii=False).encode()
    return Answer(status, body, {"Content-Type": "application/graphql-response+json; charset=utf-8"})


def _refused(refusal: RefusalError) -> Answer:
    return _json_answer(refusal.status, {"errors": [{"message": str(refusal)}]})


ROOTS = {"getUserProfile": "getUser"}
OPERATIONS: dict[str, Callable[[Px500Api, Json], Json]] = {
    "searchResource": search_resource,
    "getPhotoById": get_photo_by_id,
    "getPhotoByLegacyId": get_photo_by_legacy_id,
    "getUserProfile": get_user_profile,
    "pageResources": page_resources,
}
