"""How many regions to take, in one figure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from aria_sampling._check import instance
from aria_sampling.partition import QualityCurve
from aria_sampling.report._figures import ACCENT, COLORS, INK, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["regions_figure"]

_LINES = {  # attribute: its error, what it says
    "between": ("between_error", "of the losses' variance is between regions (band: ±2 standard errors)"),
    "explained": (None, "of the embeddings' variance is between regions"),
    "stability": ("stability_error", "agreement of two fits (adjusted Rand index)"),
}


def regions_figure(curve: QualityCurve) -> Figure:
    """Return the figure of a `QualityCurve`: what more regions explain, and whether they can still be told apart.

    Raises:
        ValueError: `curve` is no `QualityCurve`.
        ImportError: matplotlib is not installed.
    """
    instance("curve", curve, QualityCurve)
    title = "How many regions?"
    if curve.recommended is not None:
        title += f" {curve.recommended:,}: more do not explain more of the losses"
    figure, axes = new_figure(title)
    axis: Any = axes[0, 0]
    numbers = curve.values("n_regions")
    for color, (name, (error_name, text)) in zip(COLORS, _LINES.items(), strict=False):
        values = curve.values(name)
        if np.isnan(values).all():
            continue
        axis.plot(numbers, values, color=color, marker="o", ms=4, lw=1.5, label=text)
        error = curve.values(error_name) if error_name else np.zeros(len(values))
        error = np.where(np.isfinite(error), error, 0.0)
        axis.fill_between(numbers, values - 2 * error, values + 2 * error, color=color, alpha=0.15, lw=0)
    if curve.recommended is not None:
        axis.axvline(curve.recommended, color=ACCENT, lw=0.8, ls="--")
    axis.set_xscale("log", base=2)
    axis.set_xticks(numbers, [f"{int(number):,}" for number in numbers])
    axis.minorticks_off()
    axis.axhline(0, color=INK, lw=0.6)
    axis.set_ylim(min(-0.05, axis.get_ylim()[0]), 1.05)
    axis.set_xlabel("regions", fontsize=9)
    axis.set_ylabel("share, or agreement", fontsize=9)
    axis.legend(fontsize=8, frameon=False, loc="best")
    return figure
