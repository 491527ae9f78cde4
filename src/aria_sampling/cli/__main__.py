"""``python -m aria_sampling.cli`` is ``aria-sampling``."""

from aria_sampling.cli import main

if __name__ == "__main__":
    main()
