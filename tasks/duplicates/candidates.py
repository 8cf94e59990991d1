"""All pairs of two sets of bit strings that differ in few bits: exact, and much faster than comparing all with all.

Words of 64 bits are cut into bands of 16. Strings of ``w`` words that differ in fewer than 8 w bits differ by at most
one bit in one of their 4 w bands (fewer than 4 w bits: by none), so only those are compared whose bands (or the first
bits of them, if there are few strings) differ by one bit at most. How many bits are looked at changes the speed, never
the result.

Source: Norouzi, Punjani and Fleet, "Fast search in Hamming space with multi-index hashing", CVPR 2012, section 3.
"""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

_BAND_BITS = 16
_RANGES = 16  # parts of a band's keys, taken by threads
_CELLS = 1 << 15  # compared at once: the arrays stay in the processor's cache
_VISIT = 30_000  # comparisons that take as long as looking up the neighbours of one key
_LISTED, _LOOKED_UP = 3, 10  # comparisons that take as long as one of a listed pair, or as finding a string's neighbour
_THREADS = min(4, os.cpu_count() or 1)

Words = npt.NDArray[np.uint64]
Indices = npt.NDArray[np.intp]
Near = tuple[Indices, Indices, npt.NDArray[np.uint16]]


@dataclass(frozen=True)
class _Band:
    """Strings in the order of the first bits of one of their bands; ``starts``: where each key begins."""

    words: Words
    order: npt.NDArray[np.uint32]
    keys: npt.NDArray[np.uint16]
    starts: npt.NDArray[np.int32]

    @classmethod
    def of(cls, words: Words, band: int, bits: int) -> "_Band":
        """The strings ``words`` by the first ``bits`` bits of band ``band``."""
        keys = _keys(words, band, bits)
        order = np.argsort(keys, kind="stable").astype(np.uint32)
        starts = np.searchsorted(keys[order], np.arange((1 << bits) + 1)).astype(np.int32)
        return cls(words[order], order, keys[order], starts)

    def neighbours(self, key: int, bits: int, reach: int) -> Indices:
        """Places of the strings whose key is ``key`` but for ``reach`` (0 or 1) of its bits at most."""
        keys = [key, *(key ^ (1 << bit) for bit in range(reach * bits))]
        return np.concatenate([np.arange(self.starts[near], self.starts[near + 1]) for near in keys])


def _keys(words: Words, band: int, bits: int) -> npt.NDArray[np.uint16]:
    """The first ``bits`` bits of a band of each string."""
    word, place = divmod(band, 4)
    shift = np.uint64(_BAND_BITS * place + _BAND_BITS - bits)
    return ((words[:, word] >> shift) & np.uint64((1 << bits) - 1)).astype(np.uint16)


def key_bits(left: int, right: int, reach: int) -> tuple[int, bool]:
    """How many bits of a band to look at, ``reach`` of which may differ, and whether to list the pairs (``_listed``):
    what is the least work.
    """

    def grouped(bits: int) -> float:
        return left * right * (1 + reach * bits) / (1 << bits) + _VISIT * min(left, 1 << bits)

    bits, neighbours = min(range(1, _BAND_BITS + 1), key=grouped), 1 + reach * _BAND_BITS
    keys = 1 << _BAND_BITS
    listed = _LISTED * left * neighbours * right / keys + _LOOKED_UP * (left * neighbours + keys)
    return (_BAND_BITS, True) if listed < grouped(bits) else (bits, False)


def near_pairs(left: Words, right: Words, max_distance_bits: int) -> Iterator[Near]:
    """Batches of (place in ``left``, place in ``right``, bits in which the two differ); each pair comes once.

    Both are n x w words. Raises ValueError if ``max_distance_bits`` is not less than 8 w.
    """
    words, reach = left.shape[1], int(max_distance_bits >= 4 * left.shape[1])
    if max_distance_bits >= 8 * words:
        raise ValueError(f"strings of {64 * words} bits are found up to {8 * words - 1} bits, not {max_distance_bits}")
    if not len(left) or not len(right):
        return
    bits, is_listed = key_bits(len(left), len(right), reach)
    candidates = _listed if is_listed else _grouped
    with ThreadPoolExecutor(_THREADS) as pool:
        for band in range(4 * words):
            rows, columns = _Band.of(left, band, bits), _Band.of(right, band, bits)
            ends = np.linspace(0, 1 << bits, min(_RANGES, 1 << bits) + 1).astype(int).tolist()

            def search(
                keys: tuple[int, int], band: int = band, rows: _Band = rows, columns: _Band = columns
            ) -> list[Near]:
                pairs = candidates(rows, columns, range(*keys), bits, reach, max_distance_bits)
                return [_near(rows, columns, *pair, band, bits, max_distance_bits, reach) for pair in pairs]

            for found in pool.map(search, pairwise(ends)):
                yield from found


