"""The rule for one photo and the rule for all rows are the same rule."""

import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.filter import FilterRules, judge, judge_all

DECIMAL = st.integers(1000, 4000).map(lambda value: value / 1000)
RULES = st.builds(
    FilterRules,
    min_long_px=st.integers(2000, 4000),
    min_short_px=st.integers(1, 2000),
    aspect=st.none() | DECIMAL | st.floats(1, 20),
    aspect_tolerance=st.integers(0, 100).map(lambda value: value / 1000),
    reject_edited=st.booleans(),
)
SHORT = st.integers(1, 2000)


@st.composite
def photos(draw: st.DrawFn) -> tuple[FilterRules, list[tuple[int, int, str]]]:
    """Rules, and photos of which many lie exactly at the edge of a tolerance or one pixel beside it."""
    rules = draw(RULES)
    sizes = []
    for short in draw(st.lists(SHORT, min_size=1, max_size=12)):
        ratio = (rules.aspect or 1.5) + draw(st.sampled_from([-1, 0, 1])) * rules.aspect_tolerance
        long = round(short * 1000 * ratio) + draw(st.integers(-1, 1))
        sizes.append((max(short * 1000, long), short * 1000, draw(st.sampled_from(["edited", "developed", "unknown"]))))
    return rules, sizes


@settings(deadline=None, max_examples=40)
@given(photos())
def test_sql_and_python_agree(case: tuple[FilterRules, list[tuple[int, int, str]]]) -> None:
    """judge_all gives each row the reason that judge gives the photo, and none to photos that measure rejected."""
    rules, sizes = case
    rows = [
        {"source": "s", "photo_id": str(at), "long_px": long, "short_px": short, "edit_tier": tier,
         "measure_reason": None}
        for at, (long, short, tier) in enumerate(sizes)
    ]  # fmt: skip
    broken = dict.fromkeys(("long_px", "short_px", "edit_tier")) | {"measure_reason": "corrupt"}
    rows.append({"source": "s", "photo_id": "broken"} | broken)
    table = pa.Table.from_pylist(rows, schema=_SCHEMA)
    got = {row["photo_id"]: row["filter_reason"] for row in judge_all(table, rules).to_pylist()}
    assert got.pop("broken") is None
    assert got == {str(at): judge(*size, rules) for at, size in enumerate(sizes)}


_SCHEMA = pa.schema([
    ("source", pa.string()), ("photo_id", pa.string()), ("long_px", pa.int32()), ("short_px", pa.int32()),
    ("edit_tier", pa.string()), ("measure_reason", pa.string()),
])  # fmt: skip
