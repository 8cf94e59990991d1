"""Flickr's REST methods over a catalogue. JSON only: any other format is answered with error 111, in XML.

Source: flickr.com/services/api; error codes of its methods; 3,600 calls an hour, of its developer guide.
"""

import json
import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from urllib.parse import urlencode

from tasks.sources.standin.answer import Answer, RollingCount, html_answer
from tasks.sources.standin.catalogue import Catalogue
from tasks.sources.standin.facts import Photo
from tasks.sources.standin.faults import CHANGES, Fault, FaultScript
from tasks.sources.standin.flickr_rows import (
    LICENCES,
    Json,
    exif_rows,
    info_row,
    listing_row,
    size_rows,
    uneven,
    unix,
)
from tasks.sources.standin.photo_search import (
    ApiFailureError,
    Arguments,
    Page,
    SearchHabits,
    UploadOrder,
    search,
    user_photos,
)

UNAVAILABLE = "Sorry, the Flickr API service is not currently available."
MESSAGES = {0: UNAVAILABLE, 10: "The Flickr API search databases are temporarily unavailable.", 201: UNAVAILABLE}
CALLBACK = "jsonFlickrApi"


@dataclass(frozen=True)
class Keys:
    """Which API keys are good: ``only`` this one, or any of 32 hexadecimal digits; ``expired`` ones never are."""

    only: str | None = None
    expired: frozenset[str] = frozenset()

    def check(self, key: str) -> None:
        """Raises ApiFailureError 100 in the site's words."""
        if key in self.expired:
            raise ApiFailureError(100, "Invalid API Key (Key has expired)")
        if not re.fullmatch(r"[0-9a-f]{32}", key) or key != (self.only or key):
            raise ApiFailureError(100, "Invalid API Key (Key has invalid format)")


