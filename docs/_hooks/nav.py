"""The navigation: a section given as "folder/*" lists the files that are there."""

from fnmatch import fnmatch
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.plugins import event_priority
from mkdocs.structure.files import Files
from mkdocs.structure.pages import Page

ORDER = ["sine", "few_shot_images", "update_rule", "own_model", "meta_gradients", "papers_table"]
"""Pages that come first in their section, in this order; the others follow as they are found."""


@event_priority(-100)  # after the pages of the API have been added
def on_files(files: Files, config: MkDocsConfig) -> None:
    """Replace every pattern by its files, and leave out a section without any."""
    paths = [file.src_uri for file in files]
    config.nav = [
        section for section in (expand(section, paths) for section in config.nav) if section
    ]


def expand(section: dict[str, Any], paths: list[str]) -> dict[str, Any] | None:
    """Return a section with its files in place of its pattern; None if there are none."""
    ((title, entry),) = section.items()
    if not isinstance(entry, str) or "*" not in entry:
        return section
    found = sorted((path for path in paths if fnmatch(path, entry)), key=rank)
    return {title: found} if found else None


def rank(path: str) -> int:
    """Return where a page stands in its section."""
    name = path.rpartition("/")[2].partition(".")[0]
    return ORDER.index(name) if name in ORDER else len(ORDER)


def on_page_markdown(markdown: str, page: Page, **_: object) -> str:
    """Give a page that is a section of its own the room of the list of pages beside it."""
    if page.parent is None:
        page.meta.setdefault("hide", ["navigation"])
    return markdown
