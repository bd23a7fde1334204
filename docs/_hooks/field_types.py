"""Types of fields as users are to read them: `float`, where the field says how it is checked."""

from typing import Any

import griffe


class FieldTypes(griffe.Extension):
    """Leave plain types, and bases but the one that checks, before griffe makes signatures."""

    def on_package(self, *, pkg: griffe.Module, **_: Any) -> None:
        """Change all classes of a package or module."""
        for member in pkg.members.values():
            if isinstance(member, griffe.Module):
                self.on_package(pkg=member)
            elif isinstance(member, griffe.Class):
                member.bases = [base for base in member.bases if str(base) != "Checked"]
                for field in member.attributes.values():
                    field.annotation = plain(field.annotation, pkg)


def plain(kind: Any, module: griffe.Module) -> Any:
    """Return the type itself: without what it is annotated with, by itself or under a name."""
    path = getattr(kind, "canonical_path", "")
    if path == "typing.Annotated":
        return plain(kind.slice.elements[0], module)
    if path.startswith(f"{module.package.path}."):
        named = getattr(module.modules_collection[path], "value", None)
        if getattr(named, "canonical_path", "") == "typing.Annotated":
            return plain(named, module)
    return kind
