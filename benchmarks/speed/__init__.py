"""What a round costs, against other samplers in the same run: `python -m benchmarks.speed`.

Run it from the root of the repository; README.md beside this file says how to read what it writes.
"""
