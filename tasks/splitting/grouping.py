"""Which photos hang together, and which side each must take because of what was published before.

A photo has a *name*, which it shares with its owner's other photos, and perhaps a duplicate group. Whatever was given
to a split holds its name and its duplicate group there. A photo that would join two splits is rejected; where only
newcomers meet, or photos that were all published, the side with more photos stays.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from storage.records import SPLITS
from tasks.duplicates.groups import components

NONE = -1  # no duplicate group, no side, no group
Indices = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]


def numbered(values: pa.ChunkedArray | pa.Array) -> tuple[pa.Array, Indices]:
    """The distinct ``values`` in alphabetical order, and each value's place among them; NONE for null."""
    distinct = pc.drop_null(pc.unique(values))
    distinct = distinct.take(pc.sort_indices(distinct))
    return distinct, places(values, distinct)


def places(values: pa.ChunkedArray | pa.Array, among: pa.Array) -> Indices:
    """Where each value stands in ``among``; NONE if it does not."""
    found = pc.index_in(values, value_set=among, skip_nulls=True)
    return np.asarray(pc.fill_null(found, NONE).to_numpy(), dtype=np.int64)


@dataclass(frozen=True)
class Bonds:
    """What binds each photo: the numbers of its name and of its duplicate group, and the split it was given."""

    names: Indices
    duplicates: Indices
    given: Indices


def votes(members: Indices, sides: Indices, size: int) -> Indices:
    """How many photos of each of the members 0 .. size - 1 lie on each side: member x split. NONE does not vote."""
    is_valid = (members != NONE) & (sides != NONE)
    cells = members[is_valid] * len(SPLITS) + sides[is_valid]
    return np.bincount(cells, minlength=size * len(SPLITS)).reshape(size, len(SPLITS)).astype(np.int64)


def memory(counted: pa.Table, members: pa.Array) -> Indices:
    """``counted`` (member, split, photos) as votes: member x split. Others than ``members`` do not vote."""
    found, sides = places(counted["member"], members), places(counted["split"], pa.array(SPLITS))
    is_valid = (found != NONE) & (sides != NONE)
    table = np.zeros((len(members), len(SPLITS)), dtype=np.int64)
    table[found[is_valid], sides[is_valid]] = counted["photos"].to_numpy()[is_valid]
    return table


def majority(counts: Indices) -> Indices:
    """The side with most votes, the first of several, NONE without a vote."""
    return np.where(counts.any(axis=1), counts.argmax(axis=1), NONE)


def settle(bonds: Bonds, name_memory: Indices, duplicate_memory: Indices) -> tuple[Indices, Mask]:
    """The side of each name (NONE: free to take any), and which photos are rejected because they bridge two.

    The memories are votes of photos that were published and take no part now (name x split, duplicate group x split);
    they count where no photo that takes part was published. A side spreads from a name to the duplicate groups of its
    photos and back, until nothing changes: then no photo that is left joins two sides.
    """
    of_names = _anchored(bonds.names, bonds.given, name_memory)
    of_duplicates = np.append(_anchored(bonds.duplicates, bonds.given, duplicate_memory), NONE)  # [NONE] is NONE
    is_contested = _contested(bonds, duplicate_memory)
    while True:
        by_name, by_duplicate = of_names[bonds.names], of_duplicates[bonds.duplicates]
        side = np.where(bonds.given != NONE, bonds.given, np.where(by_name != NONE, by_name, by_duplicate))
        is_divided = ((by_name != NONE) & (by_name != side)) | ((by_duplicate != NONE) & (by_duplicate != side))
        is_rejected = is_divided | is_contested
        side[is_rejected] = NONE
        grown = [_spread(of_names, bonds.names, side), _spread(of_duplicates[:-1], bonds.duplicates, side)]
        if not any(grown):
            return of_names, is_rejected


def _anchored(members: Indices, given: Indices, memory: Indices) -> Indices:
    """The side that members hold from what was published: by the photos that take part, without any by memory."""
    of_photos = votes(members, given, len(memory))
    return majority(np.where(of_photos.any(axis=1, keepdims=True), of_photos, memory))


def _contested(bonds: Bonds, memory: Indices) -> Mask:
    """Newcomers that replace pictures of several splits, which hung together through nothing before."""
    is_old = votes(bonds.duplicates, bonds.given, len(memory)).any(axis=1)
    return np.append(((memory > 0).sum(axis=1) > 1) & ~is_old, False)[bonds.duplicates]


def _spread(of_members: Indices, members: Indices, side: Indices) -> bool:
    """Give free members the side of their photos, in place; whether there were any."""
    found = majority(votes(members, side, len(of_members)))
    is_fresh = (of_members == NONE) & (found != NONE)
    of_members[is_fresh] = found[is_fresh]
    return bool(is_fresh.any())


def groups(bonds: Bonds, is_rejected: Mask) -> Indices:
    """The group of each photo: the smallest name that it hangs together with; NONE for the rejected ones."""
    links = np.array(list(_links(bonds, ~is_rejected)), dtype=np.int64).reshape(-1, 2)
    linked, ends = np.unique(links, return_inverse=True)  # few: most duplicates are rejected before
    root = np.arange(bonds.names.max(initial=NONE) + 1)
    pairs = ends.reshape(-1, 2).tolist()
    root[linked] = linked[np.array(components(len(linked), ((a, b) for a, b in pairs)), dtype=np.int64)]
    return np.where(is_rejected, NONE, root[bonds.names])


def _links(bonds: Bonds, is_kept: Mask) -> Iterator[tuple[int, int]]:
    """Pairs of names that share a duplicate group."""
    chosen = np.flatnonzero(is_kept & (bonds.duplicates != NONE))
    chosen = chosen[np.argsort(bonds.duplicates[chosen], kind="stable")]
    duplicates, names = bonds.duplicates[chosen], bonds.names[chosen]
    is_link = (duplicates[1:] == duplicates[:-1]) & (names[1:] != names[:-1])
    yield from zip(names[:-1][is_link].tolist(), names[1:][is_link].tolist(), strict=True)
