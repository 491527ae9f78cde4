"""Remedies of the prompt store."""

from tests.unit.remedies.case import Case

_IN = "import os, tempfile; from aria_sampling import prompts; folder = tempfile.mkdtemp()\n"
_FILES = _IN + "captions = [folder + '/a.txt']\nwith open(captions[0], 'w') as file:\n    file.write('a cat\\n')\n"
_NULLS = _IN + (
    "with open(folder + '/a.jsonl', 'w') as file:\n"
    '    file.write(\'{"text": "a", "n": 1}\\n{"text": "b", "n": null}\\n\')\n'
    "pool = prompts.write(folder + '/pool', prompts.read(folder + '/a.jsonl', keep=['n']))\n"
)

CASES = [
    Case("names of files for captions", _FILES, "prompts.write(folder + '/pool', captions)"),
    Case("a column with nulls", _NULLS, "values = pool.column('n')", "assert values.tolist() == [1, -1]"),
]
