# /// script
# requires-python = ">=3.11"
# dependencies = ["jax==0.10.2", "numpy", "optax"]
# ///
"""JAX 0.10.2: the meta-gradient as one jitted function, by `vmap` or, for convolutions, `map`."""

import os
from typing import Any

os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # the systems share a GPU

import jax
import jax.numpy as jnp
import numpy as np
import optax
from _worker import System, serve
from _workload import ADAM_LR, Arrays, Workload, shapes


def forward(workload: Workload, params: list[jax.Array], x: jax.Array) -> jax.Array:
    if not workload.num_filters:
        for index in (0, 2):
            x = jax.nn.relu(x @ params[index].T + params[index + 1])
        return x @ params[4].T + params[5]
    for index in range(0, 16, 4):
        weight, bias, scale, shift = params[index : index + 4]
        x = jax.lax.conv_general_dilated(x, weight, (2, 2), [(1, 1), (1, 1)]) + bias[:, None, None]
        mean, variance = x.mean((0, 2, 3), keepdims=True), x.var((0, 2, 3), keepdims=True)
        x = (x - mean) * jax.lax.rsqrt(variance + 1e-5) * scale[:, None, None] + shift[
            :, None, None
        ]
        x = jax.nn.relu(x)
    return x.mean((2, 3)) @ params[16].T + params[17]


def loss(params: Any, workload: Workload, x: jax.Array, y: jax.Array) -> jax.Array:
    output = forward(workload, params, x)
    if not workload.num_filters:
        return jnp.mean((output - y) ** 2)
    return -jnp.take_along_axis(jax.nn.log_softmax(output), y[:, None], 1).mean()


def adapt(params: Any, workload: Workload, x: jax.Array, y: jax.Array) -> Any:
    def step(params: Any, _: Any) -> Any:
        grads = jax.grad(loss)(params, workload, x, y)
        if workload.method != "maml":
            grads = jax.lax.stop_gradient(grads)
        return [param - workload.lr * grad for param, grad in zip(params, grads, strict=True)], None

    return jax.lax.scan(step, params, length=workload.num_steps, unroll=workload.num_steps <= 5)[0]


def over_tasks(function: Any, variant: str) -> Any:
    """Return a function of parameters and stacked tasks."""
    if variant == "map":
        return lambda params, *tasks: jax.lax.map(lambda task: function(params, *task), tasks)
    return lambda params, *tasks: jax.vmap(function, (None, *(0 for _ in tasks)))(params, *tasks)


def build(workload: Workload, arrays: Arrays, variant: str, device: str) -> System:
    params = [jnp.asarray(arrays[str(index)]) for index in range(len(shapes(workload)))]
    episodes = [
        jnp.asarray(arrays[f"{part}_{name}"]) for part in ("support", "query") for name in "xy"
    ]

    def task_loss(
        params: Any, support_x: Any, support_y: Any, query_x: Any, query_y: Any
    ) -> jax.Array:
        return loss(adapt(params, workload, support_x, support_y), workload, query_x, query_y)

    def task_end(params: Any, x: Any, y: Any, *_: Any) -> Any:
        return adapt(params, workload, x, y)

    def meta_gradient(params: Any) -> Any:
        if workload.method == "reptile":
            ends = over_tasks(task_end, variant)(params, *episodes)
            return [start - end.mean(0) for start, end in zip(params, ends, strict=True)]
        return jax.grad(lambda params: over_tasks(task_loss, variant)(params, *episodes).mean())(
            params
        )

    if workload.adam:
        return with_adam(meta_gradient, params)
    compiled = jax.jit(meta_gradient).lower(params).compile()

    def step() -> Any:
        return jax.block_until_ready(compiled(params))

    def peak() -> int:
        analysis = compiled.memory_analysis()
        return analysis.temp_size_in_bytes + analysis.output_size_in_bytes

    return System(step, lambda: [np.asarray(leaf) for leaf in step()], peak)


def with_adam(meta_gradient: Any, first: Any) -> System:
    """Return a system whose "gradient" is what one iteration changes in the first parameters."""
    adam = optax.adam(ADAM_LR)

    def iteration(params: Any, state: Any) -> Any:
        updates, state = adam.update(meta_gradient(params), state)
        return optax.apply_updates(params, updates), state

    compiled = jax.jit(iteration).lower(first, adam.init(first)).compile()
    now = [first, adam.init(first)]

    def step() -> None:
        now[:] = jax.block_until_ready(compiled(*now))

    def change() -> list[np.ndarray]:
        after, _ = compiled(first, adam.init(first))
        return [np.asarray(new - old) for new, old in zip(after, first, strict=True)]

    def peak() -> int:
        analysis = compiled.memory_analysis()
        return analysis.temp_size_in_bytes + analysis.output_size_in_bytes

    return System(step, change, peak)


if __name__ == "__main__":
    serve(build)
