"""What of the package is public, and what of that has no docstring, read without an import."""

from pathlib import Path

import griffe

PACKAGE = "metalearn"
ROOT = Path(__file__).parents[2]


def load() -> griffe.Module:
    """Return the package; a method without a docstring has that of the one it overrides."""
    extensions = griffe.load_extensions("griffe_inherited_docstrings")
    package = griffe.load(PACKAGE, search_paths=[ROOT], extensions=extensions)
    assert isinstance(package, griffe.Module)
    return package


def public_modules(package: griffe.Module) -> list[griffe.Module]:
    """Return the package and the modules that its `__all__` names, with what they export."""
    modules = [package[name] for name in exports(package)]
    return [package, *(module for module in modules if module.is_module)]


def exports(module: griffe.Module) -> list[str]:
    """Return a module's `__all__` in its order."""
    if module.exports is None:
        raise ValueError(
            f"{module.path} must have an __all__; got none. List its public names in it."
        )
    return [str(name) for name in module.exports]


def symbols(module: griffe.Module) -> dict[str, griffe.Object]:
    """Return the public objects of a module by the path that users import them from."""
    found = {f"{module.path}.{name}": target(module[name]) for name in exports(module)}
    return {path: symbol for path, symbol in found.items() if not symbol.is_module}


def undocumented(package: griffe.Module) -> list[str]:
    """Return the paths of all public objects without a docstring."""
    missing = []
    for module in public_modules(package):
        missing += [] if module.docstring else [module.path]
        for path, symbol in symbols(module).items():
            members = symbol.members.items() if symbol.is_class else ()
            methods = {
                f"{path}.{name}": target(member)
                for name, member in members
                if not name.startswith("_")
            }
            callables = {name: method for name, method in methods.items() if is_callable(method)}
            missing += [
                name
                for name, object_ in {path: symbol, **callables}.items()
                if not object_.docstring
            ]
    return missing


def is_callable(member: griffe.Object) -> bool:
    """Return whether a member of a class is a method, a property or a class, other than a field."""
    return member.is_function or member.is_class or "property" in member.labels


def target(member: griffe.Object | griffe.Alias) -> griffe.Object:
    """Return what an imported name stands for."""
    return member.final_target if isinstance(member, griffe.Alias) else member
