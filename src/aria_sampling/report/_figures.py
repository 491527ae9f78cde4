"""The figures. Each answers one question, which is its title, and shows few regions by name however many there are."""

from __future__ import annotations

import unicodedata
from collections import Counter
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from aria_sampling._arrays import AnyArray, IntArray
from aria_sampling._check import as_array
from aria_sampling.errors import ArgumentError, MissingDependencyError
from aria_sampling.history import History

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = [
    "ACCENT",
    "COLORS",
    "GREY",
    "INK",
    "baselines",
    "check",
    "figures",
    "movers",
    "names_in_full",
    "new_figure",
    "region_names",
]

_NEEDS = 'figures need matplotlib: pip install "aria-sampling[report]"'
_LINES = 8  # regions with a line of their own
_BARS = 24  # regions with a bar
_HEAT_ROWS = 60
GREY, INK, ACCENT = "#8a8f98", "#22262e", "#c2410c"
COLORS = ("#c2410c", "#1d4ed8", "#15803d", "#a21caf", "#0e7490", "#a16207", "#4338ca", "#be123c")


def figures(history: History) -> dict[str, Figure]:
    """Return the figures of a history by name: ``shares``, ``heat``, ``discrepancy``, ``draws`` and ``health``.

    They are `matplotlib.figure.Figure` objects, made without pyplot: no window, no global state.

    Raises:
        ValueError: `history` is no `History`, or nothing was recorded yet.
        ImportError: matplotlib is not installed.
    """
    check(history)
    makers = {"shares": _shares, "heat": _heat, "discrepancy": _discrepancy, "draws": _draws, "health": _health}
    return {name: make(history) for name, make in makers.items()}


# -- what they have in common


def check(history: History) -> None:
    """Raise ValueError unless it is a `History` with a record."""
    if not isinstance(history, History):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise ArgumentError(f"history: expected a History, got {type(history).__name__}")
    if len(history) == 0:
        raise ArgumentError(
            f"history: expected at least one record, got none: call record() after each step; the first record is made "
            f"after {history.every} rounds"
        )


def names_in_full(history: History) -> list[str]:
    """Return the name of every region, with its number where a name repeats, or the figures cannot write it."""
    names = history.allocator.partition.names
    count = Counter(names)
    return [
        name if count[name] == 1 and _writable(name) else f"{name} (#{region})" for region, name in enumerate(names)
    ]


def region_names(history: History, longest: int = 28) -> list[str]:
    """Return a name of every region for figures, no two alike, cut to that many characters.

    A name that the font lacks characters for, or is written from right to left, is the region's number: #12.
    """
    names = [
        _cut(" ".join(name.split()), longest) if _writable(name) else f"#{region}"
        for region, name in enumerate(history.allocator.partition.names)
    ]
    count = Counter(names)
    return [
        name if count[name] == 1 else f"{_cut(name, longest - len(str(region)) - 4)} (#{region})"
        for region, name in enumerate(names)
    ]


def _cut(name: str, longest: int) -> str:
    """Return a name of at most that many characters."""
    return name if len(name) <= longest else name[: longest - 1] + "…"


def _writable(name: str) -> bool:
    """Return whether figures can write a name: the font has its characters, and they only stand side by side."""
    if not name.strip():
        return False
    plain = name.isascii() and name.isprintable()
    return plain or all(character.isspace() or _drawn(character) for character in name)


@cache
def _drawn(character: str) -> bool:
    """Return whether a figure can show a character."""
    if unicodedata.category(character)[0] == "C" or unicodedata.bidirectional(character) in ("R", "AL"):
        return False
    return ord(character) in _characters()


@cache
def _characters() -> frozenset[int]:
    """Return the characters that the font of figures has."""
    try:
        from matplotlib import font_manager
    except ImportError as error:
        raise MissingDependencyError(_NEEDS) from error
    fonts: Any = font_manager
    return frozenset(fonts.get_font(fonts.findfont(fonts.FontProperties())).get_charmap())


def baselines(history: History) -> tuple[AnyArray, AnyArray]:
    """Return the shares of the regions when drawing by the pool, and uniformly, float64 [n_regions] each."""
    held = history.allocator.target > 0
    sizes = history.allocator.partition.sizes * held
    return sizes / sizes.sum(), held / held.sum()


def boost(history: History) -> AnyArray:
    """Return probability over target at each record, float64 [T, n_regions]; 1 where the target is 0."""
    target = history.allocator.target
    held = target > 0
    return np.where(held, as_array("probabilities", history.probabilities, "").astype(float), 1.0) / np.where(
        held, target, 1.0
    )


