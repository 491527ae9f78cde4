"""What an allocation did, for people: figures, and a page that stands alone.

>>> import aria_sampling as aria
>>> from aria_sampling import report
>>> allocator = aria.Allocator(aria.Partition.from_labels([0, 0, 1, 1], names=["cats", "dogs"]))
>>> history = aria.History(allocator, every=1)
>>> for _ in range(8):
...     draw = allocator.draw(4)
...     allocator.observe(draw.regions, 1.0 + draw.regions)
...     allocator.step()
...     recorded = history.record()
>>> path = report.html(history, "report.html")  # doctest: +SKIP
>>> sorted(report.figures(history))
['discrepancy', 'draws', 'health', 'heat', 'shares']

Needs matplotlib (``pip install "aria-sampling[report]"``), which is loaded when a figure is made.
"""

from aria_sampling.report._figures import figures as figures
from aria_sampling.report._page import html as html
from aria_sampling.report._pool import pool_html as pool_html
from aria_sampling.report._quality import regions_figure as regions_figure

__all__ = ["figures", "html", "pool_html", "regions_figure"]
