"""Sphinx configuration. Built with `-n -W`: a reference that leads nowhere is an error."""

import re
from importlib.metadata import version as installed_version

import aria_sampling

project = "aria-sampling"
author = "The aria-sampling developers"
copyright = "2026, " + author
release = version = installed_version("aria-sampling")

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
]
exclude_patterns = ["_build"]
suppress_warnings = ["config.cache"]

html_theme = "furo"
html_title = "aria-sampling"
html_static_path = ["_static"]
html_show_sourcelink = False

myst_enable_extensions = ["dollarmath", "deflist", "colon_fence"]
myst_heading_anchors = 3

# The docstrings state shapes, dtypes and units in words, which says more than the annotations do.
autodoc_typehints = "none"
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True}
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_attr_annotations = False

copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True

# Other projects' types, and names of ours that are only shorthand in annotations.
nitpick_ignore_regex = [
    ("py:class", r"(numpy|np|torch|abc|typing|collections)\..*"),
    ("py:class", r"aria_sampling\._.*"),
    ("py:class", r"(AnyArray|BoolArray|FloatArray|IntArray|NDArray|State|Sampler|ndarray|dtype)"),
]


def _keep_first_line(app, what, name, obj, options, lines):
    """Shield the sentence of a property from napoleon, which reads what stands before a colon as a type."""
    if what == "property":
        lines[:0] = ["..", ""]  # an empty comment


_PUBLIC = "|".join(sorted(aria_sampling.__all__, key=len, reverse=True))
_NAME = re.compile(rf"(?<![`:\w])`({_PUBLIC})(\.\w+)?`(?![`\w])")


def _link(match):
    owner, member = match[1], match[2] or ""
    # Fields of dataclasses are described with their class and have no place of their own.
    target = owner + member if hasattr(getattr(aria_sampling, owner), member[1:] or "__doc__") else owner
    return f":py:obj:`{owner}{member} <aria_sampling.{target}>`"


def _link_names(app, what, name, obj, options, lines):
    """Make `Name` a link where it is one of ours."""
    lines[:] = [_NAME.sub(_link, line) for line in lines]


def _public_bases(app, name, obj, options, bases):
    """Show a class as derived from the public one behind a private base."""
    bases[:] = [base.__base__ if getattr(base, "__name__", "").startswith("_") else base for base in bases]


def setup(app):
    app.connect("autodoc-process-docstring", _keep_first_line, priority=400)
    app.connect("autodoc-process-docstring", _link_names)
    app.connect("autodoc-process-bases", _public_bases)
