"""The image host: ``/{server}/{id}_{secret}[_{suffix}][_d].{ext}``, as live.staticflickr.com answers.

Source: flickr.com/services/api/misc.urls.html; headers as captured: chunked without a length, strong quoted ETag, the
byte count in ``x-ttdb-l``.
"""

import io
import re
import threading
import zlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC
from email.utils import format_datetime
from functools import lru_cache

from PIL import Image

from tasks.sources.standin.answer import Answer, RollingCount, html_answer
from tasks.sources.standin.catalogue import Catalogue
from tasks.sources.standin.defects import BYTES, spoil
from tasks.sources.standin.facts import secret
from tasks.sources.standin.faults import Fault, FaultScript
from tasks.sources.standin.pictures import TYPES, original_bytes, rendition_bytes
from tasks.sources.standin.sizes import BY_SUFFIX, SizedPhoto, sized

PATH = re.compile(
    r"/(?P<server>\d+)/(?P<id>\d+)_(?P<secret>[0-9a-f]+)(?:_(?P<suffix>[a-z0-9]+?))??(?P<d>_d)?\.(?P<ext>\w+)"
)
UNAVAILABLE_PATH = "/images/photo_unavailable.jpg"
ODD_HEADERS = {  # a client that sends them back as they came says more than it meant to
    "ETag": '"a\x01\x7f\xe9\r\n\tX-Injected: yes"', "Last-Modified": "never\r\n X-Injected: yes",
    "Retry-After": "-1e999", "Content-Type": "image/jpeg;\x00\xff", "Content-Length ": "7", "": "nameless",
}  # fmt: skip


@dataclass(frozen=True)
class HostHabits:
    """How the host delivers.

    sends_length: Content-Length instead of chunks. serves_ranges: 206 for Range. limit: (files, seconds) allowed to one
    client address and User-Agent before 429, with retry_after_s if that is set.
    """

    sends_length: bool = False
    serves_ranges: bool = True
    limit: tuple[int, float] | None = None
    retry_after_s: int | None = None


class ImageHost:
    """Answers requests for files."""

    def __init__(self, catalogue: Catalogue, faults: FaultScript, habits: HostHabits) -> None:
        self.catalogue, self.faults, self.habits = catalogue, faults, habits
        self.statuses: Counter[int] = Counter()
        self._lock = threading.Lock()
        self._limits: dict[tuple[str, str], RollingCount] = {}

    def answer(self, path: str, headers: Mapping[str, str], client: str) -> Answer:
        """The response to a GET of ``path`` by ``client`` (its address)."""
        answer = self._answer(path, headers, client)
        with self._lock:
            self.statuses[answer.status] += 1
        return answer

    def _answer(self, path: str, headers: Mapping[str, str], client: str) -> Answer:
        if not self._admits(client, headers.get("User-Agent", "")):
            return html_answer(429, "Too Many Requests", self.habits.retry_after_s)
        fault = self.faults.draw("image", path, path)
        if fault is not None and fault.kind.startswith("http_"):
            return html_answer(fault.number, "The file cannot be sent.", fault.retry_after_s)
        if fault is not None and fault.kind in ("redirect_unavailable", "redirect"):
            return Answer(302, headers={"Location": fault.location or UNAVAILABLE_PATH})
        if path == UNAVAILABLE_PATH:
            return self._framed(Answer(200, _unavailable_picture(), {"Content-Type": "image/jpeg"}))
        found = self._find(path)
        if found is None or found.photo.defect == "missing":
            return Answer(404, headers={"Content-Type": "text/html"})
        return self._send(found, path, headers, fault)

    def _admits(self, client: str, agent: str) -> bool:
        """Whether the client stays below the limit; the key is its address and what it calls itself."""
        if self.habits.limit is None:
            return True
        with self._lock:
            count = self._limits.setdefault((client, agent), RollingCount(*self.habits.limit))
        return count.admit()

    def _find(self, path: str) -> SizedPhoto | None:
        """The photo and size of this address; every part of it must be right."""
        parts = PATH.fullmatch(path)
        photo = self.catalogue.photo(parts["id"]) if parts else None
        if parts is None or photo is None or (photo.is_deleted and not photo.is_file_kept):
            return None
        size = BY_SUFFIX.get(parts["suffix"] or "")
        found = sized(photo, size) if size else None
        plain = path.replace("_d.", ".")
        return found if found is not None and plain == f"/{found.path}" else None

    def _send(self, found: SizedPhoto, path: str, headers: Mapping[str, str], fault: Fault | None) -> Answer:
        """200, 206, 304 or 416 for an existing file."""
        tag = f'"{secret(found.photo.original_secret, found.size.label, "etag")}"'
        modified = format_datetime(found.photo.uploaded_at.astimezone(UTC), usegmt=True)
        if tag in headers.get("If-None-Match", "") or headers.get("If-Modified-Since") == modified:
            return Answer(304, headers={"ETag": tag, "Last-Modified": modified})
        try:
            body = _bytes_of(found)
        except OSError:  # a file of a folder that cannot be decoded has no renditions
            return Answer(404, headers={"Content-Type": "text/html"})
        answer = self._framed(
            Answer(200, body, _file_headers(found, path, len(body)) | {"ETag": tag, "Last-Modified": modified})
        )
        if fault is not None:
            return _damaged(answer, fault)
        wanted = headers.get("Range")
        if wanted and self.habits.serves_ranges and headers.get("If-Range", tag) == tag:
            return _part(answer, wanted)
        return answer

    def _framed(self, answer: Answer) -> Answer:
        """Chunked, unless the host sends lengths."""
        return replace(answer, delivery="whole" if self.habits.sends_length else "chunked")


