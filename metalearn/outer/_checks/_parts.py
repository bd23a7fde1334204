"""What a learner refuses of its model, criteria and losses: compiled parts, sparse gradients."""

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch.nn as nn

from metalearn._checks import invalid


def check_parts(parts: dict[str, Any]) -> None:
    """Raise if a part is compiled or has an embedding with sparse gradients.

    Args:
        parts: The learner's model, criteria and losses, by name.
    """
    for what, part in parts.items():
        if compiled := list(_compiled(part)):
            fix = "Pass it uncompiled, and compile the whole meta-step: MAML(..., compile=True)."
            raise invalid(what, "not be compiled", f"torch.compile of {', '.join(compiled)}", fix)
        for name, module in _modules(part):
            table = isinstance(module, nn.Embedding | nn.EmbeddingBag)
            if table and module.sparse and module.weight.requires_grad:
                condition, fix = "have dense gradients", f"Write {what}.{name}".rstrip(".")
                fix += ".sparse = False."
                raise invalid(f"embeddings of the {what}", condition, "sparse=True", fix)


def _modules(part: Any) -> Iterator[tuple[str, nn.Module]]:
    return part.named_modules() if isinstance(part, nn.Module) else iter(())


def _compiled(part: Any) -> Iterator[str]:
    """Yield the names of the modules, and of their attributes, that `torch.compile` has made."""
    while isinstance(part, partial):
        part = part.func
    if _is_compiled(part):
        yield "itself"
        return
    for name, module in _modules(part):
        if _is_compiled(module):
            yield name or "itself"
        classes = [kind for kind in type(module).__mro__ if issubclass(kind, nn.Module)]
        for owner in (module, *classes):
            for attribute, value in vars(owner).items() if owner is not nn.Module else ():
                if not isinstance(value, nn.Module) and _is_compiled(value):
                    yield f"{name}.{attribute}".lstrip(".")


def _is_compiled(part: Any) -> bool:
    """Return whether `torch.compile` made a module, a function or a method, or runs it."""
    # By name, since importing torch._dynamo takes seconds.
    if isinstance(part, nn.Module):
        made = type(part).__module__ == "torch._dynamo.eval_frame"
        return made or part._compiled_call_impl is not None
    disabled = getattr(part, "_torchdynamo_disable", False)
    return hasattr(part, "_torchdynamo_orig_callable") and not disabled
