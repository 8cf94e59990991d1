"""The rule for one photo and the rule for all rows are the same rule."""

from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from storage.records import SCHEMAS
from tasks.filter import CONSUMED, FilterRules, count_kept, judge, judge_all

DECIMAL = st.integers(1000, 4000).map(lambda value: value / 1000)
RULES = st.builds(
    FilterRules,
    min_long_px=st.integers(2000, 4000),
    min_short_px=st.integers(1, 2000),
    aspect=st.none() | DECIMAL | st.floats(1, 20),
    aspect_tolerance=st.integers(0, 100).map(lambda value: value / 1000),
    reject_edited=st.booleans(),
    reject_grey=st.booleans(),
    min_brightness=st.none() | st.sampled_from([20.0, 20.1]),
    max_brightness=st.none() | st.sampled_from([200.0, 20.1]),
    min_sharpness=st.none() | st.sampled_from([50.0, 1e-3]),
    min_entropy=st.none() | st.sampled_from([3.0, 2.9]),
)
NEAR = st.sampled_from([float(np.float32(value)) for value in (0.1, 1e-3, 2.9, 3.0, 20.0, 20.1, 50.0, 200.0)])
SHORT = st.integers(1, 2000)
Photo = dict[str, Any]


@st.composite
def photos(draw: st.DrawFn) -> tuple[FilterRules, list[Photo]]:
    """Rules, and photos of which many lie exactly at the edge of a tolerance or one pixel beside it."""
    rules, rows = draw(RULES), []
    for short in draw(st.lists(SHORT, min_size=1, max_size=12)):
        ratio = (rules.aspect or 1.5) + draw(st.sampled_from([-1, 0, 1])) * rules.aspect_tolerance
        long = round(short * 1000 * ratio) + draw(st.integers(-1, 1))
        rows.append({
            "long_px": max(short * 1000, long), "short_px": short * 1000, "is_grey": draw(st.booleans()),
            "edit_tier": draw(st.sampled_from(["edited", "developed", "unknown"])),
            "brightness": draw(NEAR), "sharpness": draw(NEAR), "entropy": draw(NEAR),
        })  # fmt: skip
    return rules, rows


@settings(deadline=None, max_examples=60)
@given(photos(), st.lists(st.sampled_from([None, "keep", "reject"]), min_size=13, max_size=13))
def test_sql_and_python_agree(case: tuple[FilterRules, list[Photo]], decisions: list[str | None]) -> None:
    """judge_all gives the reasons that judge gives, no rule's to what measure rejected; count_kept counts the rest."""
    rules, rows = case
    keys = [{"source": "s", "photo_id": str(at)} for at in range(len(rows))] + [{"source": "s", "photo_id": "broken"}]
    measured = [
        key | row | {"aspect_milli": round(1000 * row["long_px"] / row["short_px"])}
        for key, row in zip(keys, rows, strict=False)
    ] + [keys[-1] | {"measure_reason": "corrupt"}]
    decided = [key | {"decision": each} for key, each in zip(keys, decisions, strict=False) if each]
    schema = pa.schema([SCHEMAS["measure"].field(name) for name in CONSUMED])
    with duckdb.connect() as database:
        database.register("measured", pa.Table.from_pylist(measured, schema=schema))
        database.register("decided", pa.Table.from_pylist(decided, schema=SCHEMAS["decided"]))
        judged = judge_all(database, rules, bool(decided)).to_arrow_table().to_pylist()
        kept = [count_kept(database, rules, has_decisions) for has_decisions in (False, True)]
    got = {row["photo_id"]: row["filter_reason"] for row in judged}
    assert got.pop("broken") == ("rejected_by_hand" if decisions[len(rows)] == "reject" else None)
    assert got == {str(at): judge(row, rules, decisions[at]) for at, row in enumerate(rows)}
    by_rule = sum(judge(row, rules) is None for row in rows)
    assert kept == [by_rule, list(got.values()).count(None)]
