"""Find photos that show the same picture, whatever was done to it since: candidates by sketches, proof by thumbnails.

A pair is a candidate if any view of the one photo (``hashing``) is near the whole, the core or the framed part of the
other, in any orientation, or if two quarters of the one are near those of the other that lie in the same places once it
is turned, one of them very near; one is enough if it is all but equal. The lower right is not the first to be looked
up. Each way in which a pair seems to match is then tried on the thumbnails (``tasks.duplicates.registering``) until one
holds; where something stands out on one of them, the pictures themselves are looked at again
(``tasks.duplicates.marks``). Photos without views (flat pictures) match nothing.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain, repeat

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from tasks.duplicates.candidates import Indices, near_pairs
from tasks.duplicates.groups import Forest
from tasks.duplicates.marks import is_mark
from tasks.duplicates.registering import SAME, Agreement, Bar, Boxes, Planes, agreement, corrected_box, plane_of
from tasks.pictures import imaging
from tasks.pictures.hashing import (
    CORE,
    INNER_CROPS,
    TRANSPOSED,
    VIEW,
    WHOLE,
    between,
    quarters_of,
    turned_boxes,
    turned_sketches,
)

SEARCHED = 400_000  # matches that are collected before they are tried
_QUARTER_BITS = 3  # by which the better of two quarters may differ
_ALONE_BITS = 1  # by which a quarter may differ that no other quarter seconds
_TRIED = 1024  # at once: their arrays take 150 MB
_LOOKED_AT_PX = 192  # a side of pictures that are looked at again
_PLANES = 256  # of these that are kept: 40 MB
_AS_IT_LIES = 0.06  # of a side: boxes that differ by less may be the same
_INVERTED = np.array([0, *map(imaging.invert, range(1, 9))])

Look = Callable[[int], imaging.Pixels]


@dataclass(frozen=True)
class Photos:
    """Photos by photo key: their names, digests, views and thumbnails.

    ``views``: ``hashing.VIEW``, those of a photo one after the other; ``owners``: the photo of each view;
    ``is_anchor``: whether a view is one that others may meet turned; ``quarters``: which quarter it is, or 0.
    ``thumbnails``: photo x side x side. ``look`` gets the picture of a photo, upright and grey, height x width, of at
    least ``_LOOKED_AT_PX`` along its long side.
    """

    names: pa.Array
    sha256: pa.Array
    views: npt.NDArray[np.void]
    owners: Indices
    is_anchor: npt.NDArray[np.bool_]
    quarters: Indices
    thumbnails: npt.NDArray[np.uint8]
    look: Look

    def __len__(self) -> int:
        return len(self.names)

    def name(self, index: int) -> str:
        """``source/photo_id``."""
        return str(self.names[index].as_py())


def bytes_of(column: pa.ChunkedArray) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """The bytes of all rows of ``column`` behind each other, and how many each row has."""
    data, lengths = [], []
    for chunk in column.chunks:
        if len(chunk):
            wide = chunk.cast(pa.large_binary())
            _, ends, values = wide.buffers()
            places = np.frombuffer(ends, np.int64)[wide.offset : wide.offset + len(wide) + 1]
            data.append(np.frombuffer(values or b"", np.uint8)[places[0] : places[-1]])
            lengths.append(np.diff(places))
    return np.concatenate(data or [np.empty(0, np.uint8)]), np.concatenate(lengths or [np.empty(0, np.int64)])


def photos_of(table: pa.Table, look: Look, thumbnails: npt.NDArray[np.uint8] | None = None) -> Photos:
    """The rows of ``table`` (source, photo_id, sha256, phash_probes, thumbnail), in the order of their keys."""
    if thumbnails is None:
        thumbnails = bytes_of(table["thumbnail"])[0].reshape(table.num_rows, -1 if table.num_rows else 0)
    data, lengths = bytes_of(table["phash_probes"])
    views = data.view(VIEW)
    owners = np.repeat(np.arange(table.num_rows), lengths // VIEW.itemsize)
    quarters = quarters_of(views)
    counts = np.bincount(owners[quarters == 0], minlength=table.num_rows)
    after = np.cumsum(counts)[owners] - np.cumsum(quarters == 0) + 1  # of the photo from here on, but for quarters
    side = math.isqrt(thumbnails.shape[1])
    return Photos(
        names=pc.binary_join_element_wise(table["source"], table["photo_id"], "/").combine_chunks(),
        sha256=table["sha256"].combine_chunks(),
        views=views, owners=owners, is_anchor=(quarters == 0) & (after > INNER_CROPS), quarters=quarters,
        thumbnails=thumbnails.reshape(table.num_rows, side, side), look=look,
    )  # fmt: skip


def equal_bytes(sha256: pa.Array) -> tuple[Indices, Indices]:
    """The photos whose bytes an earlier photo has, and that photo, the first with these bytes."""
    codes = pc.dictionary_encode(sha256).indices.to_numpy(zero_copy_only=False)
    firsts = np.unique(codes, return_index=True)[1][codes] if len(codes) else codes
    later = np.flatnonzero(firsts != np.arange(len(codes)))
    return later, firsts[later]


@dataclass(frozen=True)
class Matches:
    """Ways in which pairs seem to match: a view of one photo, an anchor of another, its orientation, the distance."""

    views: Indices
    anchors: Indices
    orientations: Indices
    distances: npt.NDArray[np.uint16]

    def __len__(self) -> int:
        return len(self.views)

    def part(self, chosen: npt.NDArray[np.bool_] | Indices) -> "Matches":
        """Some of the matches."""
        return Matches(self.views[chosen], self.anchors[chosen], self.orientations[chosen], self.distances[chosen])

    @classmethod
    def together(cls, several: "list[Matches]") -> "Matches":
        """``several`` behind each other."""
        return cls(
            np.concatenate([each.views for each in several]),
            np.concatenate([each.anchors for each in several]),
            np.concatenate([each.orientations for each in several]),
            np.concatenate([each.distances for each in several]),
        )


def matches(photos: Photos, max_distance_bits: int) -> Iterator[Matches]:
    """Batches of matches between different photos; equal bytes take part once."""
    takes_part = np.ones(len(photos), np.bool_)
    takes_part[equal_bytes(photos.sha256)[0]] = False
    places, is_quarter = np.flatnonzero(takes_part[photos.owners]), photos.quarters > 0
    yield from _parts_in_wholes(photos, places[~is_quarter[places]], max_distance_bits)
    yield from _quarters_in_place(photos, places[is_quarter[places]], max_distance_bits)


def _parts_in_wholes(photos: Photos, views: Indices, max_distance_bits: int) -> Iterator[Matches]:
    """Matches of ``views`` with those of them that are anchors, turned in all ways."""
    anchors = views[photos.is_anchor[views]]
    sketches = photos.views["sketch"].astype(np.uint64)
    turned = turned_sketches(sketches[anchors]).reshape(-1, 1)
    for left, right, distances in near_pairs(sketches[views][:, None], turned, max_distance_bits):
        orientations, places = np.divmod(right, len(anchors))
        found = Matches(views[left], anchors[places], orientations + 1, distances)
        yield found.part(photos.owners[found.views] != photos.owners[found.anchors])


def _quarters_in_place(photos: Photos, quarters: Indices, max_distance_bits: int) -> Iterator[Matches]:
    """Matches of ``quarters``, all turned to the upper left, with each other as they lie there and transposed.

    The lower right, where most marks are, is looked at only to second another.
    """
    which, owners = photos.quarters[quarters], photos.owners[quarters]
    sketches = turned_sketches(photos.views["sketch"][quarters].astype(np.uint64))[which - 1, np.arange(len(which))]
    both = np.stack([sketches, turned_sketches(sketches)[TRANSPOSED - 1]])
    corners = np.array([0, 0, 1, 3, 2])[which]  # twice whether it is low, and whether it is at the right
    held, is_held = np.zeros((2, len(photos), 4), np.uint64), np.zeros((len(photos), 4), np.bool_)
    held[:, owners, corners], is_held[owners, corners] = both, True
    searched, nearest = np.flatnonzero(corners < 3), min(_QUARTER_BITS, max_distance_bits)
    for left, right, distances in near_pairs(sketches[searched, None], both.reshape(-1, 1), nearest):
        one, (transposed, other) = searched[left], np.divmod(right, max(1, len(quarters)))
        chosen = np.flatnonzero(owners[one] != owners[other])
        one, other, transposed, distances = one[chosen], other[chosen], transposed[chosen], distances[chosen]
        is_second = distances <= _ALONE_BITS
        for aside, aside_transposed in ((1, 2), (2, 1), (3, 3)):
            here, there = corners[one] ^ aside, corners[other] ^ np.where(transposed == 1, aside_transposed, aside)
            bits = np.bitwise_count(held[0, owners[one], here] ^ held[transposed, owners[other], there])
            is_there = is_held[owners[one], here] & is_held[owners[other], there]
            is_second |= is_there & (bits <= max_distance_bits)
        orientations = between(which[one], which[other], transposed == 1)
        yield Matches(quarters[one], quarters[other], orientations, distances).part(is_second)


def _boxes(photos: Photos, views: Indices, orientations: Indices) -> tuple[Boxes, Boxes]:
    """Of each view, its box and what lies within the frame that it was taken of, in the picture turned."""
    boxes = photos.views["box"][views] / 65535.0
    is_core = np.abs(boxes - CORE).max(axis=1) < 1e-3
    is_framed = photos.is_anchor[views] & ~is_core
    frames = np.where(is_framed[:, None], boxes, WHOLE)
    return turned_boxes(boxes, orientations), turned_boxes(frames, orientations)


def agreements(photos: Photos, found: Matches) -> Agreement:
    """How well the thumbnails of each match agree, once they are registered."""
    upright = np.ones(len(found), np.intp)
    boxes, frames = _boxes(photos, found.views, upright)
    other_boxes, other_frames = _boxes(photos, found.anchors, found.orientations)
    both_core = (np.abs(boxes - CORE).max(axis=1) < 1e-3) & (np.abs(other_boxes - CORE).max(axis=1) < 1e-3)
    in_place = both_core | (photos.quarters[found.views] > 0)
    boxes[in_place] = other_boxes[in_place] = WHOLE  # what lies around the core or beside the quarter is to agree too
    first, second = photos.thumbnails[photos.owners[found.views]], photos.thumbnails[photos.owners[found.anchors]]
    for orientation in np.unique(found.orientations):
        of_it = found.orientations == orientation
        second[of_it] = imaging.make_upright(second[of_it].transpose(1, 2, 0), int(orientation)).transpose(2, 0, 1)
    return agreement(first, second, boxes, other_boxes, frames, other_frames)


class Looks:
    """Looks at the pictures of pairs again, once at each as it lies. What it finds depends on nothing but the pair."""

    def __init__(self, photos: Photos) -> None:
        self._photos, self._found = photos, dict[tuple[int, int, int], bool]()
        self._plane = lru_cache(_PLANES)(self._seen)

    def holding(self, found: Matches, agreed: Agreement, bar: Bar) -> npt.NDArray[np.bool_]:
        """Which matches, of which ``agreed`` is known, are of pictures as like each other as ``bar`` asks."""
        holds = agreed.reaches(bar)
        for at in np.flatnonzero(holds & (agreed.stands_out > bar.plain)).tolist():
            one, other = (int(self._photos.owners[views[at]]) for views in (found.views, found.anchors))
            orientation = int(found.orientations[at])
            pair = (one, other, orientation) if one < other else (other, one, imaging.invert(orientation))
            if pair not in self._found:
                boxes = agreed.first_boxes[at], agreed.second_boxes[at]
                self._found[pair] = is_mark(self._overlays(one, other, orientation, *boxes))
            holds[at] = self._found[pair]
        return holds

    def in_vain(self, found: Matches) -> npt.NDArray[np.bool_]:
        """Which matches are of pairs that were looked at as they lie there, and are no copies."""
        size = len(self._photos)
        known = [
            (one * size + other) * 9 + turned for (one, other, turned), is_copy in self._found.items() if not is_copy
        ]
        one, other = self._photos.owners[found.views], self._photos.owners[found.anchors]
        turned = np.where(one < other, found.orientations, _INVERTED[found.orientations])
        codes = (np.minimum(one, other) * size + np.maximum(one, other)) * 9 + turned
        return np.isin(codes, np.array(known, np.int64))

    def _overlays(
        self, one: int, other: int, orientation: int, box: Boxes, other_box: Boxes
    ) -> Iterator[tuple[Planes, Planes]]:
        """Both pictures as they lie, where the boxes are all but equal; then with the second box corrected. The
        corrections of thumbnails are led astray by other tones on a plain ground.
        """
        here = self._plane(one, 1, tuple(box))
        if np.abs(box - other_box).max() < _AS_IT_LIES:
            yield here, self._plane(other, orientation, tuple(box))
        moved = corrected_box(self._square(one, 1), self._square(other, orientation), box, other_box)
        yield here, self._seen(other, orientation, tuple(moved))

    def _seen(self, photo: int, orientation: int, box: tuple[float, ...]) -> Planes:
        """What ``box`` shows of a photo."""
        return plane_of(self._square(photo, orientation), np.array(box))

    def _square(self, photo: int, orientation: int) -> imaging.Pixels:
        picture = imaging.make_upright(self._photos.look(photo), orientation)
        return imaging.resize_area(picture, _LOOKED_AT_PX, _LOOKED_AT_PX)


def _verified(
    photos: Photos, found: Matches, forest: Forest, bar: Bar, looks: Looks
) -> Iterator[tuple[Indices, Indices]]:
    """Links between photos of matches that hold; none within what ``forest`` joins already, into which they go.

    Each pair is tried by its best match first; one that was looked at again in vain is tried no more as it lies.
    """
    found = found.part(np.lexsort((found.anchors, found.views, found.orientations, found.distances)))
    while len(found):
        one, other = photos.owners[found.views], photos.owners[found.anchors]
        pairs = np.minimum(one, other) * len(photos) + np.maximum(one, other)
        best = np.sort(np.unique(pairs, return_index=True)[1])
        for begin in range(0, len(best), _TRIED):
            tried = best[begin : begin + _TRIED]
            tried = tried[forest.roots(one[tried]) != forest.roots(other[tried])]
            if len(tried):
                part = found.part(tried)
                holds = tried[looks.holding(part, agreements(photos, part), bar)]
                forest.join(zip(one[holds].tolist(), other[holds].tolist(), strict=True))
                yield np.minimum(one[holds], other[holds]), np.maximum(one[holds], other[holds])
        rest = np.ones(len(found), np.bool_)
        rest[best] = False
        rest &= forest.roots(one) != forest.roots(other)
        found = found.part(rest & ~looks.in_vain(found) if bar.plain < math.inf else rest)


def equal_pictures(photos: Photos, max_distance_bits: int, bar: Bar = SAME) -> Iterator[tuple[int, int]]:
    """Links between photos that show the same picture in different bytes: enough to join all that do."""
    for _, *link in linked(photos, max_distance_bits, (bar,)):
        yield link[0], link[1]


def linked(photos: Photos, max_distance_bits: int, bars: Sequence[Bar]) -> Iterator[tuple[Bar, int, int]]:
    """Links between photos that are as like each other as one of ``bars`` asks, with that one, found in one search."""
    forests, waiting, size = [Forest(len(photos)) for _ in bars], list[Matches](), 0
    looks = Looks(photos)
    for found in chain(matches(photos, max_distance_bits), [None]):
        if found is not None and len(found):  # most batches of a large set have none
            waiting.append(found)
            size += len(found)
        if waiting and (found is None or size >= SEARCHED):
            together = Matches.together(waiting)
            for bar, forest in zip(bars, forests, strict=True):
                for first, second in _verified(photos, together, forest, bar, looks):
                    yield from zip(repeat(bar), first.tolist(), second.tolist())
            waiting, size = [], 0
