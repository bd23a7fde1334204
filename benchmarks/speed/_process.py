"""A system in its own process, and in its own environment if it is not this library."""

import json
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import IO, Any, cast

ROOT = Path(__file__).parents[2]
PATIENCE = 900.0
"""Seconds after which a system that does not answer is given up."""


class Process:
    """Starts a script of `benchmarks/peers` and talks to it; its errors become RuntimeErrors.

    Args:
        script: Name of the script.
        variant: The variant to run.
        device: "cpu" or "cuda".
        large_blocks: Whether its allocator keeps large blocks.
        threads: Number of threads, and of cores that it may use.
        log: File for its standard error.
        peers: Folder with the packages of the systems that are not this library; None for
            environments by uv.
        tree: Folder with the package of this library.
    """

    def __init__(
        self,
        script: str,
        variant: str,
        device: str,
        large_blocks: bool,
        threads: int,
        log: Path,
        peers: Path | None = None,
        tree: Path = ROOT,
    ) -> None:
        path = ROOT / "benchmarks" / "peers" / f"{script}.py"
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
        if script == "use_metalearn":
            command, environment["PYTHONPATH"] = [sys.executable], str(tree)
        elif peers:
            command, environment["PYTHONPATH"] = [sys.executable], str(peers.resolve())
        else:
            environment.pop("PYTHONPATH", None)  # parallel-metalearn imports under our name
            command = [uv(), "run", "--quiet", "--no-project", "--script"]
        pins = device == "cpu" and hasattr(os, "sched_getaffinity")
        cores = sorted(os.sched_getaffinity(0))[:threads] if pins else []
        self._log = log
        with log.open("w") as errors:
            self._process = subprocess.Popen(
                [*command, str(path), variant, device, str(large_blocks)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                cwd=log.parent,
                env=environment,
                preexec_fn=(lambda: os.sched_setaffinity(0, cores)) if cores else None,
            )

    def ask(self, do: str, patience: float = PATIENCE, **arguments: Any) -> Any:
        """Return the answer to one order, unless it takes more seconds than there is patience."""
        orders, answers = cast(IO[str], self._process.stdin), cast(IO[str], self._process.stdout)
        timer = threading.Timer(patience, self._process.kill)
        timer.start()
        try:
            orders.write(json.dumps({"do": do, **arguments}) + "\n")
            orders.flush()
            line = answers.readline()
        except BrokenPipeError:
            line = ""
        finally:
            timer.cancel()
        if not line:
            self._process.wait()
            last = [text.strip() for text in self._log.read_text().splitlines() if text.strip()][
                -3:
            ]
            raise RuntimeError(f"died with status {self._process.returncode}: {' '.join(last)}")
        reply = json.loads(line)
        if "error" in reply:
            raise RuntimeError(reply["error"])
        return reply["answer"]

    def close(self) -> None:
        """End the process."""
        try:
            self._process.communicate(timeout=30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.communicate()


def uv() -> str:
    """Return the path of uv."""
    beside = Path(sys.executable).parent / "uv"
    uv = str(beside) if beside.exists() else shutil.which("uv")
    if not uv:
        raise SystemExit("uv is needed to make the peers' environments: pip install uv")
    return uv