def movers(history: History, n: int) -> IntArray:
    """Return n regions: half those drawn most beyond the target's share, half those drawn least, in that order."""
    order = np.argsort(history.allocator.target - _share_of_draws(history), kind="stable")
    return order if len(order) <= n else np.concatenate([order[: n // 2], order[-(n - n // 2) :]])


def _share_of_draws(history: History) -> AnyArray:
    draws = history.draw_counts[-1]
    return draws / max(int(draws.sum()), 1)


def new_figure(
    title: str, *, height: float = 4.2, columns: int = 1, rows: int = 1, width: float = 9.0
) -> tuple[Any, Any]:
    """Return a figure with a title, and its axes, [rows, columns]."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingDependencyError(_NEEDS) from error
    figure: Any = Figure(figsize=(width, height), layout="constrained", facecolor="white")
    figure.suptitle(title, x=0.01, ha="left", fontsize=12, fontweight="bold", color=INK)
    axes: Any = figure.subplots(rows, columns, squeeze=False)
    for axis in axes.ravel():
        axis.spines[["top", "right"]].set_visible(False)
        axis.tick_params(labelsize=9, colors=INK)
    return figure, axes


def _plain(name: str) -> str:
    """Return a name that matplotlib does not take for mathematics."""
    return name.replace("$", r"\$")


def _label_ends(axis: Any, x: float, ends: AnyArray, names: list[str], colors: Any) -> None:
    """Write names at the right ends of lines, pushed apart; y must be final."""
    low, high = axis.get_ylim()
    logarithmic = axis.get_yscale() == "log"
    place = np.log(ends) if logarithmic else ends
    low, high = (np.log(low), np.log(high)) if logarithmic else (low, high)
    gap = (high - low) / 19
    order = np.argsort(place, kind="stable")
    heights = place[order].astype(float)
    for i in range(1, len(heights)):
        heights[i] = max(heights[i], heights[i - 1] + gap)
    heights -= max(float(heights[-1]) - high, 0.0) if len(heights) else 0.0
    for i, height in zip(map(int, order), heights.tolist(), strict=True):
        y = float(np.exp(height) if logarithmic else height)
        axis.annotate(
            _plain(names[i]), (x, y), xytext=(6, 0), textcoords="offset points", va="center", fontsize=8,
            color=colors[i % len(colors)], annotation_clip=False,
        )  # fmt: skip


def _lines(axis: Any, history: History, values: AnyArray, chosen: IntArray, text: str) -> None:
    """Draw the band that 90% of the regions lie in, and a named line for each of those chosen."""
    rounds, names = history.rounds, region_names(history)
    if values.shape[1] > len(chosen):
        low, high = np.nanpercentile(values, [5, 95], axis=1)
        axis.fill_between(rounds, low, high, color=GREY, alpha=0.25, lw=0, label=text)
    for color, region in zip(COLORS, chosen, strict=False):
        axis.plot(rounds, values[:, region], color=color, lw=1.5, marker="o" if len(rounds) == 1 else None)
    _label_ends(axis, float(rounds[-1]), values[-1, chosen], [names[region] for region in chosen], COLORS)
    axis.set_xlabel("round", fontsize=9)


def _times(value: float, _: object) -> str:
    return f"×{value:g}"


def _power(value: float, _: object) -> str:
    return f"×{2**value:.2g}"


def _number(value: float, _: object) -> str:
    return f"{value:g}"


def _nothing(value: float, _: object) -> str:
    return ""


# -- the figures


def _shares(history: History) -> Figure:
    figure, axes = new_figure("Which regions get more than they are worth to the target, and when?")
    axis, values = axes[0, 0], boost(history)
    chosen = movers(history, _LINES)
    axis.set_yscale("log", base=2)
    shown = np.concatenate([values[:, chosen].ravel(), np.percentile(values, [5, 95], axis=1).ravel()])
    axis.set_ylim(min(0.5, shown.min() / 1.3), max(2.0, shown.max() * 1.3))
    axis.axhline(1, color=INK, lw=0.8, ls="--", label="the target's share")
    _lines(axis, history, values, chosen, "90% of the regions")
    axis.yaxis.set_major_formatter(_times)
    axis.set_ylabel("share of a draw / target's share", fontsize=9)
    axis.legend(fontsize=8, frameon=False, loc="upper left")
    return figure


def _heat(history: History) -> Figure:
    values = np.log2(np.maximum(boost(history), 1e-6)).T
    held = np.flatnonzero(history.allocator.target > 0)
    order = held[np.argsort(-values[held, -1], kind="stable")]
    groups = np.array_split(order, min(len(order), _HEAT_ROWS))
    table = np.array([values[group].mean(axis=0) for group in groups])
    several = max(map(len, groups)) > 1
    about = f"a row is about {len(order) // len(groups)} regions, named by one of them" if several else "a row a region"
    figure, axes = new_figure(
        f"All regions, sorted by their share now ({about})", height=max(2.2, min(7.5, 1.4 + 0.16 * len(groups)))
    )
    axis = axes[0, 0]
    limit = max(float(np.abs(table).max()), 0.5)
    rounds = history.rounds
    edges = np.concatenate([[0], rounds])
    mesh = axis.pcolormesh(edges, np.arange(len(groups) + 1), table, cmap="RdBu_r", vmin=-limit, vmax=limit)
    names = region_names(history)
    every = max(1, -(-len(groups) // 30))
    shown = range(0, len(groups), every)
    axis.set_yticks([i + 0.5 for i in shown], [_plain(names[int(groups[i][0])]) for i in shown], fontsize=7)
    axis.invert_yaxis()
    axis.set_xlabel("round", fontsize=9)
    bar = figure.colorbar(mesh, ax=axis, pad=0.01, format=_power)
    bar.set_label("share / target's share", fontsize=9)
    bar.ax.tick_params(labelsize=8)
    return figure


def _discrepancy(history: History) -> Figure:
    ratios = history.normalised  # their mean is 1 by construction: it says nothing of progress
    figure, axes = new_figure(
        "Which regions are harder than is usual at their noise levels?"
        if ratios
        else "How far has the discrepancy come down?"
    )
    axis = axes[0, 0]
    values = history.discrepancy.astype(float)
    chosen = movers(history, _LINES)
    positive = values[np.isfinite(values) & (values > 0)]
    if len(positive) and positive.max() > 8 * positive.min():
        axis.set_yscale("log")
        axis.yaxis.set_major_formatter(_number)
        axis.yaxis.set_minor_formatter(_nothing)
        values = np.where(values > 0, values, np.nan)
    mean, marker = history.metrics("discrepancy"), "o" if len(history) == 1 else None
    if ratios:
        axis.axhline(1, color=INK, lw=0.8, ls="--", label="usual")
    else:
        axis.plot(history.rounds, mean, color=INK, lw=2.5, label="mean under the target", marker=marker)
    _lines(axis, history, values, chosen, "90% of the regions")
    axis.set_ylim(axis.get_ylim())  # not by the errors, which are large at first
    error = 2 * np.where(np.isfinite(history.stderr), history.stderr, 0.0)
    for color, k in zip(COLORS, chosen, strict=False):
        low = np.maximum(values[:, k] - error[:, k], positive.min() / 10 if len(positive) else 0.0)
        axis.fill_between(history.rounds, low, values[:, k] + error[:, k], color=color, alpha=0.1, lw=0)
    what = "loss / usual loss at its noise level" if ratios else "estimated mean loss"
    axis.set_ylabel(f"{what} (shade: ±2 standard errors)", fontsize=9)
    axis.legend(fontsize=8, frameon=False, loc="lower left")
    return figure


def _draws(history: History) -> Figure:
    pool, uniform = baselines(history)
    chosen = movers(history, _BARS)
    share, names = 100 * _share_of_draws(history), region_names(history)
    note = f"{len(chosen)} of {len(share)} regions" if len(chosen) < len(share) else "all regions"
    figure, axes = new_figure(f"What was drawn, against pool and uniform ({note})", height=1.6 + 0.24 * len(chosen))
    axis, rows = axes[0, 0], np.arange(len(chosen))
    axis.barh(rows, share[chosen], color=ACCENT, alpha=0.75, height=0.65, label="drawn")
    axis.plot(100 * pool[chosen], rows, "D", color=INK, ms=5, ls="", label="by the pool's own shares")
    axis.plot(100 * uniform[chosen], rows, "|", color="#1d4ed8", ms=12, mew=2.5, ls="", label="uniformly")
    axis.set_yticks(rows, [_plain(names[int(region)]) for region in chosen], fontsize=8)
    axis.invert_yaxis()
    axis.set_xlabel(f"% of all {int(history.draw_counts[-1].sum()):,} draws", fontsize=9)
    axis.legend(fontsize=8, frameon=False, loc="best")
    return figure


def _health(history: History) -> Figure:
    panels = {
        "effective_regions": f"effective regions, of {history.allocator.partition.n_regions}",
        "passes": "draws per item of the pool",
        "uncertain": "share of draws to regions\nthat cannot be told from the mean",
        "dropped_losses": "losses dropped, not finite",
    }
    figure, axes = new_figure("Is anything wrong?", columns=4, height=2.6)
    for axis, (name, text) in zip(axes[0], panels.items(), strict=True):
        values = history.metrics(name)
        axis.plot(history.rounds, values, color=INK, lw=1.5, marker="o" if len(values) == 1 else None)
        axis.set_title(text, fontsize=8.5, color=INK)
        axis.set_xlabel("round", fontsize=8)
        top = 1.0 if name == "uncertain" else max(float(np.nanmax(values)) * 1.1, 1.0)
        axis.set_ylim(0, top)
        axis.locator_params(nbins=4)
    return figure
