"""What the page of a comparison shows: every figure of every arm, every pair of arms, and how it was measured."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from tasks.pages import figures_compare
from tasks.pages.page_charts import Chart, chart
from tasks.pages.run_page import signed

CONTENTS = {"ablation": "What each arm gains", "arms": "Figures of the arms", "pairs": "Arms against each other",
            "runs": "Runs and method"}  # fmt: skip


class Cell(NamedTuple):
    """One arm on one figure; all texts are empty where it has none."""

    value: str
    interval: str
    seed_std: str
    beats: bool  # the baseline, photo by photo


class ArmRow(NamedTuple):
    """One figure over all arms."""

    label: str
    said: str  # the better direction, with the unit
    cells: list[Cell]
    baseline: str
    baseline_label: str


class PairRow(NamedTuple):
    """One figure on one pair of arms: the second less the first."""

    label: str
    pair: str
    difference: str
    interval: str
    p_value: str
    p_holm: str
    verdict: str


def context(found: Mapping[str, Any]) -> dict[str, Any]:
    """Everything that the page shows of a comparison.json."""
    return {
        "contents": CONTENTS,
        "photos": found["photos"],
        "samples": found["samples"],
        "arms": [(words(each["arm"]), len(each["seeds"])) for each in found["arms"]],
        "chart": ablation_chart(found),
        "rows": [arm_row(figure, [each["arm"] for each in found["arms"]]) for figure in found["figures"]],
        "pairs": [pair_row(figure, pair) for figure in found["figures"] for pair in figure["pairs"]],
        "verdict": verdict(found),
        "runs": [(words(run["arm"]), run["seed"], run["run_id"]) for run in found["runs"]],
        "resampling": found["resampling"],
    }


def ablation_chart(found: Mapping[str, Any]) -> Chart | None:
    """The figure of the comparison; None where no figure is shared."""
    if not found["figures"]:
        return None
    alt = (
        f"Bars of {len(found['figures'])} figures for {len(found['arms'])} arms, from the trivial answer (dashed) to "
        "the value, with 95 % intervals over photos; dots are single seeds. The numbers stand in the table."
    )
    return chart(figures_compare.ablation(found["figures"]), "Arms beside the trivial answer", alt)


def arm_row(figure: Mapping[str, Any], arms: list[str]) -> ArmRow:
    """One figure over ``arms``."""
    having = {each["arm"]: each for each in figure["arms"]}
    said = f"{figure['unit']}{', ' if figure['unit'] else ''}{figure['better']} is better"
    cells = [cell(having.get(arm)) for arm in arms]
    return ArmRow(figure["label"], said, cells, f"{figure['baseline']:.3f}", figure["baseline_label"])


def cell(arm: Mapping[str, Any] | None) -> Cell:
    """What an arm has of a figure."""
    if arm is None:
        return Cell("", "", "", beats=False)
    spread = "" if arm["seed_std"] is None else f"{arm['seed_std']:.3f}"
    return Cell(f"{arm['value']:.3f}", f"{arm['low']:.3f} to {arm['high']:.3f}", spread, arm["beats_baseline"])


def pair_row(figure: Mapping[str, Any], pair: Mapping[str, Any]) -> PairRow:
    """One figure on one pair of arms."""
    return PairRow(
        figure["label"], pair_name(pair), signed(pair["value"]), f"{signed(pair['low'])} to {signed(pair['high'])}",
        probability(pair["p_value"]), probability(pair["p_holm"]), outcome(pair),
    )  # fmt: skip


def pair_name(pair: Mapping[str, Any]) -> str:
    """``crops joint − crops thumbnail``."""
    return f"{words(pair['second'])} \N{MINUS SIGN} {words(pair['first'])}"


def outcome(pair: Mapping[str, Any]) -> str:
    """Whether the second is better or worse, after the correction for all pairs of the table."""
    return str(pair["second_is"]) if pair["p_holm"] < 0.05 else "not told apart"


def probability(p_value: float) -> str:
    """A p-value with what its digits are worth."""
    return "< 0.001" if p_value < 0.001 else f"{p_value:.3f}"


def verdict(found: Mapping[str, Any]) -> str:
    """How many pairs of arms can be told apart, in one sentence."""
    pairs = [pair for figure in found["figures"] for pair in figure["pairs"]]
    apart = sum(outcome(pair) != "not told apart" for pair in pairs)
    if not pairs:
        return "The arms have no figure in common."
    if not apart:
        return f"None of {len(pairs)} comparisons of two arms by one figure can be told from chance."
    return f"{apart} of {len(pairs)} comparisons of two arms by one figure are no chance, at 5 % over the whole table."


def words(arm: str) -> str:
    """The name of an arm as a person reads it."""
    return arm.replace("_", " ")
