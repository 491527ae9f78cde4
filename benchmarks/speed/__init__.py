"""What a round costs, beside what it is compared with, all in one run: `python -m benchmarks.speed`."""
