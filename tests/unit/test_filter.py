"""Filter rules at their edges."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from tasks import measure
from tasks.filter import FilterReason, FilterRules, judge


def judged(long_px: int, short_px: int, edit_tier: str, rules: FilterRules, **facts: float) -> FilterReason | None:
    """The reason of an unremarkable photo of this size, but for ``facts``."""
    photo = {"is_grey": False, "brightness": 120.0, "sharpness": 500.0, "entropy": 7.0} | facts
    return judge(photo | {"long_px": long_px, "short_px": short_px, "edit_tier": edit_tier}, rules)


@pytest.mark.parametrize(
    ("long_px", "short_px", "reason"),
    [
        (1500, 1000, None),
        (1440, 960, None),
        (1439, 960, "too_small"),
        (1440, 719, "too_small"),
        (1520, 1000, None),  # 1.52: the very edge
        (1521, 1000, "wrong_aspect"),
        (1480, 1000, None),  # 1.48
        (1479, 1000, "wrong_aspect"),
        (152_000_001, 100_000_000, "wrong_aspect"),
    ],
)
def test_the_edge_of_a_rule_is_kept(long_px: int, short_px: int, reason: str | None) -> None:
    """Exactly the minimum and exactly the tolerance pass; one pixel beyond does not."""
    assert judged(long_px, short_px, "unknown", FilterRules()) == reason


def test_rules_can_be_switched_off() -> None:
    """No aspect and minima of 1 keep every photo; edits count only if asked."""
    anything = FilterRules(min_long_px=1, min_short_px=1, aspect=None)
    assert judged(1, 1, "edited", anything) is None
    assert judged(9000, 1, "edited", anything) is None
    strict = anything.model_copy(update={"reject_edited": True})
    assert judged(9, 6, "edited", strict) == "edited"
    assert [judged(9, 6, tier, strict) for tier in ("developed", "unknown", "camera_original")] == [None] * 3


def test_the_first_rule_that_fails_names_the_reason() -> None:
    """Size goes before shape, shape before edits."""
    rules = FilterRules(reject_edited=True)
    assert judged(10, 10, "edited", rules) == "too_small"
    assert judged(2000, 2000, "edited", rules) == "wrong_aspect"


@pytest.mark.parametrize(
    ("rule", "facts", "reason"),
    [
        ({"reject_grey": True}, {"is_grey": True}, "grey"),
        ({"min_brightness": 30}, {"brightness": 29.9}, "too_dark"),
        ({"max_brightness": 230}, {"brightness": 230.1}, "too_bright"),
        ({"min_sharpness": 50}, {"sharpness": 49.9}, "blurry"),
        ({"min_entropy": 3}, {"entropy": 2.9}, "low_information"),
    ],
)
def test_what_a_photo_looks_like_counts_if_asked(rule: dict[str, float], facts: dict[str, float], reason: str) -> None:
    """Each rule about the picture is off until it is given a bound, and the bound itself is kept."""
    rules = FilterRules.model_validate(rule)
    assert judged(1500, 1000, "unknown", FilterRules(), **facts) is None
    assert judged(1500, 1000, "unknown", rules, **facts) == reason
    at_the_edge = {name: rule.get(f"min_{name}", rule.get(f"max_{name}", False)) for name in facts}
    assert judged(1500, 1000, "unknown", rules, **at_the_edge) is None


def test_a_person_is_above_every_rule() -> None:
    """What a person keeps stays, however small; what a person rejects goes, however good."""
    photo = {"long_px": 9, "short_px": 6, "edit_tier": "edited"}
    assert judge(photo, FilterRules(), "keep") is None
    assert judge(photo | {"long_px": 1500, "short_px": 1000}, FilterRules(), "reject") == "rejected_by_hand"


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"min_long_px": 0}, "min_long_px"),
        ({"aspect": 0.67}, "aspect"),
        ({"aspect": float("nan")}, "aspect"),
        ({"aspect_tolerance": -0.1}, "aspect_tolerance"),
        ({"aspect_tolerance": 1e-30}, "18 decimals"),
        ({"min_short_px": 2000}, "min_long_px"),
        ({"min_sharpness": float("inf")}, "min_sharpness\n  Input should be a finite number"),
        ({"min_brightness": 200, "max_brightness": 99.5}, r"min_brightness \(200\) is above max_brightness \(99.5\)"),
        ({"ratio": 1.5}, "ratio"),
    ],
)
def test_impossible_rules_are_refused_by_name(values: dict[str, float], named: str) -> None:
    """The message names the key that is at fault."""
    with pytest.raises(ValidationError, match=named):
        FilterRules.model_validate(values)


def test_thirteen_real_photographs_pass_the_rules_for_crops(shared: Path) -> None:
    """Of the 225 photographs 13 are large enough and 3:2, two of them portraits."""
    kept = []
    for path in sorted((shared / "photos").glob("*/*")):
        facts = measure.header_facts(path.read_bytes())
        if judge(facts, FilterRules()) is None:
            kept.append(facts["height"] > facts["width"])
    assert (len(kept), sum(kept)) == (13, 2)
