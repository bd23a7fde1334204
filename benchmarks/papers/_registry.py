"""All tables and figures of the five documents, and our own comparisons on the papers' problems."""

from functools import partial

from benchmarks.images import layers, tables
from benchmarks.images._problems import PROBLEMS
from benchmarks.papers._entry import Entry
from benchmarks.papers._experiment import Table
from benchmarks.tables import (
    linear,
    polynomial,
    sine_mtnet,
    sine_rates,
    sine_turtle,
    taylor,
    turtle_figures,
    turtle_inputs,
)


def _of(table: Table) -> partial[Table]:
    return partial(lambda table: table, table)


HUISMAN = [
    Entry("", "Figures 1 to 8, 10, 20", "drawings"),
    Entry("", "Tables 1 to 3", "notation and settings"),
    Entry(
        "huisman_figure_9",
        "Figure 9",
        "how beta weighs the past, a formula",
        turtle_figures.decay,
        ("huisman_figure_9",),
    ),
    Entry(
        "huisman_table_4",
        "Table 4",
        "TURTLE's inputs, depth and activation",
        partial(turtle_inputs.table, "raw gradient, *", "* and loss, *"),
        ("turtle_inputs",),
    ),
    Entry(
        "huisman_table_5",
        "Table 5",
        "TURTLE on processed gradients",
        partial(turtle_inputs.table, "raw gradient, 2 *", "processed gradient, *"),
        ("turtle_inputs",),
    ),
    *(
        Entry(f"huisman_{label.lower().replace(' ', '_')}", label, what, table, records)
        for label, what, table, records in (
            (
                "Figure 11",
                "order and depth of MAML and TURTLE",
                turtle_figures.order_and_depth,
                ("huisman_figure_11",),
            ),
            ("Figure 12", "support points", turtle_figures.task_size, ()),
            ("Figure 13", "history among TURTLE's inputs", turtle_figures.history, ()),
            ("Figure 14", "tasks in a meta-step", turtle_figures.meta_batches, ()),
            ("Figure 15", "time among TURTLE's inputs", turtle_figures.time_input, ()),
            ("Figure 16", "the final TURTLE, LSTM and MAML", turtle_figures.together, ()),
            (
                "Table 6",
                "sines, all methods",
                _of(sine_turtle.TABLE),
                ("sine_turtle", "huisman_table_6_baselines"),
            ),
            ("Table 11", "TURTLE with two hidden layers", turtle_figures.widths, ()),
            (
                "Figure 18",
                "history, ten steps of four tasks",
                partial(turtle_figures.history, (10,), 4),
                (),
            ),
            ("Figure 19", "inputs of the final TURTLE", turtle_figures.inputs, ()),
        )
    ),
    Entry(
        "huisman_table_7",
        "Table 7, Figure 17",
        "miniImageNet",
        partial(tables.thesis, "miniImageNet"),
        gpu=True,
    ),
    Entry("huisman_table_8", "Table 8", "CUB", partial(tables.thesis, "CUB"), gpu=True),
    Entry(
        "huisman_table_9",
        "Table 9",
        "another data set at test",
        partial(tables.thesis, "miniImageNet to CUB", "CUB to miniImageNet"),
        gpu=True,
    ),
    Entry(
        "huisman_table_10",
        "Table 10",
        "running times, in the column of times",
        partial(tables.thesis, "miniImageNet to CUB", rows=("fo-MAML", "LSTM", "MAML", "TURTLE")),
        gpu=True,
    ),
]

