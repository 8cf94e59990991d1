"""Figures of a dataset, drawn with matplotlib: arrays in, SVG bytes out, one function a figure.

Colours are written as CSS variables with a fallback (``var(--ink, #23272e)``), so that a figure inside a page follows
its light or dark theme and one that stands alone keeps its own colours. Text stays text.
"""

import io
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any

import matplotlib
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.ticker import FuncFormatter, MaxNLocator

Floats = npt.NDArray[np.float64]
Rules = Mapping[str, Any]

PALETTE = {
    "ink": "#23272e", "muted": "#6c727c", "line": "#dfdcd5", "kept": "#2a7f78", "rejected": "#c9744f",
    "accent": "#3f6fb5", "second": "#b08a2e", "true": "#1f9d55", "predicted": "#d64545",
}  # fmt: skip
INK, MUTED, LINE = PALETTE["ink"], PALETTE["muted"], PALETTE["line"]
KEPT, REJECTED, ACCENT, SECOND = PALETTE["kept"], PALETTE["rejected"], PALETTE["accent"], PALETTE["second"]
SIZE_INCHES = (4.1, 2.8)  # half a desktop page and a whole phone, so that 9 pt stays readable on both
CURVE_POINTS = 500  # as fine as a curve can be seen; a point for each of 100,000 owners would be 3 MB
LEAST_DOT_PT2, LARGEST_DOT_PT2 = 4.0, 220.0  # areas
STYLE: dict[str, Any] = {
    "svg.fonttype": "none", "font.family": "DejaVu Sans", "font.size": 9.0,
    "text.color": INK, "axes.labelcolor": MUTED, "axes.edgecolor": LINE, "xtick.color": MUTED, "ytick.color": MUTED,
    "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "axes.axisbelow": True, "grid.color": LINE,
    "grid.linewidth": 0.6, "legend.frameon": False, "legend.fontsize": 8.5, "lines.linewidth": 1.6,
    "xtick.major.size": 0.0, "ytick.major.size": 0.0, "text.parse_math": False,
}  # fmt: skip


class Drawing:
    """A figure that is being drawn; ``svg`` holds its bytes once the block of ``drawing`` has ended."""

    def __init__(self, figure: Figure, panels: list[Axes]) -> None:
        self.figure, self.panels, self.svg = figure, panels, b""

    @property
    def axes(self) -> Axes:
        """The first panel."""
        return self.panels[0]


@contextmanager
def drawing(name: str, heights: Sequence[float] = (1.0,)) -> Iterator[Drawing]:
    """A figure in the one style, with panels of relative ``heights`` under each other; ``name`` keeps its ids apart."""
    style: Any = STYLE | {"svg.hashsalt": name}
    with matplotlib.rc_context(style):
        figure = Figure(figsize=SIZE_INCHES, layout="constrained", facecolor="none")
        panels = figure.subplots(len(heights), 1, sharex=True, squeeze=False, gridspec_kw={"height_ratios": heights})
        sheet = Drawing(figure, list(panels[:, 0]))
        for axes in sheet.panels:
            axes.set_facecolor("none")
        yield sheet
        stream = io.BytesIO()
        figure.savefig(stream, format="svg", metadata={"Date": None, "Creator": None})
        sheet.svg = themed(stream.getvalue().decode()).encode()


def themed(svg: str) -> str:
    """``svg`` with the palette as CSS variables, the reader's own typeface, and no ids but those it refers to."""
    for name, colour in PALETTE.items():
        svg = svg.replace(colour, f"var(--{name}, {colour})")
    svg = svg.replace("'DejaVu Sans'", "system-ui, sans-serif")
    svg = re.sub(r"\s*<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    return re.sub(r'<g id="[^"]*">', "<g>", svg)


def thousands(axis: Any) -> None:
    """Label ``axis`` with whole numbers like 12,000."""
    axis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))


def legend(axes: Axes, columns: int = 4) -> Legend:
    """Name what is drawn, above the panel where it hides nothing."""
    style: Any = {"columnspacing": 1.2, "handlelength": 1.4}
    return axes.legend(loc="lower left", bbox_to_anchor=(-0.02, 1.0), ncols=columns, **style)


def sizes(kept: Floats, rejected: Floats, rules: Rules) -> bytes:
    """Long against short side with the least sides and the aspect band of ``rules``.

    Arrays are (N, 3): long side and short side in pixels, and the number of photos that one bubble stands for.
    """
    with drawing("sizes") as sheet:
        axes = sheet.axes
        both = np.vstack([kept, rejected])
        longest, shortest, most = both.max(axis=0)
        for cells, colour, label in ((rejected, REJECTED, "rejected"), (kept, KEPT, "kept")):
            if len(cells):
                axes.scatter(
                    cells[:, 0], cells[:, 1], s=LEAST_DOT_PT2 + (LARGEST_DOT_PT2 - LEAST_DOT_PT2) * cells[:, 2] / most
                    if most > 1 else 3 * LEAST_DOT_PT2, color=colour, alpha=0.6, linewidths=0,
                    label=label,
                )  # fmt: skip
        axes.set(xlim=(0, 1.06 * longest), ylim=(0, 1.06 * shortest), xlabel="long side, px", ylabel="short side, px")
        rule_lines(axes, rules, longest)
        thousands(axes.xaxis)
        thousands(axes.yaxis)
        for handle in legend(axes).legend_handles:
            if isinstance(handle, PathCollection):
                handle.set_sizes([LARGEST_DOT_PT2 / 6])
    return sheet.svg


