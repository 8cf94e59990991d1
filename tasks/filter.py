"""Keep photos that are large enough, of the wanted shape, and not edited; say why the others go.

The rules are decided in whole numbers: a photo at the very edge of a tolerance is kept.
"""

import logging
import math
from collections import Counter
from fractions import Fraction
from typing import Literal, Self

import duckdb
import pyarrow as pa
from prefect import task
from pydantic import BaseModel, ConfigDict, Field, model_validator

from storage import manifest
from storage.layout import layout
from storage.records import SCHEMAS, ManifestRef
from tasks import caching

LOG = logging.getLogger(__name__)
FilterReason = Literal["too_small", "wrong_aspect", "edited"]
_FINEST = 10**18  # denominator up to which both sides of the comparison fit in DuckDB's 128-bit integers


class FilterRules(BaseModel):
    """What a photo must be to stay."""

    model_config = ConfigDict(frozen=True, extra="forbid", title="Filter")

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


def _whole_ratio(rules: FilterRules) -> tuple[int, int, int]:
    """(scale, aspect, tolerance) as whole numbers, the last two times the first. The aspect rule must be on."""
    aspect, tolerance = Fraction(str(rules.aspect)), Fraction(str(rules.aspect_tolerance))
    scale = math.lcm(aspect.denominator, tolerance.denominator)
    return scale, int(aspect * scale), int(tolerance * scale)


def judge(long_px: int, short_px: int, edit_tier: str, rules: FilterRules) -> FilterReason | None:
    """Why a photo of this size (as displayed) is rejected, or None. The first rule that fails names the reason."""
    if long_px < rules.min_long_px or short_px < rules.min_short_px:
        return "too_small"
    if rules.aspect is not None:
        scale, aspect, tolerance = _whole_ratio(rules)
        if abs(long_px * scale - aspect * short_px) > tolerance * short_px:
            return "wrong_aspect"
    if rules.reject_edited and edit_tier == "edited":
        return "edited"
    return None


def reason_sql(rules: FilterRules) -> str:
    """``judge`` as an SQL expression over the columns of measure; null for photos that measure rejected."""
    cases = [
        "WHEN measure_reason IS NOT NULL THEN NULL",
        f"WHEN long_px < {rules.min_long_px} OR short_px < {rules.min_short_px} THEN 'too_small'",
    ]
    if rules.aspect is not None:
        scale, aspect, tolerance = (f"{value}::HUGEINT" for value in _whole_ratio(rules))
        off = f"abs(long_px * {scale} - {aspect} * short_px)"
        cases.append(f"WHEN {off} > {tolerance} * short_px THEN 'wrong_aspect'")
    if rules.reject_edited:
        cases.append("WHEN edit_tier = 'edited' THEN 'edited'")
    return f"CASE {' '.join(cases)} END"


def judge_all(measured: pa.Table, rules: FilterRules) -> pa.Table:
    """filter_reason for each row of ``measured``, by photo key."""
    with duckdb.connect() as database:
        database.register("measured", measured)
        query = f"SELECT source, photo_id, {reason_sql(rules)} AS filter_reason FROM measured"
        judged: pa.Table = database.sql(query).to_arrow_table()
    return judged.cast(SCHEMAS["filter"])


@task(**caching.stage("filter"))
def filter_photos(measured: list[ManifestRef], rules: FilterRules) -> ManifestRef:
    """filter_reason for every photo of ``measured``; no row is dropped."""
    where = layout()
    columns = ["source", "photo_id", "long_px", "short_px", "edit_tier", "measure_reason"]
    photos = manifest.read_all(where, measured, columns)
    table = judge_all(photos, rules)
    counts = Counter(table["filter_reason"].drop_null().to_pylist())
    kept = photos["measure_reason"].null_count - counts.total()
    LOG.info("filter: kept=%d %s", kept, " ".join(f"{reason}={count}" for reason, count in sorted(counts.items())))
    return manifest.write(where, "filter", table)
