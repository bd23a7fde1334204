"""What PyTorch raises where a model lacks derivatives, raised again with what to write instead."""

from collections.abc import Iterator
from contextlib import contextmanager

from metalearn._checks import invalid

TRACED = (
    "be one that vmap can trace",
    "Use an estimator that differentiates task by task, such as outer.Stepwise().",
)
EAGER = (
    "call nothing compiled",
    "Call it uncompiled, and compile the whole meta-step: MAML(..., compile=True).",
)
INSIDE = "be checkpointed within autograd", "Write checkpoint(..., use_reentrant=False)."
WHOLE = "be checkpointed as a whole", "Write checkpoint(...) without a context_fn."
HOOKED = "keep no hooks of saved tensors, as checkpoints do", "Use outer.Stepwise(), say."
DENSE = "have dense gradients", "Write sparse=False for embeddings, x.to_dense() for inputs."
ADVICE = {
    "vmap": TRACED,
    "batching rule": TRACED,
    "aot_autograd does not": EAGER,
    "function was compiled": EAGER,
    "use_reentrant=true": INSIDE,
    "backward an extra time": WHOLE,
    "saved tensor hooks": HOOKED,
    "sparse": DENSE,
}
"""By a part of PyTorch's message, the first that fits: what must hold, and what makes it hold."""
WITHOUT = {
    "embedding_bag": "Write nn.Embedding and .mean(1), .sum(1) or .amax(1) in place of "
    "nn.EmbeddingBag",
    "cudnn_rnn": "The model has them in `with torch.backends.cudnn.flags(enabled=False):`",
    "attention": "The model has them in `with torch.nn.attention.sdpa_kernel(SDPBackend.MATH):`",
    "is not implemented": "Write it with other functions of PyTorch",
}
"""Likewise, where derivatives are missing: what has them."""
ENDS = {"first": ".", "second": ", or use order 1: estimator=outer.Unrolled(order=1)."}


@contextmanager
def derivatives_explained(which: str) -> Iterator[None]:
    """Raise with advice what PyTorch raises for a derivative that is missing.

    Args:
        which: The highest derivatives that are taken, "first" or "second".

    Raises:
        ValueError: If it is known what helps.
    """
    try:
        yield
    except RuntimeError as error:
        if (advice := _advice(error, which)) is None:
            raise
        condition, fix = advice
        raise invalid("model", condition, error, fix) from error


def _advice(error: RuntimeError, which: str) -> tuple[str, str] | None:
    """Return what must hold and what makes it hold, None if that is not known."""
    text = str(error).lower()
    # By name, since importing torch._dynamo takes seconds.
    if type(error).__module__.startswith("torch._dynamo"):
        return EAGER
    missing = f"have {which} derivatives"
    known = ADVICE | {part: (missing, f"{fix}{ENDS[which]}") for part, fix in WITHOUT.items()}
    return next((advice for part, advice in known.items() if part in text), None)
