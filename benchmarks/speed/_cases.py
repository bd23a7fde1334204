"""Which systems compute which workloads."""

from functools import partial

from benchmarks.peers._workload import Workload

SCRIPTS = {  # the system's name, its script in benchmarks/peers, and the variant of it
    "floor": ("autograd_loop", "floor"),
    "autograd.grad loop": ("autograd_loop", "loop"),
    "autograd.grad loop in float64": ("autograd_loop", "in float64"),
    "higher": ("use_higher", ""),
    "BOAT": ("use_boat", ""),
    "TorchOpt": ("use_torchopt", ""),
    "parallel-metalearn": ("use_parallel_metalearn", ""),
    "JAX, jit and vmap": ("use_jax", "vmap"),
    "JAX, jit and map": ("use_jax", "map"),
    "Unrolled": ("use_metalearn", "Unrolled"),
    "Stepwise": ("use_metalearn", "Stepwise"),
    "Stepwise by blocks": ("use_metalearn", "Stepwise by blocks"),
    "Stepwise, 2 tasks at once": ("use_metalearn", "Stepwise, 2 tasks at once"),
    "Unrolled, loop": ("use_metalearn", "Unrolled, loop"),
    "Unrolled by vmap": ("use_metalearn", "Unrolled by vmap"),
    "Unrolled, compiled": ("use_metalearn", "Unrolled, compiled"),
    "Unrolled, compiled by step": ("use_metalearn", "Unrolled, compiled by step"),
    "Stepwise, compiled": ("use_metalearn", "Stepwise, compiled"),
    "Unrolled, compiled with Adam": ("use_metalearn", "Unrolled, compiled step"),
    "Unrolled, CUDA graph": ("use_metalearn", "Unrolled, CUDA graph"),
    "Stepwise, CUDA graph": ("use_metalearn", "Stepwise, CUDA graph"),
    "Unrolled, compiled, CUDA graph": ("use_metalearn", "Unrolled, compiled, CUDA graph"),
    "30 seeds": ("use_metalearn", "30 seeds"),
    "30 seeds, compiled": ("use_metalearn", "30 seeds, compiled"),
    "ParameterDifference": ("use_metalearn", "ParameterDifference"),
    "ParameterDifference, compiled": ("use_metalearn", "ParameterDifference, compiled"),
    "ParameterDifference, compiled with Adam": (
        "use_metalearn",
        "ParameterDifference, compiled step",
    ),
    "ParameterDifference, CUDA graph": ("use_metalearn", "ParameterDifference, CUDA graph"),
    "EpisodeSampler": ("use_metalearn", ""),
    "EpisodeSampler, CUDA graph": ("use_metalearn", "CUDA graph"),
    "rule in a plain loop": ("use_metalearn", "rule in a plain loop"),
}
PYTORCH_PEERS = {"autograd.grad loop", "higher", "TorchOpt", "parallel-metalearn"}
PEERS = ("autograd.grad loop", "higher", "TorchOpt", "parallel-metalearn", "JAX, jit and vmap")
EAGER, COMPILED = ("Unrolled", "Stepwise"), ("Unrolled, compiled", "Stepwise, compiled")
FIRST_ORDER = ("autograd.grad loop", "parallel-metalearn", "JAX, jit and vmap")
MANY_STEPS = (
    *PEERS[:4],
    "JAX, jit and map",
    *EAGER,
    "Stepwise, 2 tasks at once",
    "Unrolled by vmap",
)
WITH_ADAM = ("TorchOpt", "parallel-metalearn", "JAX, jit and vmap")
CONV4 = {"support": 5, "query": 75, "num_filters": 64, "lr": 0.4}
LONG = {"num_tasks": 4, "support": 25, "query": 75, "num_filters": 32}

SAMPLING = Workload("W6 sampling, 8 tasks", 8, 0, 5, 75, 64, method="sample")

Cases = list[tuple[Workload, tuple[str, ...]]]


def rest(how: str) -> Cases:
    """Return W4 and W5, equal on all devices, with systems sped up by `how`, such as "compiled"."""
    fast = (f"Unrolled, {how}", f"Stepwise, {how}")
    rules: Cases = [
        (
            Workload(f"W4 {rule}, 25 tasks", 25, 5, rule=rule),
            ("rule in a plain loop", *EAGER, *fast),
        )
        for rule in ("lstm", "turtle")
    ]
    return [
        *rules,
        (
            Workload("W5 first-order MAML, 25 tasks", 25, 5, method="fomaml"),
            (*FIRST_ORDER, "Unrolled", fast[0]),
        ),
        (
            Workload("W5 first-order MAML with Adam, 25 tasks", 25, 5, method="fomaml", adam=True),
            (*FIRST_ORDER, "Unrolled", fast[0], "Unrolled, compiled with Adam"),
        ),
        (
            Workload("W5 Reptile, 25 tasks", 25, 5, method="reptile"),
            (*FIRST_ORDER, "ParameterDifference", f"ParameterDifference, {how}"),
        ),
        (
            Workload("W5 Reptile with Adam, 25 tasks", 25, 5, method="reptile", adam=True),
            (*FIRST_ORDER, "ParameterDifference", "ParameterDifference, compiled with Adam"),
        ),
    ]


