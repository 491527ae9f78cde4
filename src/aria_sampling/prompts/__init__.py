"""Prompts of a pool: read from files of any kind, kept in a store on the disk, looked up by item number.

>>> import tempfile
>>> from aria_sampling import prompts
>>> folder = tempfile.mkdtemp()
>>> pool = prompts.write(folder, ["a cat", "two dogs", "a cat", " "])
>>> len(pool), pool[1], pool.counts.duplicates, pool.counts.empty
(2, 'two dogs', 1, 1)

`read` reads captions of Parquet, Arrow, JSON Lines, CSV, TSV and plain text by one rule. `write` and `append` make a
store of them, `open` opens it. `demo` writes some captions to try it on. Needs pyarrow:
``pip install 'aria-sampling[text]'``.
"""

from aria_sampling.prompts._layout import Source as Source
from aria_sampling.prompts._rules import Counts as Counts
from aria_sampling.prompts.demo import demo as demo
from aria_sampling.prompts.reader import Captions as Captions
from aria_sampling.prompts.reader import read as read
from aria_sampling.prompts.store import Prompts as Prompts
from aria_sampling.prompts.store import open as open
from aria_sampling.prompts.writing import append as append
from aria_sampling.prompts.writing import write as write

__all__ = ["Captions", "Counts", "Prompts", "Source", "append", "demo", "open", "read", "write"]
