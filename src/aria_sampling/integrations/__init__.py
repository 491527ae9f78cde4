"""Glue for the trainers that people use, one module a host; each imports its host and nothing of the others.

It adds no behaviour of its own: it finds the sampler inside what the host made of the loader, refuses what would
break adaptivity without a word, and hands state and metrics to the host's own checkpoints and loggers.
"""
