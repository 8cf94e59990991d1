"""Figures of crop detection, in the style of ``figures.py``: what an evaluation holds in, SVG bytes out."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tasks.pages.figures import ACCENT, INK, KEPT, MUTED, REJECTED, SECOND, drawing, legend


def size_factor_errors(errors: Sequence[Mapping[str, Any]]) -> bytes:
    """Histograms of predicted less true size factor; dashed, the bias of the first.

    ``errors``: label, values, bias, and the weights that the values count with (evaluations of 0.4 gave none: alike).
    """
    with drawing("size-factor-errors") as sheet:
        axes = sheet.axes
        filled = [each for each in errors if each["values"]]
        every = np.concatenate([each["values"] for each in filled] or [[0.0]])
        reach = max(0.05, float(np.abs(every).max()))
        edges = np.linspace(-reach, reach, min(42, 8 + int(2 * np.sqrt(len(every))))).tolist()
        for each, colour in zip(filled, (ACCENT, KEPT, SECOND, REJECTED), strict=False):
            weights = np.array(each.get("weights") or np.ones(len(each["values"])))
            style: dict[str, Any] = {"histtype": "step", "linewidth": 1.4} if colour != ACCENT else {"alpha": 0.5}
            axes.hist(
                each["values"],
                bins=edges,
                weights=100 * weights / weights.sum(),
                color=colour,
                label=each["label"].partition(" (")[0],
                **style,
            )
        axes.axvline(0.0, color=INK, linewidth=0.9)
        if filled:
            bias = filled[0]["bias"]["value"]
            axes.axvline(bias, color=REJECTED, linestyle=(0, (4, 3)), label=f"bias {bias:+.3f}")
        axes.set(xlabel="size factor: predicted − true", ylabel="share of each kind, %")
        axes.grid(axis="x", visible=False)
        legend(axes, 1)
    return sheet.svg


def shares_right(name: str, names: Sequence[str], groups: Sequence[Mapping[str, Any]], what: str) -> bytes:
    """Share told right in each group of samples, with 95 % intervals, beside a coin.

    ``groups``: samples, value, low and high; ``what``: the axis that ``names`` stand on.
    """
    with drawing(name) as sheet:
        axes, place = sheet.axes, np.arange(len(groups))
        value, low, high = (np.array([100 * each[key] for each in groups]) for key in ("value", "low", "high"))
        axes.axhline(50, color=MUTED, linewidth=0.9, linestyle=(0, (4, 3)), label="coin")
        spread = np.clip([value - low, high - value], 0, None)
        axes.errorbar(place, value, yerr=spread, fmt="o", color=ACCENT, capsize=3, label="accuracy, 95 % interval")
        counts = [each["samples"] for each in groups]
        axes.set_xticks(place, [f"{each}\nn={count:,}" for each, count in zip(names, counts, strict=True)])
        axes.set(ylim=(0, 104), xlim=(-0.5, len(groups) - 0.5), ylabel="told right, %", xlabel=what)
        axes.grid(axis="x", visible=False)
        legend(axes)
    return sheet.svg
