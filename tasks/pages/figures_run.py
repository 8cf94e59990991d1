"""Figures of a training run, in the style of ``figures.py``: arrays in, SVG bytes out, one function a figure."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.ticker import FuncFormatter, MaxNLocator

from tasks.pages.figures import ACCENT, KEPT, LINE, MUTED, REJECTED, SECOND, drawing, legend


def losses(epochs: Sequence[Mapping[str, Any]]) -> bytes:
    """Loss on train and val, and the learning rate below, over epochs; the best epoch on val is marked.

    ``epochs``: mappings with epoch (from 1), loss, val_loss, lr.
    """
    with drawing("losses", heights=(3.0, 1.0)) as sheet:
        upper, lower = sheet.panels
        epoch = [row["epoch"] for row in epochs]
        mark = "o" if len(epoch) == 1 else None
        upper.plot(epoch, [row["loss"] for row in epochs], color=ACCENT, marker=mark, label="train")
        held_out = [(row["epoch"], row["val_loss"]) for row in epochs if row.get("val_loss") is not None]
        if held_out:
            upper.plot(*zip(*held_out, strict=True), color=SECOND, marker=mark, label="val")
            best = min(held_out, key=lambda pair: pair[1])
            upper.plot(*best, "o", color=SECOND, markersize=5, label=f"best val {best[1]:.4g} (epoch {best[0]})")
        upper.set_ylabel("loss")
        lower.plot(epoch, [row["lr"] for row in epochs], color=MUTED, marker=mark)
        lower.set(xlabel="epoch", ylabel="learning\nrate", ylim=(0, None))
        lower.xaxis.set_major_locator(MaxNLocator(integer=True))
        lower.yaxis.set_major_locator(MaxNLocator(nbins=3, steps=[1, 2, 4, 5, 10]))
        lower.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        legend(upper)
    return sheet.svg


def reliability(name: str, before: Sequence[Mapping[str, Any]], after: Sequence[Mapping[str, Any]]) -> bytes:
    """How often it was so against how probable it was said to be, with 95 % intervals; grey: before the temperature.

    ``before``, ``after``: bins with probability, frequency, low and high.
    """
    with drawing(f"reliability-{name}") as sheet:
        axes = sheet.axes
        axes.plot([0, 100], [0, 100], color=MUTED, linewidth=0.9, linestyle=(0, (4, 3)), label="perfectly calibrated")
        plain = [[100 * each[key] for each in before] for key in ("probability", "frequency")]
        axes.plot(*plain, "o-", color=LINE, linewidth=1.0, markersize=3.5, label="as the network says")
        said, seen, low, high = (
            np.array([100 * each[key] for each in after]) for key in ("probability", "frequency", "low", "high")
        )
        spread = np.clip([seen - low, high - seen], 0, None)
        style: dict[str, Any] = {"fmt": "o-", "color": ACCENT, "capsize": 3, "linewidth": 1.0}
        axes.errorbar(said, seen, yerr=spread, label="with the temperature of val", **style)
        axes.set(xlim=(-2, 102), ylim=(-2, 104), xlabel="predicted probability, %", ylabel="it was so, %")
        legend(axes, 1)
    return sheet.svg


def responses(name: str, curves: Mapping[str, Sequence[Mapping[str, Any]]]) -> bytes:
    """Figures with their 95 % intervals by the strength of a perturbation, a curve for each.

    ``curves``: by label, mappings with strength, value, low and high.
    """
    with drawing(f"responses-{name}") as sheet:
        axes = sheet.axes
        for (label, rows), colour in zip(curves.items(), (ACCENT, KEPT, SECOND, REJECTED), strict=False):
            strength, value, low, high = (
                np.array([row[key] for row in rows], float) for key in ("strength", "value", "low", "high")
            )
            axes.fill_between(strength, low, high, color=colour, alpha=0.18, linewidth=0)
            axes.plot(strength, value, "o-", color=colour, markersize=3, label=label.partition(",")[0])
        axes.axvline(0.0, color=MUTED, linewidth=0.9)
        axes.set(xlabel=f"{name}, strength", ylabel="figure")
        legend(axes, 1)
    return sheet.svg
