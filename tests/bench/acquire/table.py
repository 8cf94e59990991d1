"""What the bench found: lines of figures, and the bounds that they have to keep."""

import statistics
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any


def shown(value: float) -> str:
    """Four figures of small numbers, all of large ones."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


@dataclass(frozen=True)
class Line:
    """One quantity of one contender, measured once or several times."""

    measure: str
    contender: str
    values: list[float]
    unit: str
    note: str = ""

    @property
    def median(self) -> float:
        """Of the values."""
        return statistics.median(self.values)

    def cells(self) -> list[str]:
        """Of the Markdown table."""
        spread = f"{shown(min(self.values))} to {shown(max(self.values))}" if len(self.values) > 1 else ""
        return [self.measure, self.contender, f"{shown(self.median)} {self.unit}", spread, self.note]


@dataclass(frozen=True)
class Bound:
    """A figure and what it may be."""

    what: str
    value: float
    at_least: float | None = None
    at_most: float | None = None

    @property
    def is_kept(self) -> bool:
        """Whether the figure is within."""
        low = self.at_least is None or self.value >= self.at_least
        return low and (self.at_most is None or self.value <= self.at_most)

    def cells(self) -> list[str]:
        """Of the Markdown table."""
        wanted = f"at least {shown(self.at_least or 0)}" if self.at_most is None else f"at most {shown(self.at_most)}"
        return [self.what, shown(self.value), wanted, "kept" if self.is_kept else "MISSED"]


@dataclass
class Findings:
    """All that one part found."""

    lines: list[Line] = field(default_factory=list)
    bounds: list[Bound] = field(default_factory=list)

    def median(self, measure: str, contender: str) -> float:
        """The median of one line."""
        return next(line.median for line in self.lines if (line.measure, line.contender) == (measure, contender))

    def as_json(self) -> dict[str, Any]:
        """Everything, for machines."""
        bounds = [asdict(bound) | {"is_kept": bound.is_kept} for bound in self.bounds]
        return {"lines": [asdict(line) | {"median": line.median} for line in self.lines], "bounds": bounds}


def markdown(header: list[str], rows: Iterable[list[str]]) -> str:
    """A table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
