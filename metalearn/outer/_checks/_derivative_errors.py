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
DERIVATIVES = "have {which} derivatives"
ADVICE = {
    "vmap": TRACED,
    "batching rule": TRACED,
    "aot_autograd does not": EAGER,
    "function was compiled": EAGER,
    "use_reentrant=true": (
        "be checkpointed within autograd",
        "Write checkpoint(..., use_reentrant=False).",
    ),
    "backward an extra time": (
        "be checkpointed as a whole",
        "Write checkpoint(...) without a context_fn.",
    ),
    "saved tensor hooks": (
        "keep no hooks of saved tensors, as checkpoints do",
        "Use outer.Stepwise(), say.",
    ),
    "sparse": (
        "have dense gradients",
        "Write sparse=False for embeddings, x.to_dense() for inputs.",
    ),
    "embedding_bag": (
        DERIVATIVES,
        "Write nn.Embedding and .mean(1), .sum(1) or .amax(1) in place of nn.EmbeddingBag",
    ),
    "cudnn_rnn": (
        DERIVATIVES,
        "The model has them in `with torch.backends.cudnn.flags(enabled=False):`",
    ),
    "attention": (
        DERIVATIVES,
        "The model has them in `with torch.nn.attention.sdpa_kernel(SDPBackend.MATH):`",
    ),
    "is not implemented": (DERIVATIVES, "Write it with other functions of PyTorch"),
}
"""By a part of PyTorch's message, the first that fits: what must hold, and what makes it hold."""
ENDS = {"first": ".", "second": ", or use order 1: estimator=outer.Unrolled(order=1)."}


@contextmanager
def derivatives_explained(which: str) -> Iterator[None]:
    """Raise with advice what PyTorch raises for a derivative that it does not have.

    Args:
        which: The highest derivatives that are taken, "first" or "second".

    Raises:
        ValueError: If it is known what helps.
    """
    try:
        yield
    except RuntimeError as error:
        if (advice := _advice(error)) is None:
            raise
        condition, fix = advice
        fix += ENDS[which] if condition == DERIVATIVES else ""
        raise invalid("model", condition.format(which=which), error, fix) from error


def _advice(error: RuntimeError) -> tuple[str, str] | None:
    # by name, since its import takes seconds
    if type(error).__module__.startswith("torch._dynamo"):
        return EAGER
    return next((advice for part, advice in ADVICE.items() if part in str(error).lower()), None)
