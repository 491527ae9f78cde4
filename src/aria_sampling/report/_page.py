"""The page: the answer first, then figures and a table, in one file that needs no network."""

from __future__ import annotations

import base64
import io
import os
import warnings
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from aria_sampling.advice import Advice
from aria_sampling.history import History
from aria_sampling.report._figures import baselines, check, figures, movers, names_in_full

__all__ = ["STYLE", "html"]

_CAVEAT = (
    "Positive: the discrepancy would have been that much higher than it is, so the allocation helped. This is an "
    "estimate from this run alone. Its 95% interval reckons with noise and with the shape of the learning curves. It "
    "takes it that you train on the rows as drawn (not weighted). "
)
_ELSEWHERE = (
    "One run cannot show what regions learnt from draws elsewhere, or from rows that train anyway: any part of it may "
    "have been. Hence the interval is wide. It may miss where a few regions teach all others. "
)
_ALONE = (
    "Whoever made this page said that a region learns from its own draws alone: where regions teach each other, it "
    "claims too much. "
)
_SETTLED = "Only a second run with the baseline settles it."
_RATIOS = (
    "Losses were divided by what is usual at their noise level, so all discrepancies here are ratios. Their mean is "
    "near 1 by construction, whatever was learnt: this page cannot say how far the student came. Follow a loss that is "
    "not divided, or an evaluation, for that."
)
_HEADINGS = {
    "adaptive": "No: the allocation did better",
    "pool": "Drawing by the pool would have done as well",
    "uniform": "Yes: uniform shares would have done as well",
    "undecided": "Undecided",
}
_CAPTIONS = {
    "shares": "Lines: the regions drawn most and least beyond the target's share, which is ×1.",
    "heat": "Red: more than the target's share. Blue: less.",
    "discrepancy": "Estimates from the losses that were reported. Draws are wasted where a line stays up.",
    "ratios": "Estimates of loss over what is usual at its noise level, which is 1 at any time. They rank regions.",
    "draws": "Bars: what was drawn. Diamonds: what the pool's own shares would have drawn. Strokes: an even share.",
    "health": "Effective regions: exp of the entropy of the shares. Few of many: look at those regions first.",
}
STYLE = """
body{font:16px/1.5 system-ui,sans-serif;color:#22262e;max-width:960px;margin:2rem auto;padding:0 1rem}
h1{font-size:1.5rem;margin-bottom:0} h2{font-size:1.15rem;margin-top:2.2rem}
.meta,figcaption,.fine{color:#5b616b;font-size:.9rem}
.answer{border-left:6px solid #c2410c;background:#fdf6f0;padding:.8rem 1.2rem;margin:1.2rem 0}
.answer h2{margin:.2rem 0}
table{border-collapse:collapse;font-size:.9rem;width:100%}
th,td{padding:.25rem .6rem;text-align:right;border-bottom:1px solid #e3e5e8}
th:first-child,td:first-child{text-align:left;overflow-wrap:anywhere} figure{margin:1rem 0} img{max-width:100%}
"""


def html(history: History, path: str | os.PathLike[str], *, regions_learn_alone: bool = False) -> Path:
    """Write a report on `history` to `path`, one HTML file with all figures inside, and return the path.

    Args:
        history: What to report on.
        path: File to write.
        regions_learn_alone: See `History.advice`.

    Raises:
        ValueError: `history` is no `History`, or nothing was recorded yet; `regions_learn_alone` with a coverage.
        ImportError: matplotlib is not installed.
    """
    check(history)
    advice = history.advice(regions_learn_alone=regions_learn_alone)
    captions = {**_CAPTIONS, "discrepancy": _CAPTIONS["ratios" if history.normalised else "discrepancy"]}
    pictures = "".join(
        f'<figure><img alt="{escape(name)}" src="data:image/png;base64,{_png(figure)}">'
        f"<figcaption>{escape(captions[name])}</figcaption></figure>"
        for name, figure in figures(history).items()
    )
    page = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>Allocation report</title><style>{STYLE}</style></head><body><h1>Allocation report</h1>"
        f'<p class="meta">{escape(_headline(history))}</p>{_note(history)}{_answer(advice, regions_learn_alone)}'
        f"{pictures}<h2>Regions</h2>{_table(history)}</body></html>\n"
    )
    path = Path(path)
    path.write_text(page, encoding="utf-8", errors="backslashreplace")  # names may have halves of characters
    return path


