"""Links to pages in notebooks, which mkdocs-jupyter leaves as they are, and formulas everywhere.

Formulas become MathML, which browsers draw themselves: no script, nothing fetched.
"""

import logging
import posixpath
import re
from functools import partial
from html import unescape

from latex2mathml.converter import convert
from mkdocs.structure.files import Files
from mkdocs.structure.pages import Page

LINK = re.compile(r'href="(?!\w+:)([^"#]+)\.(md|ipynb)(#[^"]*)?"')
FORMULA = re.compile(
    r"<(pre|code|script|style)\b.*?</\1>|<[^>]*>|\$\$([^$<]+)\$\$|\$(?!\s)([^$<\n]+)(?<!\s)\$",
    re.DOTALL,
)
"""What is between dollars; code and tags match as a whole, to be left alone."""

log = logging.getLogger("mkdocs.plugins.notebooks")


def on_page_content(html: str, page: Page, files: Files, **_: object) -> str:
    """Resolve a notebook's links to other sources, and convert a page's formulas."""
    if page.file.src_uri.endswith(".ipynb"):
        html = LINK.sub(partial(resolved, page=page, files=files), html)
    return FORMULA.sub(drawn, html)


def resolved(link: re.Match[str], page: Page, files: Files) -> str:
    """Return a link to the page made of a source; warn if there is none."""
    path = posixpath.normpath(
        posixpath.join(posixpath.dirname(page.file.src_uri), f"{link[1]}.{link[2]}")
    )
    file = files.get_file_from_path(path)
    if file is None:
        # its own source, for those who download it
        if link[1].rpartition("/")[2] != page.file.name:
            log.warning("%s links to %s, which is not there", page.file.src_uri, path)
        return link[0]
    return f'href="{file.url_relative_to(page.file)}{link[3] or ""}"'


def drawn(formula: re.Match[str]) -> str:
    """Return a formula as MathML, in a line of its own between double dollars."""
    latex = formula[2] or formula[3]
    return (
        formula[0]
        if latex is None
        else convert(unescape(latex), display="block" if formula[2] else "inline")
    )
