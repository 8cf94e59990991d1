"""Runs against each other on the same test photos: arms (recipes) with a run for each seed, from their scores.parquet.

NumPy and pyarrow only. The score of an arm on a sample is the mean over its seeds. Intervals and tests resample photos:
they tell whether the difference holds for other photos, for these trained networks; how far it depends on the luck of a
seed is told by the standard deviation over seeds beside it.
Shapes: N samples, P photos, A arms, E seeds of an arm, R replicates.
Source: Dietterich, "Approximate Statistical Tests for Comparing Supervised Classification Learning Algorithms", Neural
Computation 10 (1998) (McNemar's test); Good, "Permutation Tests", 2000, ch. 3 (signs); Holm, Scandinavian Journal of
Statistics 6 (1979).
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from models.errors import ConfigError
from models.metrics import Floats, Labels, PhotoBootstrap, beats

Runs = Mapping[str, Mapping[int, pa.Table]]  # arm -> seed -> the rows of a scores.parquet
KEY = ("source", "photo_id", "sample")
PERMUTATIONS = 10_000
_CHUNK_SIGNS = 4_000_000  # held at once
TABLE = pa.schema([
    ("figure", pa.string()), ("kind", pa.string()),  # "arm", or "pair": the second less the first
    ("first", pa.string()), ("second", pa.string()),  # of an arm: its name, null
    ("value", pa.float64()), ("low", pa.float64()), ("high", pa.float64()),
    ("seed_std", pa.float64()), ("p_value", pa.float64()), ("p_holm", pa.float64()), ("test", pa.string()),
    ("baseline", pa.float64()), ("difference", pa.float64()), ("difference_low", pa.float64()),
    ("difference_high", pa.float64()), ("beats_baseline", pa.bool_()),  # of an arm: from the baseline, paired
    ("better", pa.string()), ("unit", pa.string()), ("label", pa.string()),
])  # fmt: skip


@dataclass(frozen=True)
class Resampling:
    """How photos are resampled for intervals and what the signs of the tests are drawn from."""

    replicates: int = 2000
    permutations: int = PERMUTATIONS
    seed: int = 7


@dataclass(frozen=True)
class ArmScores:
    """One arm on one figure: its scores by seed, the trivial answer's, and the weights, 0 where it is not asked."""

    scores_EN: Floats
    weight_N: Floats
    baseline_N: Floats


def baseline_of(name: str) -> str:
    """The column with what the trivial answer scores on each sample by the figure ``name``."""
    return f"{name}_baseline"


def compare(runs: Runs, resampling: Resampling = Resampling()) -> dict[str, Any]:
    """Every figure that two arms or more share: each arm with its interval, each pair of arms with a paired one.

    Raises ``ConfigError`` if fewer than two arms are given, an arm has no run, or two runs were judged on different
    samples, by another truth, or beside other trivial answers.
    """
    if len(runs) < 2:
        raise ConfigError(f"a comparison takes two arms or more, not {', '.join(runs) or 'none'}")
    return summarise(runs, resampling, least_arms=2)


def summarise(runs: Runs, resampling: Resampling = Resampling(), least_arms: int = 1) -> dict[str, Any]:
    """As ``compare``, for any number of arms: the figures that at least ``least_arms`` of them have."""
    if empty := [arm for arm, of in runs.items() if not of]:
        raise ConfigError(f"the arm {empty[0]!r} has no run: evaluate one", arm=empty[0])
    for arm, of in runs.items():
        _refuse_older(arm, of)
    ordered = {arm: {seed: _in_order(table) for seed, table in sorted(of.items())} for arm, of in runs.items()}
    tables = [(f"{arm} (seed {seed})", table) for arm, of in ordered.items() for seed, table in of.items()]
    for name, table in tables[1:]:
        _refuse_other_samples(*tables[0], name, table)
        _refuse_other_truth(*tables[0], name, table)
    photo_N, photos = photo_numbers(tables[0][1])
    shared = shared_figures(ordered, least_arms)
    for name, _ in shared:
        _refuse_other_baselines(name, tables)
    measured = [_figure(name, field, ordered, photo_N, photos, resampling) for name, field in shared]
    correct_by_holm([pair for each in measured for pair in each["pairs"]])
    return {
        "photos": photos,
        "samples": tables[0][1].num_rows,
        "arms": [{"arm": arm, "seeds": list(of)} for arm, of in ordered.items()],
        "resampling": asdict(resampling),
        "figures": measured,
    }


