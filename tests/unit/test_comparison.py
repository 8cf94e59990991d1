"""Runs against each other: paired differences, honest p-values, and runs that cannot be compared."""

from collections.abc import Mapping, Sequence
from itertools import product

import numpy as np
import pyarrow as pa
import pytest

from models.comparison import Resampling, compare, correct_by_holm, flip_signs, mcnemar, summarise, table_of
from models.errors import ConfigError

FACTS = {"label": "Accuracy", "unit": "", "better": "higher", "baseline_label": "coin"}
Columns = Mapping[str, Sequence[float | None]]


def scores(
    columns: Columns, photos: int, samples: int = 1, first: int = 0, truth: str = "same",
    baselines: Columns | None = None, **facts: str,
) -> pa.Table:  # fmt: skip
    """A scores.parquet of so many photos and samples of each, with these figures; their baselines are 0.5."""
    names = [f"{first + photo:03d}" for _ in range(samples) for photo in range(photos)]
    fixed = {
        "source": pa.array(["camera"] * len(names)),
        "photo_id": pa.array(names),
        "sample": pa.array(np.repeat(np.arange(samples), photos), pa.int32()),
        "weight": pa.array([1.0 / samples] * len(names)),
        "truth": pa.array([truth] * len(names)),
    }
    trivial = {name: [None if value is None else 0.5 for value in column] for name, column in columns.items()}
    trivial = {f"{name}_baseline": column for name, column in (trivial | dict(baselines or {})).items()}
    fields = [pa.field(name, column.type) for name, column in fixed.items()]
    fields += [pa.field(name, pa.float64(), metadata=FACTS | facts) for name in columns]
    fields += [pa.field(name, pa.float64()) for name in trivial]
    values = [pa.array(column, pa.float64()) for column in (*columns.values(), *trivial.values())]
    return pa.table([*fixed.values(), *values], schema=pa.schema(fields))


def test_arms_are_means_over_seeds_and_pairs_are_paired() -> None:
    """Each arm has the mean and the spread of its seeds, the difference is theirs, with a narrower interval."""
    rng = np.random.default_rng(0)
    hard = rng.normal(size=200)
    draw = lambda gain: scores({"right": hard + gain + 0.1 * rng.normal(size=200)}, 200)  # noqa: E731
    found = compare({"a": {0: draw(0.0), 1: draw(0.02)}, "b": {1: draw(0.1), 0: draw(0.12)}})
    figure = found["figures"][0]
    (a, b), (pair,) = figure["arms"], figure["pairs"]
    assert a["value"] == pytest.approx(np.mean(list(a["by_seed"].values())))
    assert a["seed_std"] == pytest.approx(np.std(list(a["by_seed"].values()), ddof=1))
    assert pair["value"] == pytest.approx(b["value"] - a["value"])
    assert pair["high"] - pair["low"] < 0.2 * (a["high"] - a["low"])
    assert (pair["second_is"], pair["test"]) == ("better", "signs flipped by photo")
    assert (figure["baseline"], figure["label"], list(b["by_seed"])) == (0.5, "Accuracy", ["0", "1"])


def test_lower_is_better_where_the_figure_says_so() -> None:
    """An arm with the smaller error is the better one."""
    errors = np.linspace(0.1, 0.5, 50)
    runs = {
        "a": {0: scores({"error": errors}, 50, better="lower")},
        "b": {0: scores({"error": errors - 0.05}, 50, better="lower")},
    }
    assert compare(runs)["figures"][0]["pairs"][0]["second_is"] == "better"


def test_mcnemar_is_the_exact_binomial() -> None:
    """By hand: ten to none of ten that differ is 2 / 2^10, five to five is 1; the arms may change places."""
    first, second = np.array([True] * 10 + [True, False]), np.array([False] * 10 + [True, False])
    assert mcnemar(first, second) == mcnemar(second, first) == pytest.approx(2 / 2**10)
    half = np.array([True] * 5 + [False] * 5)
    assert mcnemar(half, ~half) == 1.0


def test_flipped_signs_agree_with_all_of_them() -> None:
    """The p-value from drawn signs is that of all 2^10 signs, within the error of drawing."""
    values = np.random.default_rng(5).normal(0.4, 1, 10)
    sums = np.array([np.dot(signs, values) for signs in product((-1, 1), repeat=10)])
    exact = float((np.abs(sums) >= abs(values.sum()) - 1e-12).mean())
    assert flip_signs(values, Resampling(permutations=20_000)) == pytest.approx(exact, abs=0.015)


