"""The command line: `python -m metalearn demo` and `python -m metalearn omniglot --root DIR`."""

import argparse
import sys
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F

from metalearn import data, evaluate, fit, functional, inner, keep_large_blocks, models, outer
from metalearn._checks import check_count
from metalearn._files import check_writable, whole_file


def demo(arguments: argparse.Namespace) -> None:
    """Meta-train MAML on sine waves, print errors on unseen ones and draw some of them."""
    # more threads do not help tensors this small, and stall on a busy machine
    torch.set_num_threads(1)
    tasks = data.Sinusoid(k_shot=10, num_query=10)
    learner = outer.MAML(models.mlp(1, [40, 40], 1), F.mse_loss, inner.SGD(lr=0.01), num_steps=5)
    check_count("num_iterations", arguments.iterations)
    check_writable("--out", arguments.out)
    steps = f"{arguments.iterations} steps of 25 tasks"
    print(f"Meta-training MAML on 10-shot sine regression: {steps}.")
    optimizer = torch.optim.Adam(learner.parameters(), lr=3e-3)
    fit(learner, tasks, optimizer, arguments.iterations, meta_batch_size=25)

    # The same inner loop from a random start shows what the support points alone teach.
    scratch = outer.MAML(models.mlp(1, [40, 40], 1), F.mse_loss, inner.SGD(lr=0.02), num_steps=1000)
    rows = {
        "meta-trained, before adaptation": (learner, 0),
        "meta-trained, after 1 step": (learner, 1),
        "meta-trained, after 5 steps": (learner, 5),
        "meta-trained, after 10 steps": (learner, 10),
        "from scratch, after 1000 steps": (scratch, 1000),
    }
    title = f"mean squared error on {arguments.tasks} unseen tasks"
    print(f"\n{title:<40} {'mean':>6}   {'95 % interval':>13}   {'median':>6}")
    for name, (model, num_steps) in rows.items():
        options = {"num_tasks": arguments.tasks, "num_steps": num_steps}
        same_tasks = torch.Generator().manual_seed(arguments.seed + 1)
        error = evaluate(model, tasks, generator=same_tasks, **options)["loss"]
        print(f"{name:<40} {error.mean:6.3f}   {f'+- {error.ci95:.3f}':>13}   {error.median:6.3f}")
    path = arguments.out / "sine.png"
    draw(learner, path, torch.Generator().manual_seed(arguments.seed + 2))
    print(f"\nAdapted curves on unseen tasks: {path}")


