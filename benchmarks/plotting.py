"""How all figures of the benchmarks look: `with mpl.rc_context(STYLE)`. Imports no matplotlib."""

from __future__ import annotations

from typing import Any

STYLE: dict[str, Any] = {
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "legend.frameon": False,
    "figure.dpi": 110,
    "savefig.bbox": "tight",
}