def test_p_values_of_equal_arms_are_uniform() -> None:
    """Of 150 comparisons of arms that are equal but for chance, 1 to 10 in a hundred fall below 0.05."""
    rng, few = np.random.default_rng(2), Resampling(replicates=2, permutations=400)
    found = []
    for _ in range(150):
        photo = rng.normal(size=(2, 1, 40)) + 0.3 * rng.normal(size=(2, 3, 40))  # samples of a photo are alike
        a, b = (scores({"right": each.ravel()}, 40, samples=3) for each in photo)
        found.append(compare({"a": {0: a}, "b": {0: b}}, few)["figures"][0]["pairs"][0]["p_value"])
    assert 0.01 <= np.mean(np.array(found) < 0.05) <= 0.10


def test_which_test_is_asked() -> None:
    """Right or wrong once a photo is McNemar's; several samples a photo, or several seeds, are not independent."""
    right = [1.0, 0.0] * 10
    wrong = [0.0, 1.0, 1.0, 1.0] * 5
    name = lambda a, b: compare({"a": a, "b": b})["figures"][0]["pairs"][0]["test"]  # noqa: E731
    assert name({0: scores({"r": right}, 20)}, {0: scores({"r": wrong}, 20)}) == "McNemar, exact"
    assert name({0: scores({"r": right}, 10, 2)}, {0: scores({"r": wrong}, 10, 2)}) == "signs flipped by photo"
    two = {0: scores({"r": right}, 20), 1: scores({"r": right}, 20)}
    assert name(two, {0: scores({"r": wrong}, 20), 1: scores({"r": wrong}, 20)}) == "signs flipped by photo"


def test_holm_corrects_over_the_table() -> None:
    """By hand, with the order kept and nothing above one."""
    pairs = [{"p_value": p} for p in (0.01, 0.5, 0.04, 0.03)]
    correct_by_holm(pairs)
    assert [pair["p_holm"] for pair in pairs] == pytest.approx([0.04, 0.5, 0.09, 0.09])


def test_samples_that_a_figure_is_not_about_do_not_count() -> None:
    """Nulls are left out of the mean and of its weight."""
    columns = {"iou": [None, None, 0.2, 0.4]}
    found = summarise({"a": {0: scores(columns, 2, 2)}})["figures"][0]
    assert found["arms"][0]["value"] == pytest.approx(0.3)
    assert found["samples"] == 2


def test_figures_that_one_arm_lacks_are_compared_among_the_others() -> None:
    """A figure of patches is there for the arms with patches, a figure of one arm for none."""
    both = scores({"right": [1.0, 0.0], "place": [0.1, 0.2], "own": [0.3, 0.1]}, 2)
    alone, place = scores({"right": [0.0, 1.0]}, 2), scores({"right": [0.5, 1.0], "place": [0.2, 0.2]}, 2)
    found = compare({"thumb": {0: alone}, "patch": {0: place}, "joint": {0: both}})
    assert {figure["name"]: [arm["arm"] for arm in figure["arms"]] for figure in found["figures"]} == {
        "right": ["thumb", "patch", "joint"], "place": ["patch", "joint"],
    }  # fmt: skip


def test_the_same_scores_are_not_tested_twice() -> None:
    """A figure that has the scores of an earlier one, beside another baseline, stands once in the table."""
    runs = {
        arm: {0: scores({"top": values, "own": values}, 2)} for arm, values in (("a", [1.0, 0.0]), ("b", [0.0, 0.0]))
    }
    assert [figure["name"] for figure in compare(runs)["figures"]] == ["top"]


def test_rows_in_another_order_are_the_same_run() -> None:
    """What is compared are samples, not rows."""
    table = scores({"right": [0.1, 0.7, 0.4]}, 3)
    pair = compare({"a": {0: table}, "b": {0: table.take([2, 0, 1])}})["figures"][0]["pairs"][0]
    assert (pair["value"], pair["low"], pair["p_value"]) == (0.0, 0.0, 1.0)


