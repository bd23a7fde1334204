"""What a learner refuses of its model, criteria and losses alike: what has no second derivatives,
where it is seen.
"""

from collections.abc import Iterator
from functools import partial
from itertools import chain
from typing import Any

import torch.nn as nn

from metalearn._checks import invalid


def check_parts(parts: dict[str, Any]) -> None:
    """Raise if a module or function is compiled, or an embedding of one is to have sparse
    gradients.

    Args:
        parts: The learner's model, criteria and losses by their names.
    """
    for what, part in parts.items():
        if compiled := list(_compiled(part)):
            fix = "Pass it uncompiled, and compile the whole meta-step: MAML(..., compile=True)."
            raise invalid(what, "not be compiled", f"torch.compile of {', '.join(compiled)}", fix)
        for name, module in _modules(part):
            if (
                isinstance(module, nn.Embedding | nn.EmbeddingBag)
                and module.sparse
                and module.weight.requires_grad
            ):
                fix = f"Write {'.'.join(filter(None, (what, name)))}.sparse = False."
                raise invalid(
                    f"embeddings of the {what}", "have dense gradients", "sparse=True", fix
                )


def _modules(part: Any) -> Iterator[tuple[str, nn.Module]]:
    return part.named_modules() if isinstance(part, nn.Module) else iter(())


def _compiled(part: Any) -> Iterator[str]:
    """Yield the names of what `torch.compile` has made: modules, and functions that are attributes
    of modules.
    """
    while isinstance(part, partial):
        part = part.func
    if _is_compiled(part):
        yield "itself"
        return
    for name, module in _modules(part):
        if _is_compiled(module):
            yield name or "itself"
        kinds = (
            kind
            for kind in type(module).__mro__
            if issubclass(kind, nn.Module) and kind is not nn.Module
        )
        for attribute, value in chain(
            vars(module).items(), *(vars(kind).items() for kind in kinds)
        ):
            if not isinstance(value, nn.Module) and _is_compiled(value):
                yield f"{name}.{attribute}".lstrip(".")


def _is_compiled(part: Any) -> bool:
    """Return whether `torch.compile` made a module, a function or a method, or runs it."""
    # By name, since importing torch._dynamo takes seconds.
    if isinstance(part, nn.Module):
        return (
            type(part).__module__ == "torch._dynamo.eval_frame"
            or part._compiled_call_impl is not None
        )
    return hasattr(part, "_torchdynamo_orig_callable") and not getattr(
        part, "_torchdynamo_disable", False
    )
