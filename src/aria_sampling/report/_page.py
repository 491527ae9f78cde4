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
from aria_sampling.report._figures import baselines, check, figures, movers

__all__ = ["html"]

_CAVEAT = (
    "Positive: the discrepancy would have been that much higher than it is, so the allocation helped. This is an "
    "estimate from this run alone. Its 95% interval reckons with noise, with the shape of the learning curves, and "
    "with the decay that all regions have in common. It takes it that you train on the rows as drawn (not weighted), "
    "and that a region learns from its own draws: where regions that differ in what can be learnt teach each other, "
    "it claims too much. Rows that train anyway (present=, paired=) are not counted. Only a second run with the "
    "baseline settles it."
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
    "draws": "Bars: what was drawn. Diamonds: what the pool's own shares would have drawn. Strokes: an even share.",
    "health": "Effective regions: exp of the entropy of the shares. Few of many: look at those regions first.",
}
_STYLE = """
body{font:16px/1.5 system-ui,sans-serif;color:#22262e;max-width:960px;margin:2rem auto;padding:0 1rem}
h1{font-size:1.5rem;margin-bottom:0} h2{font-size:1.15rem;margin-top:2.2rem}
.meta,figcaption,.fine{color:#5b616b;font-size:.9rem}
.answer{border-left:6px solid #c2410c;background:#fdf6f0;padding:.8rem 1.2rem;margin:1.2rem 0}
.answer h2{margin:.2rem 0}
table{border-collapse:collapse;font-size:.9rem;width:100%}
th,td{padding:.25rem .6rem;text-align:right;border-bottom:1px solid #e3e5e8}
th:first-child,td:first-child{text-align:left;overflow-wrap:anywhere} figure{margin:1rem 0} img{max-width:100%}
"""


def html(history: History, path: str | os.PathLike[str]) -> Path:
    """Write a report on `history` to `path`, one HTML file with all figures inside, and return the path.

    Raises:
        ValueError: `history` is no `History`, or nothing was recorded yet.
        ImportError: matplotlib is not installed.
    """
    check(history)
    allocator = history.allocator
    return write(
        history, path, f"{allocator.policy!r}, {allocator.estimator!r}, exploration {allocator.exploration:g}."
    )


def write(history: History, path: str | os.PathLike[str], settings: str) -> Path:
    """Write the report, with `settings` of the allocator in words."""
    pictures = "".join(
        f'<figure><img alt="{escape(name)}" src="data:image/png;base64,{_png(figure)}">'
        f"<figcaption>{escape(_CAPTIONS[name])}</figcaption></figure>"
        for name, figure in figures(history).items()
    )
    pool, draws = history.allocator.partition, int(history.draw_counts[-1].sum())
    page = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>Allocation report</title><style>{_STYLE}</style></head><body><h1>Allocation report</h1>"
        f'<p class="meta">{int(history.rounds[-1]):,} rounds, {draws:,} draws from {pool.n_items:,} items in '
        f"{pool.n_regions:,} regions. {escape(settings)}</p>{_answer(history.advice())}{pictures}"
        f"<h2>Regions</h2>{_table(history)}</body></html>\n"
    )
    path = Path(path)
    path.write_text(page, encoding="utf-8")
    return path


def _png(figure: Any) -> str:
    """Return a figure as base64 of a PNG."""
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")  # names in scripts that the font lacks; the table has them
        figure.savefig(file, format="png", dpi=110)
    return base64.b64encode(file.getvalue()).decode()


def _answer(advice: Advice) -> str:
    """Return the answer to the question that stands on top."""
    rows = "".join(
        f"<tr><td>{name}</td><td>{escape(str(gain))}</td></tr>"
        for name, gain in (("the pool's own shares", advice.over_pool), ("uniform shares", advice.over_uniform))
    )
    return (
        f'<section class="answer"><p class="meta">Would uniform have done as well?</p>'
        f"<h2>{_HEADINGS[advice.recommendation]}</h2><p>{escape(advice.verdict)}</p><table><tr><th>drawing by</th>"
        f"<th>discrepancy against what it is (95% interval)</th></tr>{rows}</table>"
        f'<p class="fine">{_CAVEAT}</p></section>'
    )


def _table(history: History) -> str:
    """Return the regions that differ most from the target, with numbers and whole names."""
    allocator = history.allocator
    chosen, (pool, uniform) = movers(history, 20), baselines(history)
    share = history.draw_counts[-1] / max(int(history.draw_counts[-1].sum()), 1)
    first, last, error = history.discrepancy[0], history.discrepancy[-1], history.stderr[-1]
    head = ["region", "items", "drawn", "target", "pool", "uniform", "discrepancy first", "now"]
    rows = [
        (
            escape(allocator.partition.names[int(k)]),
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
