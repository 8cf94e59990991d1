"""Give groups of photos to splits so that every label is shared out as the whole is.

Iterative stratification, for groups: the rarest label comes first, and of its groups those with most photos of it. A
group goes where Pearson's chi-square of all counts against their targets grows least; further passes take every group
up once more. Strata are the labels, and one that has all photos; a photo with several labels counts in each.

Source: Sechidis, Tsoumakas and Vlahavas, "On the stratification of multi-label data", ECML PKDD 2011, algorithm 1 (the
order; its choice by the rarest label alone leaves labels further from their shares: ``tests/bench/stratifying.py``).
"""

from collections.abc import Iterable
from dataclasses import dataclass
from operator import mul, neg

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from tasks.splitting.grouping import Indices, numbered

MOST_PASSES, PLACEMENTS = 5, 200_000  # the second pass helps most, a sixth hardly; 3 us a placement
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Counts:
    """Photos by group and stratum. Those of ``group`` are the entries starts[group] : starts[group + 1]."""

    starts: Indices
    strata: Indices  # of each entry
    photos: Indices  # of each entry

    @property
    def groups(self) -> Indices:
        """The group of each entry."""
        return np.repeat(np.arange(len(self.starts) - 1), np.diff(self.starts))

    def entries(self, groups: Indices) -> Indices:
        """The entries of ``groups``, one group after the other."""
        sizes = self.starts[groups + 1] - self.starts[groups]
        return np.repeat(self.starts[groups] - np.cumsum(sizes) + sizes, sizes) + np.arange(sizes.sum())


def strata_of(labels: pa.ChunkedArray) -> tuple[list[str], Indices, Indices]:
    """The labels in alphabetical order, and (photo, stratum) of each label of each photo: the first label's is 1.

    Stratum 0 has every photo.
    """
    lists = labels.combine_chunks()
    names, numbers = numbered(lists.flatten())
    photos = np.repeat(np.arange(len(lists)), pc.list_value_length(lists).to_numpy(zero_copy_only=False))
    strata = np.concatenate([np.zeros(len(lists), dtype=np.int64), numbers + 1])
    return names.to_pylist(), np.concatenate([np.arange(len(lists)), photos]), strata


def count(groups: Indices, strata: Indices, group_count: int, stratum_count: int) -> Counts:
    """The table of (group, stratum) pairs, one for each stratum of each photo."""
    cells, photos = np.unique(groups * stratum_count + strata, return_counts=True)
    starts = np.searchsorted(cells // stratum_count, np.arange(group_count + 1))
    return Counts(starts, cells % stratum_count, photos)


def passes(groups: int) -> int:
    """How often each of so many groups is placed: two to five times, as long as that takes less than a second."""
    return max(2, min(MOST_PASSES, PLACEMENTS // max(groups, 1)))


def balance(counts: Counts, held: Floats, shares: Floats, tickets: npt.NDArray[np.uint64]) -> Indices:
    """The split of each group. ``held``: stratum x split, photos that have theirs; ``shares``: all above 0, sum 1.

    Groups that are alike take turns in the order of their ``tickets``. Plain lists: most groups have few entries, for
    which numpy takes four times as long.
    """
    totals = held.sum(axis=1) + np.bincount(counts.strata, counts.photos, minlength=len(held))
    target = (np.maximum(totals, 1)[:, None] * shares).T
    slopes = (2 * (held.T - target) / target).tolist()  # of chi-square, in photos of a stratum: split x stratum
    steps = counts.photos / target[:, counts.strata]  # by which half a slope rises: split x entry
    own = [np.bincount(counts.groups, each * counts.photos, minlength=len(tickets)).tolist() for each in steps]
    rises, splits = (2 * steps).tolist(), range(len(shares))
    starts, strata, photos = counts.starts.tolist(), counts.strata.tolist(), counts.photos.tolist()
    chosen = [-1] * len(tickets)
    for group in rarest_first(counts, totals, tickets).tolist() * passes(len(tickets)):
        entries = slice(starts[group], starts[group + 1])
        rows, numbers = strata[entries], photos[entries]
        if chosen[group] >= 0:
            _rise(slopes[chosen[group]], rows, map(neg, rises[chosen[group]][entries]))
        growth = [sum(map(mul, map(slopes[split].__getitem__, rows), numbers), own[split][group]) for split in splits]
        chosen[group] = growth.index(min(growth))
        _rise(slopes[chosen[group]], rows, rises[chosen[group]][entries])
    return np.array(chosen, dtype=np.int64)


def _rise(slope: list[float], rows: list[int], by: Iterable[float]) -> None:
    """Add ``by`` to ``slope`` at ``rows``, in place."""
    for row, step in zip(rows, by, strict=True):
        slope[row] += step


def rarest_first(counts: Counts, totals: Floats, tickets: npt.NDArray[np.uint64]) -> Indices:
    """All groups: time after time those with photos of the label that fewest photos are left of.

    Of one label the group with most photos of it comes first, then the one that weighs most, then by ticket. Groups
    without a label come last.
    """
    of_entry = counts.groups
    weight = np.bincount(of_entry, counts.photos**2 / np.maximum(totals, 1)[counts.strata], minlength=len(tickets))
    by_stratum = np.argsort(counts.strata, kind="stable")
    starts = np.searchsorted(counts.strata[by_stratum], np.arange(len(totals) + 1))
    left = np.bincount(counts.strata, counts.photos, minlength=len(totals))
    is_left, order = np.ones(len(tickets), dtype=np.bool_), [np.zeros(0, dtype=np.int64)]
    while is_left.any():
        labels = np.flatnonzero(left[1:]) + 1
        rarest = int(labels[left[labels].argmin()]) if len(labels) else 0
        entries = by_stratum[starts[rarest] : starts[rarest + 1]]
        entries = entries[is_left[of_entry[entries]]]
        groups, photos = of_entry[entries], counts.photos[entries]
        order.append(groups[np.lexsort((tickets[groups], -weight[groups], -photos))])
        is_left[groups] = False
        gone = counts.entries(groups)
        left -= np.bincount(counts.strata[gone], counts.photos[gone], minlength=len(totals))
    return np.concatenate(order)