def _in_order(table: pa.Table) -> pa.Table:
    return table.sort_by([(name, "ascending") for name in KEY])


def _refuse_other_samples(first: str, expected: pa.Table, second: str, found: pa.Table) -> None:
    """Raise ``ConfigError`` unless both runs were judged on the same samples with the same weights."""
    if expected.select(KEY).equals(found.select(KEY)):
        if np.allclose(expected["weight"].to_numpy(), found["weight"].to_numpy()):
            return
        raise ConfigError(f"{first} and {second} weigh their test samples differently: judge both with one evaluation")
    mine, theirs = _names(expected), _names(found)
    only = sorted(mine ^ theirs)
    what = f"{len(only)} photos are in one alone, the first {only[0]!r}" if only else "of the same photos other samples"
    message = f"{first} and {second} were judged on different test photos: {what}; evaluate both on one pack"
    raise ConfigError(message, first=first, second=second)


def _refuse_older(arm: str, of: Mapping[int, pa.Table]) -> None:
    """Raise ``ConfigError`` for a run whose scores do not say what was true, nor what the trivial answer scored."""
    for seed, table in of.items():
        if "truth" not in table.column_names:
            message = f"{arm} (seed {seed}) was judged by an older version, which kept no truth: evaluate it again"
            raise ConfigError(message, arm=arm, seed=seed)


def _refuse_other_truth(first: str, expected: pa.Table, second: str, found: pa.Table) -> None:
    """Raise ``ConfigError`` unless the samples have the same truth in both runs."""
    others = int((expected["truth"].to_numpy() != found["truth"].to_numpy()).sum())
    if others:
        message = (
            f"{first} and {second} were judged by another truth in {others} of {len(found)} samples of the same photos:"
            " evaluate both with one crop law, one seed of the evaluation and the same labels"
        )
        raise ConfigError(message, first=first, second=second)


def _refuse_other_baselines(figure: str, tables: Sequence[tuple[str, pa.Table]]) -> None:
    """Raise ``ConfigError`` unless the trivial answer scores the same by ``figure`` in all runs that have it."""
    having = [(name, table[baseline_of(figure)].to_numpy()) for name, table in tables if figure in figures_of(table)]
    first, expected_N = having[0]
    for second, found_N in having[1:]:
        if not np.allclose(expected_N, found_N, atol=1e-6, equal_nan=True):
            message = f"{first} and {second} have other trivial answers by the figure {figure!r}: evaluate both again"
            raise ConfigError(message, first=first, second=second, figure=figure)


def figures_of(table: pa.Table) -> list[str]:
    """The figures that a run has: the columns that stand beside their baseline."""
    return [name for name in table.column_names if baseline_of(name) in table.column_names]


def _names(table: pa.Table) -> set[str]:
    return {f"{source}/{photo}" for source, photo in zip(*table.select(KEY[:2]).to_pydict().values(), strict=True)}


def photo_numbers(table: pa.Table) -> tuple[Labels, int]:
    """Which photo each row shows, numbered from 0 in the order of the rows, and how many there are."""
    names = list(zip(table["source"].to_pylist(), table["photo_id"].to_pylist(), strict=True))
    numbers = {name: number for number, name in enumerate(dict.fromkeys(names))}
    return np.array([numbers[name] for name in names], np.int64), len(numbers)


def shared_figures(runs: Runs, least_arms: int) -> list[tuple[str, pa.Field]]:
    """The figures that all runs of so many arms have, in the order of the first arm that has them.

    The same scores beside another baseline are no second figure: the first stands for both.
    """
    having: dict[str, list[pa.Field]] = {}
    for of in runs.values():
        first, *others = of.values()
        for field in first.schema:
            if field.name in figures_of(first) and all(field.name in figures_of(table) for table in others):
                having.setdefault(field.name, []).append(field)
    shared = [(name, fields[0]) for name, fields in having.items() if len(fields) >= least_arms]
    tables = [table for of in runs.values() for table in of.values()]
    return [
        (name, field)
        for number, (name, field) in enumerate(shared)
        if not any(_are_same(tables, name, earlier) for earlier, _ in shared[:number])
    ]


