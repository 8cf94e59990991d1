"""Keep photos that are large enough, of the wanted shape, and not edited; say why the others go.

The rules are decided in whole numbers: a photo at the very edge of a tolerance is kept.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from fractions import Fraction
from typing import Any, Literal, Self, get_args

import duckdb
from prefect import task
from pydantic import BaseModel, ConfigDict, Field, model_validator

from storage import manifest, streaming
from storage.layout import layout
from storage.records import ManifestRef
from tasks import caching

LOG = logging.getLogger(__name__)
FilterReason = Literal[
    "rejected_by_hand",
    "too_small",
    "wrong_aspect",
    "edited",
    "grey",
    "too_dark",
    "too_bright",
    "blurry",
    "low_information",
]
_FINEST = 10**18  # denominator up to which both sides of the comparison fit in DuckDB's 128-bit integers
_SIDE = 2**31  # a side in pixels lies below
_REASONS = f"ENUM{get_args(FilterReason)}"  # one byte a row on its way to the file
CONSUMED = (
    "source", "photo_id", "long_px", "short_px", "aspect_milli", "edit_tier", "is_grey", "brightness", "sharpness",
    "entropy", "measure_reason",
)  # fmt: skip


class FilterRules(BaseModel):
    """What a photo must be to stay."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, title="Filter")

    min_long_px: int = Field(
        1440, ge=1, le=1_000_000, description="Least long side in pixels; 1 switches the rule off."
    )
    min_short_px: int = Field(
        720, ge=1, le=1_000_000, description="Least short side in pixels; 1 switches the rule off."
    )
    aspect: float | None = Field(
        1.5, ge=1, le=1000, description="Wanted long side over short side, so 1.5 for 3:2; empty switches the rule off."
    )
    aspect_tolerance: float = Field(0.02, ge=0, le=1000, description="How far the aspect may be off, either way.")
    reject_edited: bool = Field(False, description="Leave out photos that an image editor has changed.")
    reject_grey: bool = Field(False, description="Leave out photos without colour.")
    min_brightness: float | None = Field(None, ge=0, le=255, description="Least mean luma, of 255; empty: no rule.")
    max_brightness: float | None = Field(None, ge=0, le=255, description="Greatest mean luma, of 255; empty: no rule.")
    min_sharpness: float | None = Field(
        None,
        ge=0,
        description="Least variance of the Laplacian at 256 px; below about 50 looks blurred; empty: no rule.",
    )
    min_entropy: float | None = Field(
        None, ge=0, le=8, description="Least bits of the grey histogram: a blank page has below 3; empty: no rule."
    )

    @model_validator(mode="after")
    def check_sides(self) -> Self:
        """A minimum for the short side above that for the long side would never take effect as meant."""
        if self.min_short_px > self.min_long_px:
            raise ValueError(
                f"min_short_px ({self.min_short_px}) is above min_long_px ({self.min_long_px}): exchange them, "
                "or raise min_long_px"
            )
        if self.aspect is not None and max(_whole_ratio(self)) > _FINEST * 1000:
            raise ValueError(f"aspect {self.aspect!r} +- {self.aspect_tolerance!r}: give at most 18 decimals")
        return self

    @model_validator(mode="after")
    def check_brightness(self) -> Self:
        """Nothing is as bright as a minimum and as dark as a maximum below it."""
        least, most = self.min_brightness, self.max_brightness
        if least is not None and most is not None and least > most:
            raise ValueError(
                f"min_brightness ({least:g}) is above max_brightness ({most:g}): exchange them, or leave one empty"
            )
        return self


def _whole_ratio(rules: FilterRules) -> tuple[int, int, int]:
    """(scale, aspect, tolerance) as whole numbers, the last two times the first. The aspect rule must be on."""
    aspect, tolerance = Fraction(str(rules.aspect)), Fraction(str(rules.aspect_tolerance))
    scale = math.lcm(aspect.denominator, tolerance.denominator)
    return scale, int(aspect * scale), int(tolerance * scale)


def judge(photo: Mapping[str, Any], rules: FilterRules, decision: str | None = None) -> FilterReason | None:
    """Why a measured ``photo`` (columns of measure) is rejected, or None. The first rule that fails names the reason.

    ``decision``: a person's, which is above every rule.
    """
    if decision is not None:
        return "rejected_by_hand" if decision == "reject" else None
    if photo["long_px"] < rules.min_long_px or photo["short_px"] < rules.min_short_px:
        return "too_small"
    if rules.aspect is not None:
        scale, aspect, tolerance = _whole_ratio(rules)
        if abs(photo["long_px"] * scale - aspect * photo["short_px"]) > tolerance * photo["short_px"]:
            return "wrong_aspect"
    if rules.reject_edited and photo["edit_tier"] == "edited":
        return "edited"
    if rules.reject_grey and photo["is_grey"]:
        return "grey"
    bounds: list[tuple[FilterReason, str, float | None, float | None]] = [
        ("too_dark", "brightness", rules.min_brightness, None),
        ("too_bright", "brightness", None, rules.max_brightness),
        ("blurry", "sharpness", rules.min_sharpness, None),
        ("low_information", "entropy", rules.min_entropy, None),
    ]
    for reason, column, least, most in bounds:
        if (least is not None and photo[column] < least) or (most is not None and photo[column] > most):
            return reason
    return None