def rule_lines(axes: Axes, rules: Rules, longest_px: float) -> None:
    """The least sides as dashed lines, the wanted aspects as a band; a rule that is off draws nothing."""
    dashed: dict[str, Any] = {"color": INK, "linewidth": 0.9, "linestyle": (0, (4, 3))}
    if (rules.get("min_long_px") or 1) > 1:
        axes.axvline(rules["min_long_px"], **dashed)
    if (rules.get("min_short_px") or 1) > 1:
        axes.axhline(rules["min_short_px"], **dashed)
    if rules.get("aspect"):
        tolerance = rules.get("aspect_tolerance") or 0.0
        side = np.array([0.0, longest_px])
        axes.fill_between(
            side, side / (rules["aspect"] + tolerance), side / (rules["aspect"] - tolerance), color=ACCENT, alpha=0.25,
            linewidth=0.8, label=f"{rules['aspect']:g} ± {tolerance:g}",
        )  # fmt: skip


def aspects(kept: Floats, rejected: Floats) -> bytes:
    """Histogram of width / height as displayed, on a logarithmic axis, where a shape and its turned twin mirror."""
    with drawing("aspects") as sheet:
        axes = sheet.axes
        low, high = 1 / 3, 3.0
        stacked(axes, np.clip(kept, low, high), np.clip(rejected, low, high), np.geomspace(low, high, 46))
        axes.set_xscale("log")
        ticks = {0.5: "1:2", 2 / 3: "2:3", 1.0: "1:1", 4 / 3: "4:3", 1.5: "\n3:2", 16 / 9: "16:9", 2.5: "5:2"}
        axes.set_xticks(list(ticks), list(ticks.values()))
        axes.minorticks_off()
        axes.set(xlim=(low, high), xlabel="width : height, as displayed")
    return sheet.svg


def stacked(axes: Axes, kept: Floats, rejected: Floats, edges: Floats) -> None:
    """Histograms of ``kept`` and ``rejected`` photos on top of each other."""
    axes.hist(
        [kept, rejected], bins=edges.tolist(), stacked=True, color=[KEPT, REJECTED], label=["kept", "rejected"],
        rwidth=0.92,
    )  # fmt: skip
    axes.set(ylabel="photos")
    axes.grid(axis="x", visible=False)
    thousands(axes.yaxis)
    legend(axes)


QUALITIES: Mapping[str, tuple[str, Floats]] = {
    "brightness": ("mean grey level", np.linspace(0, 255, 35)),
    "sharpness": ("variance of the Laplacian", np.geomspace(1, 1e4, 35)),
    "entropy": ("entropy, bits", np.linspace(0, 8, 33)),
}


def quality(name: str, kept: Floats, rejected: Floats) -> bytes:
    """Histogram of one of QUALITIES; what lies beyond its axis stands in the outermost bars."""
    label, edges = QUALITIES[name]
    with drawing(name) as sheet:
        axes = sheet.axes
        stacked(axes, np.clip(kept, edges[0], edges[-1]), np.clip(rejected, edges[0], edges[-1]), edges)
        axes.set(xlim=(edges[0], edges[-1]), xlabel=label)
        if name == "sharpness":
            axes.set_xscale("log")
            axes.minorticks_off()
            axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    return sheet.svg


def uploads(months: Sequence[datetime], kept: Sequence[int], rejected: Sequence[int]) -> bytes:
    """Photos by month of upload (UTC), kept and rejected on top of each other."""
    with drawing("uploads") as sheet:
        axes = sheet.axes
        index = np.array([month.year * 12 + month.month - 1 for month in months])
        axes.bar(index, kept, width=0.85, color=KEPT, label="kept")
        axes.bar(index, rejected, width=0.85, bottom=kept, color=REJECTED, label="rejected")
        first, last = int(index.min()), int(index.max())
        step = next((step for step in (1, 3, 6, 12, 24, 60, 120) if (last - first) / step < 6), 240)
        ticks = range(math.ceil(first / step) * step, last + 1, step)
        axes.set_xticks(
            list(ticks), [f"{tick // 12}" if step >= 12 else f"{tick // 12}-{tick % 12 + 1:02}" for tick in ticks]
        )
        axes.set(xlabel="month of upload (UTC)", ylabel="photos", xlim=(first - 1, last + 1))
        axes.grid(axis="x", visible=False)
        thousands(axes.yaxis)
        legend(axes)
    return sheet.svg


def gini(photos_by_owner: Floats) -> float:
    """Concentration of photos on owners: 0 = all have the same number, near 1 = one has nearly all."""
    ordered = np.sort(photos_by_owner)
    ranks = np.arange(1, len(ordered) + 1)
    return float((2 * ranks - len(ordered) - 1) @ ordered / (len(ordered) * ordered.sum()))


def lorenz(photos_by_owner: Floats) -> bytes:
    """Share of photos held by the least prolific share of owners (Lorenz curve) against an equal share for all."""
    with drawing("lorenz") as sheet:
        axes = sheet.axes
        shares = np.concatenate([[0.0], 100 * np.cumsum(np.sort(photos_by_owner)) / photos_by_owner.sum()])
        owners_percent = np.linspace(0.0, 100.0, min(len(shares), CURVE_POINTS))
        photos_percent = np.interp(owners_percent, np.linspace(0.0, 100.0, len(shares)), shares)
        axes.plot([0, 100], [0, 100], color=MUTED, linewidth=0.9, linestyle=(0, (4, 3)), label="equal shares")
        axes.plot(owners_percent, photos_percent, color=ACCENT, label="owners of kept photos")
        axes.fill_between(owners_percent, photos_percent, owners_percent, color=ACCENT, alpha=0.12, linewidth=0)
        axes.set(xlabel="owners, % (fewest photos first)", ylabel="photos, %", xlim=(0, 100), ylim=(0, 100))
        legend(axes)
    return sheet.svg
