"""500px's image host: ``/p/{number}/{size}.jpg?sig=...&expiry=...``, signed addresses that end at their expiry.

Source: path and query of such addresses as clients of September 2026 take them apart; how they are signed is not known.
"""

import hmac
import re
import time
from collections.abc import Callable, Mapping
from urllib.parse import parse_qs, urlsplit

from tasks.sources.standin.answer import Answer
from tasks.sources.standin.catalogue import Catalogue
from tasks.sources.standin.facts import Photo
from tasks.sources.standin.faults import FaultScript
from tasks.sources.standin.images import HostHabits, ImageHost
from tasks.sources.standin.px500_rows import SIZES
from tasks.sources.standin.sizes import Size, SizedPhoto

PATH = re.compile(r"/p/(?P<id>\d+)/(?P<size>size_\w+)\.jpg")
KEY = b"the stand-in's own"


class Px500Images(ImageHost):
    """Signs addresses and answers for them. ``life_s``: how long an address is good."""

    def __init__(
        self, catalogue: Catalogue, faults: FaultScript, habits: HostHabits, base_url: str, life_s: float,
        clock: Callable[[], float] = time.time,
    ) -> None:  # fmt: skip
        super().__init__(catalogue, faults, habits)
        self.base_url, self.life_s, self.clock = base_url, life_s, clock

    def sign(self, photo: Photo, size: str) -> str:
        """A fresh address of ``photo`` in one of SIZES."""
        path, expiry = f"/p/{photo.id}/{size}.jpg", str(int(self.clock() + self.life_s))
        return f"{self.base_url}{path}?sig={_signature(path, expiry)}&expiry={expiry}"

    def _answer(self, path: str, headers: Mapping[str, str], client: str) -> Answer:
        address = urlsplit(path)
        words = {name: values[0] for name, values in parse_qs(address.query).items()}
        expiry = words.get("expiry", "")
        is_signed = hmac.compare_digest(words.get("sig", "").encode(), _signature(address.path, expiry).encode())
        if not is_signed or int(expiry) <= self.clock():
            return Answer(403, b"Forbidden", {"Content-Type": "text/plain"})
        return super()._answer(address.path, headers, client)

    def _find(self, path: str) -> SizedPhoto | None:
        """The photo of this address, upright and never larger than it was uploaded."""
        parts = PATH.fullmatch(path)
        photo = self.catalogue.photo(parts["id"]) if parts else None
        if (
            parts is None
            or photo is None
            or parts["size"] not in SIZES
            or (photo.is_deleted and not photo.is_file_kept)
        ):
            return None
        width, height = photo.picture.shown_size
        long_px = SIZES[parts["size"]]
        scale = min(1.0, long_px / max(width, height))
        return SizedPhoto(photo, Size(parts["size"], "", "", long_px), round(width * scale), round(height * scale))


def _signature(path: str, expiry: str) -> str:
    """What the host expects beside this path and expiry."""
    return hmac.new(KEY, f"{path}?{expiry}".encode(), "sha256").hexdigest()[:16]