def _near(
    rows: _Band, columns: _Band, first: Indices, second: Indices, band: int, bits: int, max_distance_bits: int,
    reach: int,
) -> Near:  # fmt: skip
    """Of the pairs of places ``first`` and ``second`` those that are near, but for those that an earlier band finds."""
    one, other = rows.words[first], columns.words[second]
    distance = np.bitwise_count(one ^ other).sum(axis=1, dtype=np.uint16)
    is_near = distance <= max_distance_bits
    for earlier in range(band):
        is_near &= np.bitwise_count(_keys(one, earlier, bits) ^ _keys(other, earlier, bits)) > reach
    left, right = rows.order[first[is_near]], columns.order[second[is_near]]
    return left.astype(np.intp), right.astype(np.intp), distance[is_near]


def _grouped(
    rows: _Band, columns: _Band, keys: range, bits: int, reach: int, max_distance_bits: int
) -> Iterator[tuple[Indices, Indices]]:
    """Places of the pairs that may be near and whose left string has one of ``keys``: all strings of a key at once."""
    for key in keys:
        begin, end = int(rows.starts[key]), int(rows.starts[key + 1])
        if begin == end:
            continue
        places = columns.neighbours(key, bits, reach)
        for first, second in _compared(rows.words[begin:end], columns.words[places], max_distance_bits):
            yield begin + first, places[second]


def _listed(
    rows: _Band, columns: _Band, keys: range, bits: int, reach: int, max_distance_bits: int
) -> Iterator[tuple[Indices, Indices]]:
    """The same pair by pair, which is faster where few strings share a key."""
    begin, end = int(rows.starts[keys.start]), int(rows.starts[keys.stop])
    near = rows.keys[begin:end, None] ^ np.array([0, *(1 << bit for bit in range(reach * bits))], np.uint16)
    starts = columns.starts[near]
    counts = columns.starts[near.astype(np.int32) + 1] - starts
    ends = counts.sum(axis=1).cumsum()
    cuts = np.searchsorted(ends, np.arange(_CELLS, ends[-1] if len(ends) else 0, _CELLS)) + 1
    for low, high in pairwise(np.unique([0, *cuts, end - begin])):
        found = counts[low:high].ravel()
        behind = found.cumsum(dtype=np.int32)
        second = np.repeat(starts[low:high].ravel() + found - behind, found)
        second += np.arange(len(second), dtype=np.int32)
        first = np.repeat(np.arange(begin + low, begin + high, dtype=np.int32), counts[low:high].sum(axis=1))
        distance = np.bitwise_count(rows.words[first, 0] ^ columns.words[second, 0])
        if rows.words.shape[1] > 1:
            distance += np.bitwise_count(rows.words[first, 1] ^ columns.words[second, 1])
        is_near = np.flatnonzero(distance <= max_distance_bits)
        if len(is_near):
            yield first[is_near], second[is_near]


def _compared(left: Words, right: Words, max_distance_bits: int) -> Iterator[tuple[Indices, Indices]]:
    """All pairs that may be near: their first two words (of several) are."""
    step = max(1, _CELLS // max(1, len(left)))
    height = min(len(left), _CELLS)
    for top in range(0, len(left), height):
        for start in range(0, len(right), step):
            rows, columns = left[top : top + height], right[start : start + step]
            distance = np.bitwise_count(rows[:, None, 0] ^ columns[None, :, 0])
            if left.shape[1] > 1:
                distance += np.bitwise_count(rows[:, None, 1] ^ columns[None, :, 1])
            found = np.flatnonzero(distance <= max_distance_bits)
            if len(found):
                first, second = np.divmod(found, len(columns))
                yield first + top, second + start