SUN = [
    Entry("", "Figures 1 to 3", "drawings"),
    Entry(
        "sun_equations_33_to_41",
        "Equations 33 to 41",
        "the two gradients in MAML, FOMAML and Reptile",
        taylor.table,
        ("sun_equations_33_to_41",),
    ),
    Entry(
        "sun_omniglot",
        "Sections 2 to 4",
        "MAML, FOMAML, Reptile and iMAML on Omniglot, as their papers print it",
        partial(
            tables.rows_of,
            {
                "5-way 1-shot": {
                    "MAML, fixed rate": "98.7 +- 0.4",
                    "FOMAML": "98.3 +- 0.5",
                    "Reptile": "97.68 +- 0.04",
                    "iMAML": "99.16 +- 0.35",
                },
                "5-way 5-shot": {
                    "MAML, fixed rate": "99.9 +- 0.1",
                    "FOMAML": "99.2 +- 0.2",
                    "Reptile": "99.48 +- 0.06",
                    "iMAML": "99.67 +- 0.12",
                },
                "20-way 1-shot": {
                    "MAML, fixed rate": "95.8 +- 0.3",
                    "FOMAML": "89.4 +- 0.5",
                    "Reptile": "89.43 +- 0.14",
                    "iMAML": "94.46 +- 0.42",
                },
                "20-way 5-shot": {
                    "MAML, fixed rate": "98.9 +- 0.2",
                    "FOMAML": "97.9 +- 0.1",
                    "Reptile": "97.12 +- 0.32",
                    "iMAML": "98.69 +- 0.1",
                },
            },
            {
                f"{n_way}-way {k_shot}-shot": f"omniglot_{n_way}w{k_shot}s_shuffled"
                for n_way in (5, 20)
                for k_shot in (1, 5)
            },
            64,
        ),
        gpu=True,
    ),
    Entry(
        "",
        "Section 5",
        "Auto-Meta's search",
        records=("search",),
        elsewhere="METALEARN_DATA=folder python -m benchmarks.search",
    ),
]

ARNOLD = [
    Entry(
        "arnold_figure_1",
        "Figure 1, Table 1",
        "linear models on synthetic data and Omniglot; Table 1 prints no numbers",
        _of(linear.TABLE),
        ("linear",),
    ),
    Entry(
        "arnold_figure_2", "Figure 2", "which layers adapt", layers.table, ("layers", "head_noise")
    ),
    *(
        Entry(
            f"arnold_table_a1_{name}",
            f"Tables 2 and A1, Figure 3, {label}",
            "networks of one to four layers and learned optimizers",
            partial(tables.own, problem),
            (problem,),
        )
        for name, label, problem in (
            ("omniglot", "Omniglot", "omniglot_10w5s"),
            ("omniglot_finn", "Omniglot on Finn's split", "omniglot_10w5s_shuffled"),
            ("cifar_fs", "CIFAR-FS", "cifar_fs_10w3s"),
            ("mini_imagenet", "miniImageNet", "mini_imagenet_10w1s"),
        )
    ),
    Entry("arnold_figure_a1", "Figure A.1", "accuracy while linear models train", linear.curves),
    *(
        Entry(
            f"arnold_figure_{name}",
            label,
            "accuracy while networks train",
            partial(tables.curves, problem),
            gpu=True,
        )
        for name, label, problem in (
            ("a2", "Figure A.2", "omniglot_10w5s_shuffled"),
            ("a3", "Figure A.3", "mini_imagenet_10w1s"),
        )
    ),
]

FRANCESCHI = [
    Entry(
        "franceschi_table_1",
        "Table 1",
        "hyper-representation on miniImageNet",
        partial(
            tables.rows_of,
            {
                "1-shot": {
                    "finetuning": "28.86 +- 0.54",
                    "nearest neighbour": "41.08 +- 0.70",
                    "MAML, fixed rate": "48.70 +- 1.75",
                    "hyper-representation": "47.01 +- 1.35",
                },
                "5-shot": {
                    "finetuning": "49.76 +- 0.79",
                    "nearest neighbour": "51.04 +- 0.65",
                    "MAML, fixed rate": "63.11 +- 0.92",
                    "hyper-representation": "61.97 +- 0.76",
                },
            },
            {"1-shot": "mini_imagenet_5w1s", "5-shot": "mini_imagenet_5w5s"},
            32,
        ),
        gpu=True,
    ),
    Entry("franceschi_figure_1", "Figure 1", "inner steps", tables.inner_steps, gpu=True),
    Entry("franceschi_figure_2", "Figure 2", "closest and farthest pairs", tables.pairs, gpu=True),
    Entry("franceschi_table_2", "Table 2", "representations", tables.representations, gpu=True),
]