CASES: Cases = [
    *(
        (
            Workload(f"W1 sine, {n} {'task' if n == 1 else 'tasks'}", n, 5),
            (*PEERS, *EAGER, "Unrolled by vmap", *COMPILED),
        )
        for n in (1, 25, 100)
    ),
    *(
        (
            Workload(f"W1 with Adam, {n} {'task' if n == 1 else 'tasks'}", n, 5, adam=True),
            (*WITH_ADAM, "Unrolled", COMPILED[0], "Unrolled, compiled with Adam"),
        )
        for n in (1, 25, 100)
    ),
    *(
        (
            Workload(f"W2 Conv-4, T = {steps}", 8, steps, **CONV4),
            (
                "floor",
                *PEERS,
                "JAX, jit and map",
                *EAGER,
                "Unrolled, loop",
                "Unrolled by vmap",
                *COMPILED,
            ),
        )
        for steps in (1, 5)
    ),
    *(
        (
            Workload(f"W3 Conv-4, T = {steps}", num_steps=steps, **LONG),
            (*MANY_STEPS, *(COMPILED if steps <= 5 else ())),
        )
        for steps in (1, 5, 10, 20, 40)
    ),
    *rest("compiled"),
    *(
        (
            Workload(f"W7 seeds, {n} tasks each", n, 5),
            (*PEERS[:4], "Unrolled, compiled", "30 seeds", "30 seeds, compiled"),
        )
        for n in (4, 25)
    ),
    (SAMPLING, ("autograd.grad loop", "EpisodeSampler")),
]

LARGE = {"support": 100, "query": 300, "num_filters": 64, "lr": 0.4, "n_way": 20}
GRAPHS = ("Unrolled, CUDA graph", "Stepwise, CUDA graph")
ON_GPU: Cases = [
    *(
        (
            Workload(f"W1 sine, {n} {'task' if n == 1 else 'tasks'}", n, 5),
            (*PEERS, *EAGER, *GRAPHS, *(("Unrolled, compiled, CUDA graph",) if n > 1 else ())),
        )
        for n in (1, 25, 100)
    ),
    (
        Workload("W2 Conv-4, 5-way 1-shot, 8 tasks, T = 1", 8, 1, **CONV4),
        ("floor", *PEERS, *EAGER, "Unrolled by vmap", *GRAPHS, "Unrolled, compiled, CUDA graph"),
    ),
    *(
        (
            Workload(
                f"{name} Conv-4, 20-way 5-shot, {tasks} tasks, T = {steps}", tasks, steps, **LARGE
            ),
            ("floor", *PEERS[:4], *EAGER, "Unrolled by vmap", *GRAPHS),
        )
        for name, tasks, steps in (("W2", 32, 1), ("W2", 32, 5), ("W3", 16, 10))
    ),
    *rest("CUDA graph"),
    (SAMPLING, ("autograd.grad loop", "EpisodeSampler", "EpisodeSampler, CUDA graph")),
]

SINE = partial(Workload, num_tasks=25, num_steps=5)
QUICK = {  # for benchmarks.compare: the workload, and the variant of it in use_metalearn
    SINE("W1 sine, 1 task", num_tasks=1): "Unrolled",
    SINE("W1 sine, 25 tasks"): "Unrolled",
    SINE("W1 Stepwise, 25 tasks"): "Stepwise",
    SINE("W1 SkipDiverged, 25 tasks"): "SkipDiverged",
    SINE("W1 ClipPerTask, 25 tasks"): "ClipPerTask",
    Workload("W2 Conv-4, 1 task", 1, 1, **CONV4): "Unrolled",
    Workload("W2 Conv-4, 4 tasks", 4, 1, **CONV4): "Unrolled",
    SINE("W4 LSTM, 25 tasks", rule="lstm"): "Unrolled",
    SINE("W4 TURTLE, 25 tasks", rule="turtle"): "Unrolled",
    SINE("W5 first-order MAML, 25 tasks", method="fomaml"): "Unrolled",
    SINE("W5 Reptile, 25 tasks", method="reptile"): "ParameterDifference",
    SAMPLING: "EpisodeSampler",
    SINE("W7 4 seeds, 4 tasks each", num_tasks=4): "4 seeds",
}