def _are_same(tables: Sequence[pa.Table], first: str, second: str) -> bool:
    """Whether two figures have the same scores, in every run that has either."""
    return all(
        (first in table.column_names) == (second in table.column_names)
        and (first not in table.column_names or table[first].equals(table[second]))
        for table in tables
    )


def arm_scores(name: str, of: Mapping[int, pa.Table]) -> ArmScores | None:
    """The scores of an arm's runs and the baseline of them all; None if one of them lacks the figure."""
    if not all(name in figures_of(table) for table in of.values()):
        return None
    scores_EN = np.stack([table[name].to_numpy() for table in of.values()])  # a null becomes NaN
    counts_N = ~np.isnan(scores_EN).any(0)
    first = next(iter(of.values()))
    baseline_N = np.where(counts_N, first[baseline_of(name)].to_numpy(), 0.0)
    return ArmScores(np.where(counts_N, scores_EN, 0.0), first["weight"].to_numpy() * counts_N, baseline_N)


def _figure(
    name: str, field: pa.Field, runs: Runs, photo_N: Labels, photos: int, resampling: Resampling
) -> dict[str, Any]:
    """One figure of all arms that have it."""
    facts = {key.decode(): value.decode() for key, value in (field.metadata or {}).items()}
    having = {arm: found for arm, of in runs.items() if (found := arm_scores(name, of)) is not None}
    weight_N = np.min([each.weight_N for each in having.values()], axis=0)
    bootstrap = PhotoBootstrap(photo_N, photos, resampling.replicates, resampling.seed)
    better, baseline_N = facts.get("better", "higher"), next(iter(having.values())).baseline_N
    return {
        "name": name,
        "label": facts.get("label", name),
        "unit": facts.get("unit", ""),
        "better": better,
        "baseline": float(weight_N @ baseline_N / weight_N.sum().clip(1e-300)),
        "baseline_label": facts.get("baseline_label", ""),
        "samples": int((weight_N > 0).sum()),
        "arms": list(_arms(having, weight_N, bootstrap, runs, better)),
        "pairs": list(_pairs(having, weight_N, bootstrap, resampling, better)),
    }


def _arms(
    having: Mapping[str, ArmScores], weight_N: Floats, bootstrap: PhotoBootstrap, runs: Runs, better: str
) -> Iterator[dict[str, Any]]:
    """Each arm: the mean over seeds with its interval over photos, less the baseline (paired), and what each seed has.

    An arm beats the baseline by the same test as a run of its own does (``models.evaluation.figures``).
    """
    mean_AN = np.stack([each.scores_EN.mean(0) for each in having.values()])
    gap_AN = mean_AN - np.stack([each.baseline_N for each in having.values()])
    found = bootstrap.means(np.concatenate([mean_AN, gap_AN]), np.tile(weight_N, (2 * len(having), 1)))
    for (arm, scores), mean, gap in zip(having.items(), found[: len(having)], found[len(having) :], strict=True):
        by_seed = _by_seed(scores.scores_EN, weight_N)
        seeds = {str(seed): value for seed, value in zip(runs[arm], by_seed, strict=True)}
        yield {
            "arm": arm, **asdict(mean), "seed_std": seed_std(by_seed), "by_seed": seeds,
            "difference": gap.value, "difference_low": gap.low, "difference_high": gap.high,
            "beats_baseline": beats(gap, better),
        }  # fmt: skip


def _pairs(
    having: Mapping[str, ArmScores], weight_N: Floats, bootstrap: PhotoBootstrap, resampling: Resampling, better: str
) -> Iterator[dict[str, Any]]:
    """Each pair of arms: the second less the first, its interval, and how likely chance alone does as much."""
    for (first, a), (second, b) in combinations(having.items(), 2):
        difference_N = b.scores_EN.mean(0) - a.scores_EN.mean(0)
        found = bootstrap.mean(difference_N, weight_N)
        same_seeds = len(a.scores_EN) == len(b.scores_EN)
        by_seed = _by_seed(b.scores_EN - a.scores_EN, weight_N) if same_seeds else []
        is_better, is_worse = beats(found, better), beats(found, "lower" if better == "higher" else "higher")
        yield {
            "first": first, "second": second, **asdict(found), "seed_std": seed_std(by_seed),
            "second_is": "better" if is_better else "worse" if is_worse else "not told apart",
            **significance(a, b, weight_N, bootstrap, resampling),
        }  # fmt: skip