LEE_CHOI = [
    Entry("", "Figures 1 to 3", "drawings"),
    Entry(
        "lee_table_1", "Table 1", "sines, T-net and MT-net", _of(sine_mtnet.TABLE), ("sine_mtnet",)
    ),
    Entry("lee_table_2", "Table 2", "inner rates", _of(sine_rates.TABLE), ("sine_rates",)),
    Entry(
        "lee_figure_4", "Figure 4", "masks on polynomials", _of(polynomial.TABLE), ("polynomial",)
    ),
    Entry(
        "lee_table_3_omniglot",
        "Table 3, Omniglot",
        "one shot, 5 and 20 ways",
        partial(
            tables.rows_of,
            {
                "5-way": {
                    "MAML, fixed rate": "98.7 +- 0.4",
                    "Meta-SGD": "99.53 +- 0.26",
                    "MT-net": "99.5 +- 0.3",
                },
                "20-way": {
                    "MAML, fixed rate": "95.8 +- 0.3",
                    "Meta-SGD": "95.93 +- 0.38",
                    "MT-net": "96.21 +- 0.35",
                },
            },
            {"5-way": "omniglot_5w1s_shuffled", "20-way": "omniglot_20w1s_shuffled"},
            64,
        ),
        gpu=True,
    ),
    Entry(
        "lee_table_3_mini_imagenet",
        "Table 3, miniImageNet",
        "5 ways, one shot and five",
        partial(
            tables.rows_of,
            {
                "1-shot": {
                    "MAML, fixed rate": "48.70 +- 1.84",
                    "Meta-SGD": "50.47 +- 1.87",
                    "T-net": "50.82 +- 0.69",
                    "MT-net": "51.69 +- 0.70",
                },
                "5-shot": {
                    "MAML, fixed rate": "63.11 +- 0.92",
                    "Meta-SGD": "64.03 +- 0.94",
                    "MT-net": "64.08 +- 0.35",
                },
            },
            {"1-shot": "mini_imagenet_5w1s", "5-shot": "mini_imagenet_5w5s"},
            64,
        ),
        gpu=True,
    ),
]

RECORDED = {
    "omniglot_5w1s": ("omniglot_methods",),
    "omniglot_5w1s_shuffled": ("omniglot_shuffled",),
    **{name: (name,) for name in ("omniglot_5w5s", "cifar_fs_5w1s", "cifar_fs_5w5s")},
}
OF_ARNOLD = ("omniglot_10w5s", "omniglot_10w5s_shuffled", "cifar_fs_10w3s", "mini_imagenet_10w1s")
OWN = [
    Entry(name, name, "all methods", partial(tables.own, name), RECORDED.get(name, ()))
    for name in PROBLEMS
    if name not in OF_ARNOLD
]

DOCUMENTS = {
    "Huisman, Revisiting learned optimizers in few-shot settings, 2021": HUISMAN,
    "Sun, Overview of meta learning": SUN,
    "Arnold et al., Decoupling adaptation from modeling with meta-optimizers, 2019": ARNOLD,
    "Franceschi et al., A bridge between hyperparameter optimization and learning-to-learn, 2017": (
        FRANCESCHI
    ),
    "Lee and Choi, Meta-learning with adaptive layerwise metric and subspace, 2018": LEE_CHOI,
    "Beyond the papers": OWN,
}
ENTRIES = {entry.name: entry for each in DOCUMENTS.values() for entry in each if entry.table}
