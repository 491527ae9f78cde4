"""The mixing study: a small language model on a mixture of texts, to show that the parts are not about diffusion.

`python -m benchmarks.mixing --help`; README.md in this folder says how to read what it writes.
"""
