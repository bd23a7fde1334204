"""Small networks with learned optimizers: Arnold et al. (2019), Tables 2 and A1."""

from benchmarks.images._methods import Method, of
from metalearn import inner, outer


def kronecker(rate: float) -> inner.UpdateRule:
    """Return KFC, with the rate on the update of theta too, as in the authors' later code.

    The paper's eq. 3 has none there.
    """
    return inner.SelfAdapting(inner.KroneckerNetwork(rate, num_layers=4, normalise=True), lr=rate)


def by_depth(
    problem: str,
    num_steps: int,
    rates: list[float],
    cnn: list[str],
    kfc: list[str],
    meta_sgd: str,
    curvature: str,
    learned_rates: tuple[float, float, float] = (0.5, 0.5, 0.5),
    lr: float = 3e-3,
) -> dict[str, Method]:
    """Return the rows of one problem.

    Args:
        problem: Its name.
        num_steps: Inner steps.
        rates: Inner rates of the networks of 1 to 4 layers.
        cnn: Their accuracies in the paper.
        kfc: The same with a Kronecker-factored optimizer.
        meta_sgd: With Meta-SGD, of 2 layers.
        curvature: With Meta-Curvature, of 2 layers.
        learned_rates: Inner rates of KFC, Meta-SGD and Meta-Curvature.
        lr: Rate of the outer optimizer.
    """
    rows: dict[str, Method] = {}
    kfc_rate, sgd_rate, curvature_rate = learned_rates

    def add(
        name: str,
        layers: int,
        rule: inner.UpdateRule,
        paper: str,
        max_grad_norm: float | None = None,
    ) -> None:
        learner = of(outer.MAML, rule, num_steps=num_steps)
        model = (("num_layers", layers),)
        rows[f"{name}, {layers} layers"] = Method(
            learner, {problem: paper}, model=model, lr=lr, max_grad_norm=max_grad_norm
        )

    for layers, (rate, plain, learned) in enumerate(zip(rates, cnn, kfc, strict=True), 1):
        add("CNN", layers, inner.SGD(rate), plain)
        # Without a bound, one layer diverges after some 1,400 iterations on Omniglot.
        add("CNN + KFC", layers, kronecker(kfc_rate), learned, max_grad_norm=1.0)
    add("CNN + Meta-SGD", 2, inner.MetaSGD(sgd_rate), meta_sgd)
    add("CNN + Meta-Curvature", 2, inner.MetaCurvature(curvature_rate), curvature)
    return rows


OMNIGLOT = by_depth(
    "omniglot_10w5s",
    num_steps=4,
    rates=[0.8, 0.8, 0.8, 0.5],
    cnn=["29.20 +- 1.13", "60.94 +- 1.54", "91.69 +- 0.70", "97.56 +- 0.45"],
    kfc=["66.45 +- 1.42", "91.13 +- 0.93", "96.57 +- 0.86", "98.49 +- 0.41"],
    meta_sgd="69.25 +- 0.81",
    curvature="85.70 +- 0.91",
)
CIFAR_FS = by_depth(
    "cifar_fs_10w3s",
    num_steps=2,
    rates=[0.7, 0.7, 0.7, 0.7],
    cnn=["24.86 +- 0.47", "38.44 +- 0.87", "50.91 +- 0.80", "55.03 +- 1.23"],
    kfc=["42.02 +- 0.52", "52.94 +- 1.33", "53.07 +- 0.58", "55.97 +- 0.59"],
    meta_sgd="45.96 +- 1.73",
    curvature="52.89 +- 1.43",
)
MINI_IMAGENET = by_depth(
    "mini_imagenet_10w1s",
    num_steps=5,
    rates=[0.07, 0.07, 0.07, 0.07],
    cnn=["", "18.55 +- 0.46", "", ""],
    kfc=["", "27.40 +- 0.60", "", ""],
    meta_sgd="26.59 +- 1.43",
    curvature="29.74 +- 0.74",
    learned_rates=(0.005, 0.1, 0.09),
    lr=5e-4,
)