def _failures(rules: FilterRules) -> list[tuple[str, FilterReason]]:
    """The SQL condition under which each of ``rules`` fails, in the order of ``judge``."""
    found: list[tuple[str, FilterReason]] = [
        (f"long_px < {rules.min_long_px} OR short_px < {rules.min_short_px}", "too_small")
    ]
    if rules.aspect is not None:
        whole = _whole_ratio(rules)
        kind = "BIGINT" if 2 * sum(whole) * _SIDE < 2**63 else "HUGEINT"  # the wide ones cost three times as much
        scale, aspect, tolerance = (f"{value}::{kind}" for value in whole)
        found.append((f"abs(long_px * {scale} - {aspect} * short_px) > {tolerance} * short_px", "wrong_aspect"))
    if rules.reject_edited:
        found.append(("edit_tier = 'edited'", "edited"))
    if rules.reject_grey:
        found.append(("is_grey", "grey"))
    bounds: list[tuple[str, str, float | None, FilterReason]] = [
        ("brightness", "<", rules.min_brightness, "too_dark"), ("brightness", ">", rules.max_brightness, "too_bright"),
        ("sharpness", "<", rules.min_sharpness, "blurry"), ("entropy", "<", rules.min_entropy, "low_information"),
    ]  # fmt: skip
    limited = [each for each in bounds if each[2] is not None]
    return found + [(f"{column}::DOUBLE {sign} {bound!r}::DOUBLE", reason) for column, sign, bound, reason in limited]


def reason_sql(rules: FilterRules) -> str:
    """``judge`` as an SQL expression over the columns of measure; null for photos that measure rejected."""
    cases = " ".join(f"WHEN {condition} THEN '{reason}'::{_REASONS}" for condition, reason in _failures(rules))
    return f"CASE WHEN measure_reason IS NOT NULL THEN NULL {cases} END"


def kept_sql(rules: FilterRules) -> str:
    """Whether ``judge`` keeps a photo, as an SQL condition: reads less than a reason takes, as most fail early.

    What measure rejected has no sides, which are not above any bound.
    """
    conditions = [f"long_px >= {rules.min_long_px}", f"short_px >= {rules.min_short_px}"]
    if rules.aspect is not None:  # first by the rounded aspect, which is there; only what passes is multiplied
        least, most = ((rules.aspect + sign * rules.aspect_tolerance) * 1000 for sign in (-1, 1))
        conditions.append(f"aspect_milli BETWEEN {math.floor(least) - 1} AND {math.ceil(most) + 1}")
    return " AND ".join(conditions + [f"NOT ({condition})" for condition, _ in _failures(rules)[1:]])


def judge_all(database: duckdb.DuckDBPyConnection, rules: FilterRules, has_decisions: bool) -> duckdb.DuckDBPyRelation:
    """filter_reason for each row of the view ``measured``; a person's decisions are in the view ``decided``.

    The rows come in the order of ``measured`` or, as a join keeps none, in that of their keys.
    """
    by_rule = f"SELECT source, photo_id, {reason_sql(rules)} AS filter_reason FROM measured"
    by_hand = f"""
        SELECT source, photo_id, CASE decision WHEN 'reject' THEN 'rejected_by_hand'::{_REASONS} WHEN 'keep' THEN NULL
                                               ELSE filter_reason END AS filter_reason
        FROM ({by_rule}) LEFT JOIN decided USING (source, photo_id) ORDER BY source, photo_id
    """
    return database.sql(by_hand if has_decisions else by_rule)


def count_kept(database: duckdb.DuckDBPyConnection, rules: FilterRules, has_decisions: bool) -> int:
    """How many photos of the view ``measured`` have no reason, neither of measure nor of ``judge_all``."""
    photos, kept = "measured", kept_sql(rules)
    if has_decisions:
        photos = "measured LEFT JOIN decided USING (source, photo_id)"
        by_hand = f"CASE decision WHEN 'reject' THEN false WHEN 'keep' THEN true ELSE {kept} END"
        kept = f"measure_reason IS NULL AND {by_hand}"
    [(count,)] = database.sql(f"SELECT count(*) FROM {photos} WHERE {kept}").fetchall()
    return int(count)


@task(**caching.stage("filter"))
def filter_photos(measured: list[ManifestRef], decided: ManifestRef, rules: FilterRules) -> ManifestRef:
    """filter_reason for every photo of ``measured``; no row is dropped."""
    where = layout()
    with streaming.database(where, measured=measured, decided=decided) as database:
        judged = streaming.write(where, "filter", judge_all(database, rules, decided.rows > 0))
        kept = count_kept(database, rules, decided.rows > 0)
    counted = manifest.read(where, judged, ["filter_reason"])["filter_reason"].drop_null().value_counts().to_pylist()
    reasons = {each["values"]: each["counts"] for each in counted}
    LOG.info("filter: good=%d %s", kept, " ".join(f"{reason}={count}" for reason, count in sorted(reasons.items())))
    return judged