def draw(learner: outer.MetaLearner, path: Path, generator: torch.Generator) -> None:
    """Draw four unseen sine waves, and the model before and after adapting to them."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    episodes = data.Sinusoid(k_shot=10, num_query=300).sample(4, generator=generator)
    x = episodes.query.x.sort(1)
    true = episodes.query.y.gather(1, x.indices)
    curves = {n: learner.adapt(episodes.support, n)(x.values) for n in (0, 1, 10)}
    figure, axes = plt.subplots(1, 4, figsize=(15, 3.6), sharey=True, layout="constrained")
    styles: dict[int, dict[str, Any]] = {
        0: {"label": "before adaptation", "color": "0.65", "linestyle": ":"},
        1: {"label": "1 step", "color": "C1", "linestyle": "--"},
        10: {"label": "10 steps", "color": "C0", "linestyle": "-"},
    }
    for task, axis in enumerate(axes):
        axis.plot(x.values[task], true[task], color="0.2", linewidth=1, label="true curve")
        for num_steps, style in styles.items():
            axis.plot(x.values[task], curves[num_steps][task], linewidth=2, **style)
        support = episodes.support.x[task], episodes.support.y[task]
        axis.plot(*support, "o", color="C3", markersize=6, label="support points")
        axis.set_xlabel("x")
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylabel("y")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=len(labels), frameon=False)
    figure.savefig(path, dpi=120)
    plt.close(figure)


def omniglot(arguments: argparse.Namespace) -> None:
    """Meta-train MAML with learned rates on few-shot Omniglot, and print its test accuracy."""

    def sampler(split: Literal["train", "test"]) -> data.EpisodeSampler:
        if arguments.npz is None:
            classes = data.omniglot(arguments.root, split, download=arguments.download)
        else:
            classes = data.ClassImages.from_npz(arguments.npz, split)
            classes = classes.rotated() if split == "train" else classes
        classes = classes.to(arguments.device)
        return data.EpisodeSampler(classes, arguments.n_way, arguments.k_shot, num_query=5)

    cuda = arguments.device == "cuda"
    if cuda and not torch.cuda.is_available():
        raise ValueError("--device must be there; got cuda without a GPU. Pass --device cpu.")
    train, test = sampler("train"), sampler("test")
    check_writable("--out", arguments.out)
    print(f"train: {train.classes}\ntest:  {test.classes}")
    model = models.conv4(1, arguments.n_way, num_filters=arguments.num_filters).to(arguments.device)
    rule = inner.LearnedRate(inner.SGD(lr=0.4), per="tensor")
    learner = outer.MAML(model, F.cross_entropy, rule, num_steps=1, cuda_graph=cuda)
    optimizer = torch.optim.Adam(learner.parameters(), lr=3e-3)
    count = arguments.iterations
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, count)
    tasks = data.CudaGraph(train) if cuda else train
    history = fit(learner, tasks, optimizer, count, meta_batch_size=8, scheduler=schedule)
    print(f"trained for {history.seconds:.0f} s on {arguments.device}")

    options = {"num_tasks": arguments.tasks, "metrics": {"accuracy": functional.accuracy}}
    for num_steps in (1, 3, 10):
        same_tasks = torch.Generator().manual_seed(arguments.seed + 1)
        print(evaluate(learner, test, num_steps=num_steps, generator=same_tasks, **options))
    path = arguments.out / "omniglot.pt"
    with whole_file(path) as stream:
        torch.save(learner.state_dict(), stream)
    print(f"learned parameters: {path}")


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    about = "Meta-learning on real input."
    main = argparse.ArgumentParser(prog="python -m metalearn", description=about)
    commands = main.add_subparsers(required=True, metavar="command")
    about = "MAML on sine waves, in about a minute on a CPU"
    sine = commands.add_parser("demo", help=about)
    sine.set_defaults(command=demo)
    _add(sine, "iterations", 2500, "number of meta-steps")
    _add(sine, "tasks", 300, "unseen tasks to test on")

    about = "MAML on few-shot Omniglot, in about six minutes on two cores"
    images = commands.add_parser("omniglot", help=about)
    images.set_defaults(command=omniglot)
    _add(images, "root", Path("data"), "folder of omniglot-py/")
    about = "download the images to --root if need be"
    images.add_argument("--download", action="store_true", help=about)
    images.add_argument("--npz", type=Path, help="read the images from this archive instead")
    _add(images, "iterations", 5500, "number of meta-steps")
    _add(images, "n-way", 5, "classes in a task")
    _add(images, "k-shot", 1, "support images of a class")
    _add(images, "num-filters", 32, "filters of a convolution")
    _add(images, "tasks", 600, "unseen tasks to test on")
    _add(images, "device", "cpu", "where to compute", choices=["cpu", "cuda"])

    for command in (sine, images):
        _add(command, "seed", 0, "seed of all randomness")
        _add(command, "out", Path("runs"), "folder of results")
    return main


def _add(command: Any, name: str, default: Any, text: str, **options: Any) -> None:
    """Add an option whose help ends with its default."""
    options = {"type": type(default), "default": default, **options}
    command.add_argument(f"--{name}", help=f"{text} (%(default)s)", **options)


def main(words: list[str] | None = None) -> int:
    """Run a command and return the exit status."""
    arguments = parser().parse_args(words)
    try:
        check_count("--tasks", arguments.tasks)
        torch.manual_seed(arguments.seed)
        arguments.command(arguments)
    except (ValueError, OSError) as error:
        print(f"metalearn: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    keep_large_blocks()
    sys.exit(main())