def _by_seed(scores_EN: Floats, weight_N: Floats) -> list[float]:
    return (scores_EN @ weight_N / weight_N.sum()).tolist() if weight_N.any() else []  # type: ignore[no-any-return]


def seed_std(by_seed: Sequence[float]) -> float | None:
    """The standard deviation over seeds (n - 1); None for a single seed."""
    return float(np.std(by_seed, ddof=1)) if len(by_seed) > 1 else None


def significance(
    first: ArmScores, second: ArmScores, weight_N: Floats, bootstrap: PhotoBootstrap, resampling: Resampling
) -> dict[str, Any]:
    """The p-value of no difference, and the test that gave it.

    Right or wrong, one seed and one sample a photo: McNemar, exactly. Else signs are flipped photo by photo, because
    the samples of a photo are not independent of each other.
    """
    counted_N = weight_N > 0
    is_single = len(first.scores_EN) == len(second.scores_EN) == 1 and len(set(bootstrap.photo_M[counted_N])) == sum(
        counted_N
    )
    values = np.concatenate([first.scores_EN[:, counted_N], second.scores_EN[:, counted_N]])
    if is_single and np.isin(values, (0.0, 1.0)).all() and len(np.unique(weight_N[counted_N])) == 1:
        return {"p_value": mcnemar(*values.astype(bool)), "test": "McNemar, exact"}
    difference_N = second.scores_EN.mean(0) - first.scores_EN.mean(0)
    sum_P = bootstrap.sums((weight_N * difference_N)[None])[:, 0]
    return {"p_value": flip_signs(sum_P, resampling), "test": "signs flipped by photo"}


def mcnemar(first_N: NDArray[np.bool_], second_N: NDArray[np.bool_]) -> float:
    """Two-sided exact p-value: of the samples on which the two differ, either is as likely to be the right one."""
    fewer, more = sorted((int((first_N & ~second_N).sum()), int((second_N & ~first_N).sum())))
    differing = fewer + more
    tail = sum(math.comb(differing, k) for k in range(fewer + 1))
    return min(1.0, 2 * tail / 2**differing)


def flip_signs(sum_P: Floats, resampling: Resampling) -> float:
    """Two-sided p-value of the sum of ``sum_P`` if each photo's sign were a coin's; at least 1 / (permutations + 1)."""
    moved_P = sum_P[sum_P != 0]
    rng = np.random.default_rng(resampling.seed)
    bound, extreme, left = abs(float(moved_P.sum())) * (1 - 1e-12), 0, resampling.permutations
    rows = max(1, _CHUNK_SIGNS // max(1, len(moved_P)))
    while left:
        count = min(rows, left)
        signs = rng.integers(0, 2, (count, len(moved_P)), np.int8) * 2.0 - 1
        extreme += int((np.abs(signs @ moved_P) >= bound).sum())
        left -= count
    return (extreme + 1) / (resampling.permutations + 1)


def correct_by_holm(pairs: Sequence[dict[str, Any]]) -> None:
    """Give each pair of the table its ``p_holm``: below 0.05 for all of them at once in 95 of 100 tables of chance."""
    largest = 0.0
    for rank, pair in enumerate(sorted(pairs, key=lambda pair: float(pair["p_value"]))):
        largest = max(largest, min(1.0, (len(pairs) - rank) * pair["p_value"]))
        pair["p_holm"] = largest


def table_of(found: Mapping[str, Any]) -> pa.Table:
    """The comparison as rows, one for each arm and each pair of each figure (schema ``TABLE``)."""
    rows = []
    for figure in found["figures"]:
        facts = {"figure": figure["name"], **{key: figure[key] for key in ("baseline", "better", "unit", "label")}}
        rows += [{**facts, "kind": "arm", "first": each["arm"], **_known(each)} for each in figure["arms"]]
        rows += [{**facts, "kind": "pair", **_known(each)} for each in figure["pairs"]]
    return pa.Table.from_pylist(rows, schema=TABLE)


def _known(row: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in row.items() if key in TABLE.names}
