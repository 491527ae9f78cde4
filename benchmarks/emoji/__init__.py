"""The emoji study: a small, real text-to-image distillation that runs on a laptop's CPU.

`python -m benchmarks.emoji --help` lists the commands; README.md in this folder says how to read what they write.
"""
