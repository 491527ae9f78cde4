"""The theory in a real loop: error bars against a truth in closed form, estimators against the best in hindsight.

`python -m benchmarks.theory --help`; README.md in this folder says how to read what it writes.
"""