class FlickrApi:
    """Answers calls; ``image_host`` is where the addresses in its answers point."""

    def __init__(
        self,
        catalogue: Catalogue,
        quota: RollingCount,
        faults: FaultScript,
        *,
        image_host: str,
        keys: Keys,
        habits: SearchHabits,
        retry_after_s: int | None = None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.catalogue, self.quota, self.faults = catalogue, quota, faults
        self.image_host, self.keys, self.habits = image_host, keys, habits
        self.retry_after_s, self.clock = retry_after_s, clock
        self.calls: Counter[str] = Counter()
        self.by_upload = UploadOrder()

    def answer(self, args: Arguments) -> Answer:
        """The response to one call. Only calls that the quota admits are counted."""
        method = args.get("method", "")
        if not self.quota.admit():
            return html_answer(429, "You have sent too many requests in a given amount of time.", self.retry_after_s)
        self.calls[method] += 1
        identity = urlencode(sorted((k, v) for k, v in args.items() if k != "api_key"))
        fault = self.faults.draw("api", f"{method}?{identity}", identity)
        if fault is not None and fault.kind.startswith("http_"):
            return html_answer(fault.number, "The site cannot answer.", fault.retry_after_s)
        reply = self._reply(method, args, fault)
        if fault is not None and fault.kind in CHANGES:
            shown = reply.get("photos")
            overtake(self.catalogue, fault, [row["id"] for row in shown["photo"]] if isinstance(shown, dict) else [])
        whole = _encoded(reply, args)
        return whole if fault is None else damaged(whole, fault)

    def _reply(self, method: str, args: Arguments, fault: Fault | None) -> Json:
        """The JSON object, ``stat`` included."""
        try:
            if fault is not None and fault.kind.startswith("code_"):
                raise ApiFailureError(fault.number, MESSAGES.get(fault.number, "Service currently unavailable"))
            if args.get("format") != "json":
                raise ApiFailureError(111, f'Format "{args.get("format", "rest")}" not found')
            if method not in METHODS:
                raise ApiFailureError(112, f'Method "{method}" not found')
            self.keys.check(args.get("api_key", ""))
            return METHODS[method](self, args) | {"stat": "ok"}
        except ApiFailureError as failure:
            return {"stat": "fail", "code": failure.code, "message": str(failure)}

    def visible_photo(self, args: Arguments) -> Photo:
        """The photo that ``photo_id`` names, if a stranger may see it. Raises code 1."""
        photo_id = args.get("photo_id", "")
        photo = self.catalogue.photo(photo_id)
        if photo is None or photo.is_deleted or not photo.is_public:
            raise ApiFailureError(
                1, f'Photo "{photo_id}" not found (invalid ID)' if photo is None else "Photo not found"
            )
        return photo


def _encoded(reply: Json, args: Arguments) -> Answer:
    """JSON, bare or in its callback; XML for the one error that XML gets."""
    headers = {"Content-Type": "application/json", "X-Robots-Tag": "noindex", "Via": "1.1 standin (CloudFront)"}
    if args.get("format") != "json":
        text = f'<?xml version="1.0" encoding="utf-8" ?>\n<rsp stat="fail">\n\t<err code="{reply["code"]}" '
        body = text + 'msg="This format is not found: ask for format=json" />\n</rsp>\n'
        return Answer(200, body.encode(), headers | {"Content-Type": "text/xml; charset=utf-8"})
    body = json.dumps(reply, ensure_ascii=False)
    if args.get("nojsoncallback") != "1":
        body = f"{args.get('jsoncallback', CALLBACK)}({body})"
    return Answer(200, body.encode("utf-8", "surrogatepass"), headers)


def overtake(catalogue: Catalogue, fault: Fault, shown: list[str]) -> None:
    """Change what the site has behind a reply that shows the photos ``shown``."""
    if shown and fault.kind == "deletion":
        catalogue.delete(shown[0])
    elif shown:
        catalogue.upload_before(shown[0])


def damaged(whole: Answer, fault: Fault) -> Answer:
    """``whole`` as the fault lets it through."""
    if fault.kind == "half_body":
        return Answer(200, whole.body[: len(whole.body) // 2], whole.headers)
    if fault.kind == "html":
        return html_answer(200, "Flickr is having a massage.")
    if fault.kind == "trailing_comma":
        return Answer(200, whole.body[:-1] + b"," + whole.body[-1:], whole.headers)
    if fault.kind == "redirect":
        return Answer(302, headers={"Location": fault.location})
    if fault.kind in ("stall", "reset", "endless"):
        return Answer(whole.status, whole.body, whole.headers, fault.kind, fault.seconds)
    return whole


def _photo_page(api: FlickrApi, page: Page, args: Arguments) -> Json:
    extras = {part.strip() for part in args.get("extras", "").split(",")}
    return {
        "photos": {
            "page": page.number,
            "pages": page.pages,
            "perpage": page.per_page,
            "total": uneven(page.total, "total", page.number, page.total),
            "photo": [listing_row(photo, extras, api.image_host) for photo in page.photos],
        }
    }


def photos_search(api: FlickrApi, args: Arguments) -> Json:
    """flickr.photos.search."""
    photos = api.by_upload.around(api.catalogue.photos(), args)
    return _photo_page(api, search(photos, args, api.habits, api.clock()), args)


def people_get_photos(api: FlickrApi, args: Arguments) -> Json:
    """flickr.people.getPhotos."""
    return _photo_page(api, user_photos(api.catalogue.photos(), args, api.clock()), args)


def photos_get_info(api: FlickrApi, args: Arguments) -> Json:
    """flickr.photos.getInfo."""
    return {"photo": info_row(api.visible_photo(args))}


def photos_get_sizes(api: FlickrApi, args: Arguments) -> Json:
    """flickr.photos.getSizes."""
    return {"sizes": size_rows(api.visible_photo(args), api.image_host)}


def photos_get_exif(api: FlickrApi, args: Arguments) -> Json:
    """flickr.photos.getExif; code 2 where the owner hides it."""
    photo = api.visible_photo(args)
    if not photo.is_exif_public:
        raise ApiFailureError(2, "Permission denied")
    return {"photo": exif_rows(photo)}


def licenses_get_info(api: FlickrApi, args: Arguments) -> Json:
    """flickr.photos.licenses.getInfo, not in the order of the ids."""
    rows = [{"id": uneven(number, "licence", number), "name": name, "url": url} for number, name, url in LICENCES]
    return {"licenses": {"license": rows}}


def licenses_get_history(api: FlickrApi, args: Arguments) -> Json:
    """flickr.photos.licenses.getLicenseHistory; one entry with an empty new licence if it never changed."""
    photo = api.visible_photo(args)
    names = {number: (name, url) for number, name, url in LICENCES}
    unknown = ("", "")
    changes = [
        (unix(c.changed_at), names.get(c.old, unknown), names.get(c.new, unknown)) for c in photo.licence_history
    ]
    rows = [
        {
            "date_change": date,
            "old_license": old[0],
            "old_license_url": old[1],
            "new_license": new[0],
            "new_license_url": new[1],
        }
        for date, old, new in changes or [(unix(photo.uploaded_at), names.get(photo.licence, unknown), unknown)]
    ]
    return {"license_history": rows}


def test_echo(api: FlickrApi, args: Arguments) -> Json:
    """flickr.test.echo."""
    return {name: {"_content": value} for name, value in args.items()}


METHODS: Mapping[str, Callable[[FlickrApi, Arguments], Json]] = {
    "flickr.photos.search": photos_search,
    "flickr.people.getPhotos": people_get_photos,
    "flickr.photos.getInfo": photos_get_info,
    "flickr.photos.getSizes": photos_get_sizes,
    "flickr.photos.getExif": photos_get_exif,
    "flickr.photos.licenses.getInfo": licenses_get_info,
    "flickr.photos.licenses.getLicenseHistory": licenses_get_history,
    "flickr.test.echo": test_echo,
}
