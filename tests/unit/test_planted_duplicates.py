"""Every kind of repost that the stand-in plants is found, and nothing else is."""

import hashlib

import pyarrow as pa

from tasks.dedup import groups
from tasks.duplicates.copies import photos_of
from tasks.measure import measure_photo
from tasks.pictures import imaging
from tasks.sources.standin.catalogue import Catalogue
from tasks.sources.standin.world import DUPLICATES

COLUMNS = ["source", "photo_id", "sha256", "phash_probes", "thumbnail"]


def test_all_planted_reposts_are_found_and_nothing_else() -> None:
    """Of an invented world, whose pictures are of low contrast, each repost of each kind joins its original alone."""
    catalogue = Catalogue.synthetic(100, seed=1, min_long_px=300, max_long_px=360)
    photos = [photo for photo in catalogue.photos() if photo.defect is None]
    assert {photo.duplicate_kind for photo in photos} - {None} == set(DUPLICATES)
    rows = []
    for number, photo in enumerate(photos):
        data = catalogue.original(photo.id)
        name = {"source": "s", "photo_id": f"{number:04}", "sha256": hashlib.sha256(data).hexdigest()}
        rows.append(name | measure_photo(data))
    table = pa.table({name: [row[name] for row in rows] for name in COLUMNS})
    places = {photo.id: place for place, photo in enumerate(photos)}
    planted = [places[photo.duplicate_of or photo.id] for photo in photos]

    def look(at: int) -> imaging.Pixels:
        data, orientation = catalogue.original(photos[at].id), rows[at]["exif_orientation"]
        return imaging.to_grey(imaging.decode_measured(data, orientation))

    assert groups(photos_of(table, look), 7).tolist() == planted
