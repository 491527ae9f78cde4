r"""The words of a caption, in any script: what regions are named by.

Unicode's own rules (UAX 29) would take a table; this takes what Python has. A word is a run of letters, marks and
digits, with apostrophes and hyphens inside. Vowel signs of Indic scripts are marks, which ``\w`` of Python's `re`
leaves out. Scripts that are written without spaces give pairs of neighbouring characters instead.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from functools import cache
from itertools import pairwise

__all__ = ["words"]

_PLAIN = re.compile(r"[a-z0-9]+(?:['-][a-z0-9]+)*")  # in ASCII
_UNSPACED = (  # blocks of Han, kana, Thai, Lao, Tibetan, Burmese, Khmer
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\u3005-\u3007\u3040-\u30ff\u31f0-\u31ff"
    "\u0e00-\u0eff\u0f00-\u0fff\u1000-\u109f\u1780-\u17ff"
)


def words(caption: str) -> Iterable[str]:
    """Return the words of a caption in small letters, each once, in their order; none that are a letter or a number."""
    caption = caption.lower()
    if caption.isascii():
        found = _PLAIN.findall(caption.replace("_", " "))
        return dict.fromkeys(word for word in found if len(word) > 1 and not word.isdigit())
    word, run, character = _patterns()
    caption = unicodedata.normalize("NFKC", caption).replace("_", " ")
    kept: list[str] = []
    if run.search(caption) is None:
        for found in word.findall(caption):
            kept += _spaced(found)
        return dict.fromkeys(kept)
    for found in word.findall(caption):
        rest = 0
        for part in run.finditer(found):
            kept += _spaced(found[rest : part.start()])
            characters = character.findall(part.group())
            pairs = pairwise(characters)
            kept += ["".join(pair) for pair in pairs] if len(characters) > 1 else characters
            rest = part.end()
        kept += _spaced(found[rest:])
    return dict.fromkeys(kept)


def _spaced(word: str) -> list[str]:
    """Return a word of a script with spaces, if it is one."""
    word = word.strip("'’-")
    if len(word) == 1:
        return [word] if unicodedata.category(word) == "Lo" else []  # a syllable, not a letter of an alphabet
    return [word] if any(map(str.isalpha, word)) else []


@cache
def _patterns() -> tuple[re.Pattern[str], re.Pattern[str], re.Pattern[str]]:
    """Return what matches a word, a run of characters without spaces, and one such character with its marks."""
    # those of living scripts: beyond 0xFFFF `re` goes through a class one by one, which takes twenty times as long
    marks = [chr(i) for i in range(0x300, 0x10000) if unicodedata.category(chr(i))[0] == "M"]
    mark = re.escape("".join(marks)) + "\u200c\u200d"
    inside = rf"[\w{mark}]"
    return (
        re.compile(rf"{inside}+(?:['’-]{inside}+)*"),
        re.compile(rf"[{_UNSPACED}][{_UNSPACED}{mark}]*"),
        re.compile(rf"[^{mark}][{mark}]*"),
    )
