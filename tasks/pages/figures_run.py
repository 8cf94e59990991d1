"""Figures of a training run, in the style of ``figures.py``: arrays in, SVG bytes out, one function a figure."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.ticker import FuncFormatter, MaxNLocator

from tasks.pages.figures import ACCENT, INK, KEPT, MUTED, REJECTED, SECOND, Floats, drawing, legend

Bools = npt.NDArray[np.bool_]
WILSON_Z = 1.96  # 95 %


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


def size_factor_errors(crops: Floats, wholes: Floats) -> bytes:
    """Histogram of predicted minus true size factor, crops and whole photos apart; dashed, the bias on crops."""
    with drawing("size-factor-errors") as sheet:
        axes = sheet.axes
        reach = max(0.05, float(np.abs(np.concatenate([crops, wholes])).max()))
        edges = np.linspace(-reach, reach, min(42, 8 + int(2 * np.sqrt(len(crops) + len(wholes))))).tolist()
        for errors, colour, label in ((wholes, KEPT, "whole photos"), (crops, ACCENT, "crops")):
            if len(errors):
                weights = np.full(len(errors), 100 / len(errors))
                axes.hist(errors, bins=edges, weights=weights, color=colour, alpha=0.55, label=label)
        axes.axvline(0.0, color=INK, linewidth=0.9)
        if len(crops):
            bias = crops.mean()
            axes.axvline(bias, color=REJECTED, linestyle=(0, (4, 3)), label=f"bias on crops {bias:+.3f}")
        axes.set(xlabel="size factor: predicted − true", ylabel="share of each kind, %")
        axes.grid(axis="x", visible=False)
        legend(axes)
    return sheet.svg


def wilson(hits: Floats, counts: Floats) -> tuple[Floats, Floats]:
    """Bounds of the 95 % interval of hits / counts. Source: Wilson, J. Am. Stat. Assoc. 22 (1927)."""
    share, z2 = hits / counts, WILSON_Z**2
    centre = (share + z2 / (2 * counts)) / (1 + z2 / counts)
    half = WILSON_Z * np.sqrt(share * (1 - share) / counts + z2 / (4 * counts**2)) / (1 + z2 / counts)
    return centre - half, centre + half


def accuracy_by_size_factor(size_factor: Floats, is_right: Bools, is_crop: Bools) -> bytes:
    """Share of samples told right, crops by tenths of their size factor and whole photos apart, with 95 % intervals."""
    bins = np.where(is_crop, np.clip(np.floor(size_factor * 10 + 1e-9), 0, 9), 10)
    found, members = np.unique(bins, return_inverse=True)
    counts = np.bincount(members).astype(np.float64)
    hits: Floats = np.bincount(members, weights=is_right).astype(np.float64)
    low, high = wilson(hits, counts)
    names = ["whole" if tenth == 10 else f"{tenth / 10:.1f}–{tenth / 10 + 0.1:.1f}" for tenth in found]
    with drawing("accuracy-by-size-factor") as sheet:
        axes, place, percent = sheet.axes, np.arange(len(found)), 100 * hits / counts
        axes.axhline(50, color=MUTED, linewidth=0.9, linestyle=(0, (4, 3)), label="coin")
        spread = np.clip([percent - 100 * low, 100 * high - percent], 0, None)
        axes.errorbar(place, percent, yerr=spread, fmt="o", color=ACCENT, capsize=3, label="accuracy, 95 % interval")
        axes.set_xticks(place, [f"{name}\nn={count:,.0f}" for name, count in zip(names, counts, strict=True)])
        axes.set(ylim=(0, 104), xlim=(-0.5, len(found) - 0.5), ylabel="told right, %", xlabel="true size factor")
        axes.grid(axis="x", visible=False)
        legend(axes)
    return sheet.svg


def reliability(probability: Floats, is_crop: Bools, weight: Floats) -> bytes:
    """How often a sample is a crop, against how probable the network says it is, by tenths with 95 % intervals.

    ``weight`` makes crops and whole photos count alike; the intervals take Kish's effective number of samples.
    """
    tenth = np.clip((probability * 10).astype(int), 0, 9)
    mass, mass2, said, hits = (
        np.bincount(tenth, weights=each, minlength=10)
        for each in (weight, weight**2, weight * probability, weight * is_crop)
    )
    filled = mass > 0
    mass, mass2, said, hits = mass[filled], mass2[filled], said[filled], hits[filled]
    effective = mass**2 / mass2
    low, high = wilson(hits / mass * effective, effective)
    with drawing("reliability") as sheet:
        axes, seen = sheet.axes, 100 * hits / mass
        axes.plot([0, 100], [0, 100], color=MUTED, linewidth=0.9, linestyle=(0, (4, 3)), label="perfectly calibrated")
        spread = np.clip([seen - 100 * low, 100 * high - seen], 0, None)
        axes.errorbar(
            100 * said / mass,
            seen,
            yerr=spread,
            fmt="o-",
            color=ACCENT,
            capsize=3,
            linewidth=1.0,
            label="network, 95 % interval",
        )
        axes.set(
            xlim=(-2, 102), ylim=(-2, 104), xlabel="predicted probability of a crop, %", ylabel="crops among them, %"
        )
        legend(axes)
    return sheet.svg
