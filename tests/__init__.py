"""Tests of aria-sampling: `properties/` holds the laws, the rest mirrors `src/`."""