def _bytes_of(found: SizedPhoto) -> bytes:
    """The file."""
    picture = found.photo.picture
    if found.size.long_px is None:
        return original_bytes(picture)
    return rendition_bytes(picture, found.width, found.height, found.size.is_square)


def _file_headers(found: SizedPhoto, path: str, size_bytes: int) -> dict[str, str]:
    """What the host says about a file."""
    kind = TYPES[found.photo.original_format] if found.size.long_px is None else "image/jpeg"
    headers = {
        "Content-Type": "text/html; charset=utf-8" if found.photo.defect == "html" else kind,
        "Cache-Control": "public, max-age=31536000",
        "imagewidth": str(found.width),
        "imageheight": str(found.height),
        "x-ttdb-l": str(size_bytes),
        "Accept-Ranges": "bytes",
    }
    if "_d." in path:
        headers["Content-Disposition"] = f"attachment; filename={found.file_name}"
    if found.photo.defect == "noimageai":
        headers["X-Robots-Tag"] = "noimageai"
    return headers


def _part(answer: Answer, wanted: str) -> Answer:
    """One range of bytes as 206, or 416; a range that cannot be read is ignored."""
    match = re.fullmatch(r"bytes=(\d*)-(\d*)", wanted.strip())
    size = len(answer.body)
    if match is None or not (match[1] or match[2]):
        return answer
    if match[1]:
        start, end = int(match[1]), min(int(match[2] or size - 1), size - 1)
    else:
        start, end = max(size - int(match[2]), 0), size - 1
    if start > end:
        return Answer(416, headers={"Content-Range": f"bytes */{size}"})
    headers = answer.headers | {"Content-Range": f"bytes {start}-{end}/{size}"}
    return Answer(206, answer.body[start : end + 1], headers)


def _damaged(answer: Answer, fault: Fault) -> Answer:
    """``answer`` as the fault lets it through."""
    if fault.kind in BYTES:
        headers = answer.headers | ({"Content-Type": "text/html"} if fault.kind == "html" else {})
        return replace(answer, body=spoil(fault.kind, answer.body), headers=headers)
    if fault.kind == "noimageai":
        return replace(answer, headers=answer.headers | {"X-Robots-Tag": "noimageai"})
    if fault.kind == "gzip_bomb":
        return replace(answer, body=_packed_zeros(), headers=answer.headers | {"Content-Encoding": "gzip"})
    if fault.kind == "odd_headers":
        return replace(answer, headers=answer.headers | ODD_HEADERS, delivery="truncated_stream")
    return replace(answer, delivery=fault.kind, seconds=fault.seconds)


@lru_cache(maxsize=1)
def _packed_zeros() -> bytes:
    """A quarter of a gigabyte in a quarter of a megabyte."""
    packer = zlib.compressobj(9, wbits=31)
    return b"".join(packer.compress(bytes(1 << 20)) for _ in range(1 << 8)) + packer.flush()


@lru_cache(maxsize=1)
def _unavailable_picture() -> bytes:
    """The grey picture that the site once showed instead of a missing one."""
    stream = io.BytesIO()
    Image.new("RGB", (500, 374), (214, 214, 214)).save(stream, "JPEG")
    return stream.getvalue()