@pytest.mark.parametrize(
    ("other", "complaint"),
    [
        (scores({"right": [1.0, 0.0]}, 2, first=1), "2 photos are in one alone, the first 'camera/000'"),
        (scores({"right": [1.0, 0.0, 1.0, 0.0]}, 2, samples=2), "of the same photos other samples"),
    ],
)
def test_runs_on_other_photos_are_refused(other: pa.Table, complaint: str) -> None:
    """The sentence names both runs, what differs, and what to do."""
    with pytest.raises(ConfigError, match=complaint) as caught:
        compare({"a": {3: scores({"right": [1.0, 0.0]}, 2)}, "b": {4: other}})
    assert "a (seed 3) and b (seed 4)" in str(caught.value)
    assert "evaluate both on one pack" in str(caught.value)


def test_runs_judged_by_another_truth_are_refused() -> None:
    """The same photos and samples, but cut or labelled otherwise, are no pair; the sentence says what would be."""
    mine, theirs = (scores({"right": [1.0, 0.0]}, 2, truth=truth) for truth in ("left", "right"))
    with pytest.raises(ConfigError, match=r"a \(seed 0\) and b \(seed 1\).*another truth in 2 of 2 samples.*crop law"):
        compare({"a": {0: mine}, "b": {1: theirs}})


def test_runs_without_a_truth_are_to_be_evaluated_again() -> None:
    """Older runs kept none; they are refused even where nothing else is compared with them."""
    older = scores({"right": [1.0, 0.0]}, 2).drop_columns(["truth", "right_baseline"])
    with pytest.raises(ConfigError, match=r"a \(seed 2\) was judged by an older version.*evaluate it again"):
        summarise({"a": {2: older}})


def test_arms_beside_other_trivial_answers_are_refused() -> None:
    """Also where the first arm has not the figure: one baseline is shown for all arms, so it has to be that of all."""
    columns = {"place": [0.1, 0.2]}
    alone = scores({"right": [0.0, 1.0]}, 2)
    mine, theirs = (scores(columns, 2, baselines={"place": [0.3, value]}) for value in (0.3, 0.4))
    with pytest.raises(ConfigError, match=r"b \(seed 0\) and c \(seed 0\) have other trivial answers.*'place'"):
        compare({"a": {0: alone}, "b": {0: mine}, "c": {0: theirs}})


@pytest.mark.parametrize(("better", "sign"), [("higher", 1), ("lower", -1)])
def test_an_arm_beats_the_baseline_photo_by_photo(better: str, sign: int) -> None:
    """A small gain on every photo is one, though photos differ so much that the arm's own interval holds the baseline;
    and where single photos spread so much that chance did it, an interval beyond the baseline's mean is none."""
    rng = np.random.default_rng(3)
    hard, noise = rng.normal(size=300), rng.normal(size=300)
    sure = scores({"f": hard + sign * 0.05}, 300, baselines={"f": hard}, better=better)
    flat = scores({"f": np.full(300, sign * 0.01)}, 300, baselines={"f": noise - noise.mean()}, better=better)
    (arm,), (other,) = (summarise({"a": {0: each}})["figures"][0]["arms"] for each in (sure, flat))
    assert arm["beats_baseline"]
    assert arm["low"] < hard.mean() < arm["high"]
    assert (arm["difference"], arm["difference_high"] - arm["difference_low"]) == pytest.approx((sign * 0.05, 0))
    assert not other["beats_baseline"]
    assert other["low"] == pytest.approx(other["high"]) == pytest.approx(sign * 0.01)


@pytest.mark.parametrize("runs", [{}, {"a": {0: scores({"right": [1.0]}, 1)}}, {"a": {}, "b": {}}])
def test_fewer_than_two_arms_are_refused(runs: dict[str, dict[int, pa.Table]]) -> None:
    """As is an arm without a run."""
    with pytest.raises(ConfigError):
        compare(runs)


def test_the_table_has_a_row_for_each_arm_and_pair() -> None:
    """Arms first, then pairs, with the facts of their figure."""
    table = {arm: {0: scores({"right": values}, 2)} for arm, values in (("a", [1.0, 0.0]), ("b", [0.0, 0.0]))}
    rows = table_of(compare(table)).to_pylist()
    assert [(row["kind"], row["first"], row["second"]) for row in rows] == [
        ("arm", "a", None), ("arm", "b", None), ("pair", "a", "b"),
    ]  # fmt: skip
    assert rows[0]["baseline"] == 0.5
    assert rows[2]["p_holm"] is not None
