"""The cells of the study: one factor at a time from a base cell. `python -m benchmarks.emoji study --cells ...`.

A cell is everything that decides a run but method and seed: the student, the world, the rate of switching. The tuning
cells are the only ones on which anything may be chosen; they share neither groups nor seeds with the others.
"""

from __future__ import annotations

from typing import Any

BASE: dict[str, Any] = {"student": "depth3", "unseen": "Objects, Travel & Places", "n_regions": 512}

CELLS: dict[str, tuple[str, dict[str, Any]]] = {
    "base": ("base cell", {}),
    "depth4": ("student: 4 of 5 blocks", {"student": "depth4"}),
    "depth2": ("student: 2 of 5 blocks", {"student": "depth2"}),
    "narrow": ("student: narrow, from scratch", {"student": "narrow"}),
    "conv": ("student: U-Net, from scratch", {"student": "conv"}),
    "symbols": ("unseen: Symbols, Activities", {"unseen": "Symbols, Activities"}),
    "smileys": ("unseen: Smileys & Emotion, Flags", {"unseen": "Smileys & Emotion, Flags"}),
    "long_tail": ("pool: long-tailed", {"pool": "long_tail"}),
    "names": ("pool: names only", {"pool": "names"}),
    "diluted": ("pool: diluted fivefold", {"pool": "diluted"}),
    "few": ("images: a tenth", {"paired_share": 0.1}),
    "rate2": ("switch rate: 2", {"lam": 2.0}),
}
"""By name: a title, and what differs from `BASE`."""

TUNING: dict[str, dict[str, Any]] = {
    name: {**BASE, "unseen": "Animals & Nature, Food & Drink", **changes}
    for name, changes in (("tuning", {}), ("tuning_diluted", {"pool": "diluted"}))
}
"""Whole settings of the cells on which settings are chosen."""

MAIN_METHODS = ("none", "rc", "uniform", "aria", "oracle")
SEEDS = (10, 11, 12, 13, 14)
