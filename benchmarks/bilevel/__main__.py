"""Bilevel methods side by side: `python -m benchmarks.bilevel`.

"transformer" compares the gradients of a transformer's inner loop; "cleaning", "penalties",
"logistic" and "quadratic" optimise hyperparameters by every method, loss against time.
"""

import argparse
from pathlib import Path

from benchmarks.bilevel import _race, _transformer
from benchmarks.peers._bilevel import PROBLEMS
from benchmarks.speed.__main__ import add_options


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bilevel", description=__doc__)
    parser.add_argument("problem", choices=["transformer", *PROBLEMS])
    rules, steps = list(_transformer.RATES), [2, 8, 16]
    parser.add_argument("--rules", nargs="+", choices=rules, default=rules)
    parser.add_argument("--steps", type=int, nargs="+", default=steps, metavar="K")
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--seeds", type=int, default=3, help="of a problem (%(default)s)")
    parser.add_argument(
        "--budget", type=float, default=2.0, help="seconds for a problem and seed (%(default)s)"
    )
    add_options(parser, rounds=3, seconds=0.0, out=Path("runs/bilevel"))
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    (_transformer if arguments.problem == "transformer" else _race).main(arguments)


if __name__ == "__main__":
    main()