def _headline(history: History) -> str:
    """Return what was run, in a line."""
    pool, draws, settings = history.allocator.partition, int(history.draw_counts[-1].sum()), history.settings
    said = [settings["policy"], settings["estimator"], f"exploration {settings['exploration']}"]
    said += [f"max_repeat {settings['max_repeat']}"] if settings["max_repeat"] != "none" else []
    return (
        f"{int(history.rounds[-1]):,} rounds, {draws:,} draws from {pool.n_items:,} items in {pool.n_regions:,} "
        f"regions. Coverage: {settings['coverage']}. {', '.join(said)}."
    )


def _note(history: History) -> str:
    """Return what a reader must know of the unit of discrepancies."""
    return f'<p class="ratios">{_RATIOS}</p>' if history.normalised else ""


def _png(figure: Any) -> str:
    """Return a figure as base64 of a PNG."""
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")  # names in scripts that the font lacks; the table has them
        figure.savefig(file, format="png", dpi=110)
    return base64.b64encode(file.getvalue()).decode()


def _answer(advice: Advice, alone: bool) -> str:
    """Return the answer to the question that stands on top."""
    rows = "".join(
        f"<tr><td>{name}</td><td>{escape(str(gain))}</td></tr>"
        for name, gain in (("the pool's own shares", advice.over_pool), ("uniform shares", advice.over_uniform))
    )
    doubts = "".join(f"<p>{escape(doubt)}</p>" for doubt in advice.doubts)
    heading = "There was nothing to allocate" if advice.nothing_to_allocate else _HEADINGS[advice.recommendation]
    caveat = _CAVEAT + (_ALONE if alone else _ELSEWHERE) + _SETTLED
    return (
        f'<section class="answer"><p class="meta">Would uniform have done as well?</p>'
        f"<h2>{heading}</h2><p>{escape(advice.verdict)}</p>{doubts}<table><tr><th>drawing by</th>"
        f"<th>discrepancy against what it is (95% interval)</th></tr>{rows}</table>"
        f'<p class="fine">{caveat}</p></section>'
    )


def _table(history: History) -> str:
    """Return the regions that differ most from the target, with numbers and whole names."""
    allocator = history.allocator
    chosen, (pool, uniform) = movers(history, 20), baselines(history)
    share = history.draw_counts[-1] / max(int(history.draw_counts[-1].sum()), 1)
    first, last, error = history.discrepancy[0], history.discrepancy[-1], history.stderr[-1]
    what, names = "ratio" if history.normalised else "discrepancy", names_in_full(history)
    head = ["region", "items", "drawn", "target", "pool", "uniform", f"{what} first", "now"]
    rows = [
        (
            f"<bdi>{escape(names[int(k)])}</bdi>",
            f"{allocator.partition.sizes[k]:,}",
            *(f"{100 * s[k]:.3g}%" for s in (share, allocator.target, pool, uniform)),
            f"{first[k]:.3g}",
            f"{last[k]:.3g} ± {error[k]:.1g}" if np.isfinite(error[k]) else "never seen",
        )
        for k in chosen
    ]
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    note = f"The {len(rows)} drawn most and least beyond the target's share." if len(rows) < len(share) else ""
    return f"<p class='meta'>{note}</p><table><tr>{''.join(f'<th>{h}</th>' for h in head)}</tr>{body}</table>"
