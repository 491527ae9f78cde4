"""A page on a partition: how large its regions are, what they are called, and which have data. One file, no network."""

from __future__ import annotations

import os
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from aria_sampling._check import as_path, instance
from aria_sampling.partition import Partition, PartitionSummary, RegionSummary
from aria_sampling.report._page import STYLE

__all__ = ["pool_html"]

_MOST = 500  # regions in the table
_POINTS = 400  # of the curve
_WIDTH, _HEIGHT = 900, 220
_OWN_STYLE = """
td.bar{width:18%;text-align:left} td.bar span{display:block;height:.8em;background:#c2410c;opacity:.75}
td.bar span.none{background:#8a8f98} td.text{text-align:left;color:#5b616b;font-size:.85rem;overflow-wrap:anywhere}
td.text ul{margin:0;padding-left:1rem} svg{max-width:100%}
"""


def pool_html(partition: Partition, path: str | os.PathLike[str], *, counts: Any = None) -> Path:
    """Write a page on a partition to `path`, one HTML file, and return the path.

    It has the sizes, the names and typical captions of the 500 largest regions (those without data first, if `counts`
    are given), and needs neither matplotlib nor a network.

    Args:
        partition: What to show.
        path: File to write.
        counts: Rows of data of each region, real [n_regions], such as ``coverage.counts``.

    Raises:
        ValueError: `partition` is none, or `counts` do not fit it.
    """
    instance("partition", partition, Partition)
    path = as_path("path", path)
    found = partition.describe(counts=counts, most=_MOST)
    uncovered = {region.region for region in found.uncovered}
    rows = [*found.uncovered, *(region for region in found.largest if region.region not in uncovered)][:_MOST]
    note = f"{len(rows)} of {found.n_regions:,} regions" if len(rows) < found.n_regions else "All regions"
    order = "those without data first, then the largest" if found.uncovered else "the largest first"
    page = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>Regions of a pool</title><style>{STYLE}{_OWN_STYLE}</style></head><body><h1>Regions of a pool</h1>"
        f'<p class="meta">{escape(_headline(found))}</p>{_facts(found)}<h2>Sizes</h2>{_curve(partition, counts)}'
        f'<h2>Regions</h2><p class="meta">{note}, {order}.</p>{_table(rows, covered=found.n_covered is not None)}'
        "</body></html>\n"
    )
    path.write_text(page, encoding="utf-8", errors="backslashreplace")  # names may have halves of characters
    return path


def _headline(found: PartitionSummary) -> str:
    removed = f", {found.n_removed:,} of them removed" if found.n_removed else ""
    return f"{found.n_items:,} items{removed}, in {found.n_regions:,} regions. Fingerprint {found.fingerprint}."


def _facts(found: PartitionSummary) -> str:
    """Return the numbers of a partition as a table."""
    smallest, low, median, high, largest = found.sizes
    facts = {
        "sizes": f"{smallest:,} to {largest:,}; quartiles {low:,.0f}, {median:,.0f}, {high:,.0f}",
        "half of the items are in": f"{found.half:,} regions",
        "the smaller half of the regions has": f"{100 * found.tail:.3g}% of the items",
        "as uneven as": f"{found.effective_regions:,.1f} equal regions",
        "centres": "none" if found.width is None else f"{found.width} numbers each",
    }
    if found.n_covered is not None:
        facts["regions with data"] = f"{found.n_covered:,}, with {100 * (found.covered or 0.0):.3g}% of the items"
    return (
        "<table>" + "".join(f"<tr><td>{name}</td><td>{value}</td></tr>" for name, value in facts.items()) + "</table>"
    )


def _curve(partition: Partition, counts: Any) -> str:
    """Return the sizes, largest first, as a picture: a logarithmic axis up, and what has data in another colour."""
    order = np.argsort(-partition.sizes, kind="stable")
    order = order[partition.sizes[order] > 0]
    sizes = partition.sizes[order].astype(float)
    held = None if counts is None else np.asarray(counts, float)[order] > 0
    groups = np.array_split(np.arange(len(order)), min(len(order), _POINTS))
    top, width = np.log10(max(sizes[0], 2.0)), _WIDTH / len(groups)
    bars: list[str] = []
    for i, group in enumerate(groups):
        mean = float(sizes[group].mean())
        height = max(1.0, _HEIGHT * np.log10(max(mean, 1.0)) / top)
        share = 1.0 if held is None else float(held[group].mean())
        title = f"regions {group[0] + 1} to {group[-1] + 1} by size: {mean:,.0f} items"
        title += "" if held is None else f", {100 * share:.0f}% of them with data"
        color = (
            "#c2410c" if held is None else f"rgb({138 + 56 * share:.0f},{143 - 78 * share:.0f},{152 - 140 * share:.0f})"
        )
        bars.append(
            f'<rect x="{i * width:.2f}" y="{_HEIGHT - height:.1f}" width="{width:.2f}" height="{height:.1f}" '
            f'fill="{color}"><title>{title}</title></rect>'
        )
    legend = "" if held is None else " Grey: regions without data."
    return (
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="Sizes of the regions, largest first">'
        f'{"".join(bars)}</svg><p class="fine">Items of each region on a logarithmic scale, the largest first '
        f"({sizes[0]:,.0f} to {sizes[-1]:,.0f}).{legend}</p>"
    )


def _table(regions: list[RegionSummary], *, covered: bool) -> str:
    """Return the regions with names, bars and captions."""
    most = max((region.share for region in regions), default=1.0)
    head = ["region", "#", "items", "share", "", *(["rows of data"] if covered else []), "typical captions"]
    rows: list[str] = []
    for region in regions:
        captions = "".join(f"<li><bdi>{escape(caption)}</bdi></li>" for caption in region.captions)
        terms = escape(", ".join(region.terms))
        none = ' class="none"' if region.rows == 0 else ""
        rows.append(
            f'<tr><td title="{terms}"><bdi>{escape(region.name)}</bdi></td><td>{region.region}</td>'
            f"<td>{region.size:,}</td><td>{100 * region.share:.3g}%</td>"
            f'<td class="bar"><span{none} style="width:{100 * region.share / most:.1f}%"></span></td>'
            + (f"<td>{region.rows:,.0f}</td>" if covered else "")
            + f'<td class="text">{f"<ul>{captions}</ul>" if captions else ""}</td></tr>'
        )
    return f"<table><tr>{''.join(f'<th>{name}</th>' for name in head)}</tr>{''.join(rows)}</table>"
