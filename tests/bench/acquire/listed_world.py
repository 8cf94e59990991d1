"""Photos that are only listed, by the hundred thousand: their facts, and upload dates as uneven as a site's.

Uploads become more frequent over twenty years; one in ten falls on one of twelve busy days.
"""

import random
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from tasks.sources.standin import Catalogue, Photo, Picture

FIRST, LAST = datetime(2005, 1, 1, tzinfo=UTC), datetime(2025, 6, 1, tzinfo=UTC)
BUSY_DAYS, BUSY_SHARE = 12, 0.1
WORD = "harbour"


def listed_world(count: int, seed: int = 3) -> Catalogue:
    """A catalogue of ``count`` photos, all of which a search for WORD finds."""
    catalogue = Catalogue()
    catalogue.put(_photos(count, seed))
    return catalogue


def _photos(count: int, seed: int) -> Iterator[Photo]:
    chance, span_s = random.Random(seed), (LAST - FIRST).total_seconds()
    templates = Catalogue.synthetic(200, seed).photos()
    busy = [FIRST + timedelta(seconds=int(span_s * chance.random() ** 0.5)) for _ in range(BUSY_DAYS)]
    for number in range(count):
        like = templates[number % len(templates)]
        if chance.random() < BUSY_SHARE:
            uploaded_at = chance.choice(busy) + timedelta(seconds=chance.randrange(86_400))
        else:
            uploaded_at = FIRST + timedelta(seconds=int(span_s * chance.random() ** 0.5))
        yield replace(
            like,
            id=str(55_000_000_000 + number),
            picture=Picture(1600, 1066),
            tags=(*like.tags, WORD),
            uploaded_at=uploaded_at,
            updated_at=uploaded_at,
            taken_at=uploaded_at - timedelta(days=2),
            is_original_public=True,
        )
