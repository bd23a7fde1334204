"""What a learner refuses of models whose parameters are in pieces between calls."""

from typing import Any

from metalearn._checks import invalid
from metalearn._sharded import is_sharded, sharded_parts
from metalearn._tasks import num_tasks
from metalearn.types import Episode

ALONE = "The learner alone can be one part: write fully_shard(learner), for which see "
ALONE += "docs/how_to/distributed.md."


def check_sharded(learner: Any, episodes: Episode) -> None:
    """Raise for what is learned in pieces, and for ways to compute that layers in pieces lack."""
    parts = sharded_parts(learner)
    if not parts:
        return
    meta = learner.meta
    learned = {f"model.{name}": param for name, param in meta.init.items()} | meta.shared
    names = [name for name, param in learned.items() if is_sharded(param)]
    if names and learner in parts:
        fix = "Write learner.unshard() before, and learner.reshard() after."
        raise invalid("a learner that is one part", "be whole here", "one in pieces", fix)
    if names:
        # parts come before those inside of them
        owners = [name for name, module in learner.named_modules() if module in parts]
        owner = [name for name in owners if names[0].startswith(f"{name}.")][-1]
        fix = f"Freeze them, or leave them whole: fully_shard(learner.{owner}, ignored_params="
        fix += f"{{learner.get_parameter({names[0]!r}), ...}}). {ALONE}"
        raise invalid("parameters of layers that adapt or are learned", "be whole", names, fix)
    if not any(map(is_sharded, learner.parameters())):
        return  # one part, put together
    if learner.batching != "loop" and learner.chunk_size != 1 and num_tasks(episodes) > 1:
        fix = "Choose batching='loop'."
        raise invalid("layers in pieces", "be called task by task", "vmap", fix)
    if learner.compile_options is not False or learner.cuda_graph:
        got = f"compile={learner.compile_options}, cuda_graph={learner.cuda_graph}"
        fix = "Call learner.set_batching('loop')."
        raise invalid("layers in pieces", "be called as they are", got, fix)
