"""The pages of the API, one a public module, and links to them from code."""

import re
from functools import cache

import griffe
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from public_api import PACKAGE, exports, load, public_modules, symbols, undocumented

CODE = re.compile(r"<(a|h[1-6]|pre|autoref)\b.*?</\1>|<code>([^<]+)</code>", re.DOTALL)
"""Inline code that stands in no link, heading or block; what is to be left alone matches as a
whole."""


@cache
def package() -> griffe.Module:
    """Return the package, loaded once."""
    return load()


def on_files(files: Files, config: MkDocsConfig) -> None:
    """Add the pages; fail if something public has no docstring."""
    if missing := undocumented(package()):
        raise PluginError(
            f"Every public name must have a docstring; these have none: {', '.join(missing)}"
        )
    for module in public_modules(package()):
        name = module.path.removeprefix(f"{PACKAGE}.")
        files.append(File.generated(config, f"reference/{name}.md", content=page(module)))


def page(module: griffe.Module) -> str:
    """Return a module's page as Markdown: its docstring, a table of its names, and each of them."""
    assert module.docstring is not None
    table, entries = ["| name | |", "|---|---|"], []
    for name in exports(module):
        path = f"{module.path}.{name}"
        if path in symbols(module):
            entries.append(f"::: {path}")
        link = f"[{path}]" if path in symbols(module) else f"({name}.md)"
        table.append(f"| [`{name}`]{link} | {first_line(module[name])} |")
    return "\n\n".join([f"# {module.path}", module.docstring.value, "\n".join(table), *entries])


def first_line(symbol: griffe.Object | griffe.Alias) -> str:
    """Return a docstring's first sentence, fit for a table."""
    assert symbol.docstring is not None
    return symbol.docstring.value.partition("\n")[0].replace("|", "\\|")


@cache
def targets() -> dict[str, str]:
    """Return what inline code may call a symbol (a class without its module too), and its path."""
    found: dict[str, str] = {}
    for module in public_modules(package()):
        for path, symbol in symbols(module).items():
            found[path] = found[path.removeprefix(f"{PACKAGE}.")] = path
            if symbol.is_class:
                found[symbol.name] = path
    return found


def on_page_content(html: str, **_: object) -> str:
    """Link inline code that names a public symbol, called or not, to its place in the API."""
    return CODE.sub(lambda match: match[0] if match[1] else linked(match[2]), html)


def linked(code: str) -> str:
    """Return inline code, as a link if its beginning names a symbol."""
    words = re.match(r"[\w.]*", code)[0].split(".")  # type: ignore[index]
    names = [".".join(words[:length]) for length in range(len(words), 0, -1)]
    path = next((targets()[name] for name in names if name in targets()), None)
    return (
        f"<code>{code}</code>"
        if path is None
        else f'<autoref identifier="{path}"><code>{code}</code></autoref>'
    )
