"""What the splits got beside what they should get, and beside the best that any split of these groups could do.

The best is a bound: of all ways to place the eight largest groups whole, with the other photos poured in as if every
one were free, the one whose worst split comes closest to its target. With eight groups or fewer it is exact.
"""

import math
from collections.abc import Sequence
from functools import cache
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt

from storage.records import SPLITS

WHOLE = 8  # groups that the bound does not cut: 3 ** 8 placements take less than a millisecond
Floats = npt.NDArray[np.float64]


@cache
def _placements(groups: int, splits: int) -> npt.NDArray[np.int64]:
    """Every way to place so many groups: way x group."""
    return np.array(list(product(range(splits), repeat=groups)), dtype=np.int64)


def best(sizes: Sequence[int], shares: Sequence[float]) -> Floats:
    """The shares that come closest to ``shares`` when groups of ``sizes`` photos are not divided (see above)."""
    ordered = np.sort(np.asarray(sizes, dtype=np.float64))[::-1] / max(sum(sizes), 1)
    whole, wanted = ordered[:WHOLE], np.asarray(shares, dtype=np.float64)
    used = np.flatnonzero(wanted)
    target, ways = wanted[used], _placements(len(whole), len(used))
    filled = np.stack([(whole * (ways == split)).sum(axis=1) for split in range(len(used))], axis=1)
    reached = _poured(filled, target, ordered[WHOLE:].sum())
    found = np.zeros(len(wanted))
    miss = np.abs(reached - target)
    found[used] = reached[np.lexsort(((miss**2).sum(axis=1), miss.max(axis=1).round(12)))[0]]
    return found


def _poured(filled: Floats, target: Floats, rest: float) -> Floats:
    """``filled`` (way x split) after ``rest`` was poured into the splits so that none lacks more than it must.

    What every split lacks of its target after that is the same, unless it lacked less from the start.
    """
    lack = target - filled
    ordered = np.sort(lack, axis=1)[:, ::-1]
    above = (ordered.cumsum(axis=1) - rest) / np.arange(1, len(target) + 1)  # what the first k lack if they share it
    level = above.max(axis=1, keepdims=True)
    return np.asarray(filled + np.maximum(lack - level, 0))


def chi_square(counts: Sequence[int], shares: Sequence[float]) -> tuple[float, float]:
    """Pearson's statistic of ``counts`` against ``shares``, and how often chance alone would exceed it.

    As if photos were drawn one by one: photos of one owner are not, so a group that is large raises it.
    """
    target = [sum(counts) * share for share in shares]
    statistic = sum((got - want) ** 2 / want for got, want in zip(counts, target, strict=True) if want)
    freedom = sum(want > 0 for want in target) - 1
    if freedom < 1:
        return statistic, 1.0
    return statistic, math.exp(-statistic / 2) if freedom == 2 else math.erfc(math.sqrt(statistic / 2))


def account(sides: npt.NDArray[np.int64], groups: npt.NDArray[np.int64], shares: Sequence[float]) -> dict[str, Any]:
    """Photos, target, achieved and best shares by split, the largest group's share, and chi-square.

    ``sides`` and ``groups`` of each photo, by number; both may be empty.
    """
    photos = np.bincount(sides, minlength=len(SPLITS))
    sizes = np.unique(groups, return_counts=True)[1]
    total = max(len(sides), 1)
    reachable = best(sizes.tolist(), shares)
    statistic, p_value = chi_square(photos.tolist(), shares)
    by_split = {
        split: {"photos": int(n), "target": want, "achieved": round(n / total, 6), "best": round(float(can), 6)}
        for split, n, want, can in zip(SPLITS, photos, shares, reachable, strict=True)
    }
    return {
        "photos": len(sides), "groups": len(sizes), "splits": by_split,
        "off_points": _points(photos / total, shares), "best_off_points": _points(reachable, shares),
        "is_best_exact": len(sizes) <= WHOLE,
        "largest_group_share": round(int(sizes.max(initial=0)) / total, 6),
        "chi_square": round(statistic, 4), "p_value": round(p_value, 6),
    }  # fmt: skip


def _points(got: Floats, wanted: Sequence[float]) -> float:
    """By how many percentage points the worst split misses its share."""
    return round(100 * float(np.abs(got - np.asarray(wanted)).max()), 4)
