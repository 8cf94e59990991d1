"""How evenly groups of photos are shared out by the order in which they come and by what decides where they go.

Orders: from the rarest label on (iterative stratification), or by the spread of a group's labels (as scikit-learn's
StratifiedGroupKFold). Choices: where chi-square grows least, in one to five passes, or where photos of the rarest label
lack most (Sechidis et al. 2011). Points are percentage points that a label's worst split misses its share by.

    python tests/bench/stratifying.py       # a minute
"""

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from acquire.table import markdown

from tasks.splitting import stratify
from tasks.splitting.stratify import Counts

SHARES = np.array([0.75, 0.10, 0.15])
SEEDS = 5
SETS = {  # photos, owners, labels, most labels of a photo
    "200 photos, 30 owners, 5 labels": (200, 30, 5, 1),
    "2,000 photos, 300 owners, 28 labels": (2000, 300, 28, 1),
    "2,000 photos, 300 owners, 28 labels, up to three each": (2000, 300, 28, 3),
    "20,000 photos, 2,000 owners, 28 labels": (20_000, 2000, 28, 1),
    "20,000 photos, 2,000 owners, 100 labels, up to three each": (20_000, 2000, 100, 3),
}
rarest_first = stratify.rarest_first


def world(seed: int, photos: int, owners: int, labels: int, most: int) -> Counts:
    """The table of a set in which few owners have many photos and each has favourite labels."""
    rng = np.random.default_rng(seed)
    activity, frequency = (1 + np.arange(owners)) ** -0.8, (1 + np.arange(labels)) ** -1.1
    owner = np.unique(rng.choice(owners, photos, p=activity / activity.sum()), return_inverse=True)[1]
    favourites = rng.choice(labels, (owners, 3), p=frequency / frequency.sum())
    number = rng.integers(1, most + 1, photos)
    photo = np.repeat(np.arange(photos), number)
    any_label = rng.choice(labels, len(photo), p=frequency / frequency.sum())
    mine = favourites[owner[photo], rng.integers(0, 3, len(photo))]
    cells = np.unique(photo * labels + np.where(rng.random(len(photo)) < 0.7, mine, any_label))
    groups = np.concatenate([owner, owner[cells // labels]])
    strata = np.concatenate([np.zeros(photos, np.int64), cells % labels + 1])
    return stratify.count(groups, strata, owner.max() + 1, labels + 1)


def by_chi_square(counts: Counts, totals: np.ndarray, tickets: np.ndarray) -> np.ndarray:
    """As Darkroom does, in the order and passes that ``stratify`` has now."""
    return stratify.balance(counts, np.zeros((len(totals), 3)), SHARES, tickets)


def by_desire(counts: Counts, totals: np.ndarray, tickets: np.ndarray) -> np.ndarray:
    """Where the rarest label of the group lacks most photos, then where photos lack most."""
    need = totals[:, None] * SHARES
    chosen = np.zeros(len(tickets), np.int64)
    for group in rarest_first(counts, totals, tickets):
        entries = counts.entries(np.array([group]))
        strata = counts.strata[entries]
        labels = strata[strata > 0]
        rarest = labels[totals[labels].argmin()] if len(labels) else 0
        chosen[group] = np.lexsort((-need[0], -need[rarest]))[0]
        need[strata, chosen[group]] -= counts.photos[entries]
    return chosen


def by_spread(counts: Counts, totals: np.ndarray, tickets: np.ndarray) -> np.ndarray:
    """Groups by the standard deviation of their counts over the labels, the largest first."""
    table = np.zeros((len(tickets), len(totals)))
    table[counts.groups, counts.strata] = counts.photos
    return np.lexsort((tickets, -table[:, 1:].std(axis=1)))


Choice = Callable[[Counts, np.ndarray, np.ndarray], np.ndarray]
VARIANTS: dict[str, tuple[Choice, Choice, int]] = {  # choice, order, passes
    **{f"rarest first, chi-square, passes: {n}": (by_chi_square, rarest_first, n) for n in (5, 2, 1)},
    **{f"by spread, chi-square, passes: {n}": (by_chi_square, by_spread, n) for n in (5, 2, 1)},
    "rarest first, where it lacks most": (by_desire, rarest_first, 1),
}


def misses(counts: Counts, chosen: np.ndarray, totals: np.ndarray) -> tuple[float, float, float]:
    """Points off: all photos, the worst label, the mean label."""
    cells = np.bincount(counts.strata * 3 + chosen[counts.groups], counts.photos, minlength=3 * len(totals))
    rows = cells.reshape(-1, 3)[totals > 0]
    points = 100 * np.abs(rows / rows.sum(axis=1, keepdims=True) - SHARES).max(axis=1)
    return points[0], points[1:].max(), points[1:].mean()


def main() -> None:
    """Share out all sets in all ways, and print a table."""
    cells = []
    for name, size in SETS.items():
        for variant, (choice, order, passes) in VARIANTS.items():
            stratify.rarest_first, stratify.passes = order, lambda groups, passes=passes: passes
            found = []
            for seed in range(SEEDS):
                counts = world(seed, *size)
                totals = np.bincount(counts.strata, counts.photos, minlength=size[2] + 1)
                tickets = np.random.default_rng(seed).permutation(len(counts.starts) - 1).astype(np.uint64)
                found.append(misses(counts, choice(counts, totals, tickets), totals))
            cells.append([name, variant, *(f"{value:.2f}" for value in np.mean(found, axis=0))])
    print(markdown(["set", "way", "all, points", "worst label", "mean label"], cells))


if __name__ == "__main__":
    main()
