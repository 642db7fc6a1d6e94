"""Times the kernels beside their peers, measured in turn in the same run (--help lists the options).

Each row is the fastest of several rounds. "Copy of both inputs" reads what a kernel of two arrays reads;
"copy of as many bytes" copies one and a half arrays, and so moves what that does: two read, one written.
"""

import argparse
import importlib.util
import json
import platform
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pamctl_kernels as kernels

Calls = dict[str, Callable[[], Any]]
TOP_P, DENSITY = 50, 20
DTYPES = {"float32": np.float32, "float16": np.float16, "bfloat16": ml_dtypes.bfloat16}
STREAM_BLOCK = 1 << 20  # elements an array of the streams: 4 MB of float32

copy = jax.jit(jnp.copy)
read = jax.jit(jnp.max)


@dataclass(frozen=True)
class Table:
    """Times in ms, of the kernels and of their peers."""

    title: str
    kernels: dict[str, float]
    peers: dict[str, float]

    def __str__(self) -> str:
        """One row a call; a column for each peer holds the time of the row over the time of that peer."""
        lines = [f"| {self.title} | ms | " + " | ".join(f"/ {peer}" for peer in self.peers) + " |"]
        lines.append("|---|---|" + "---|" * len(self.peers))
        for name, ms in {**self.kernels, **self.peers}.items():
            ratios = " | ".join(f"{ms / peer:.2f}" for peer in self.peers.values())
            lines.append(f"| {name} | {ms:.2f} | {ratios} |")
        return "\n".join(lines) + "\n"


@dataclass(frozen=True)
class Clock:
    """How calls are timed: the fastest of `rounds`, of `queued` calls each before one waits for them."""

    now: Callable[[], float]
    rounds: int
    queued: int


def measure(title: str, own: Calls, peers: Calls, clock: Clock) -> Table:
    """The fastest round of each call, taken in turn so that a busy machine slows all of them alike."""
    calls = {**own, **peers}
    best = dict.fromkeys(calls, float("inf"))
    for call in calls.values():
        jax.block_until_ready(call())
    for _ in range(clock.rounds):
        for name, call in calls.items():
            start = clock.now()
            jax.block_until_ready([call() for _ in range(clock.queued)])
            best[name] = min(best[name], 1e3 * (clock.now() - start) / clock.queued)
    return Table(title, {name: best[name] for name in own}, {name: best[name] for name in peers})


class HostBench:
    """Everything on numpy arrays; memory that is written was touched before only in the rows that say so."""

    def __init__(self, w: np.ndarray, g: np.ndarray) -> None:
        self.w, self.g = w, g
        self.out, self.other = np.zeros_like(w), np.zeros_like(g)
        self.out[:], self.other[:] = w, g
        self.copies: Calls = {
            "copy of both inputs": lambda: (w.copy(), g.copy()),
            "copy of both inputs, into touched memory": self._copy_into,
            "copy of as many bytes, into touched memory": self._copy_half_more,
        }

    def tables(self, clock: Clock) -> list[Table]:
        return [
            measure(title, own, peers, replace(clock, queued=1))
            for title, own, peers in (self.threshold(), self.realign(), self.average(), self.merge())
        ]

    def _copy_into(self) -> None:
        np.copyto(self.out, self.w)
        np.copyto(self.other, self.g)

    def _copy_half_more(self) -> None:
        np.copyto(self.out, self.w)
        half = self.g.size // 2
        np.copyto(self.other[:half], self.g[:half])

    def threshold(self) -> tuple[str, Calls, Calls]:
        g, at = self.g, self.g.size - -(-self.g.size * TOP_P // 100)
        stream = [(g[i : i + STREAM_BLOCK],) for i in range(0, g.size, STREAM_BLOCK)]
        own: Calls = {
            "magnitude_threshold": lambda: kernels.magnitude_threshold(g, TOP_P),
            "kth_largest_magnitudes": lambda: kernels.kth_largest_magnitudes(stream, lambda n: n - at),
        }
        peers: Calls = {
            "np.partition(np.abs(x))": lambda: np.partition(np.abs(g), at)[at],
            "np.sort(np.abs(x))": lambda: np.sort(np.abs(g))[at],
            "copy": g.copy,
        }
        return "threshold, host", own, peers

    def realign(self) -> tuple[str, Calls, Calls]:
        w, g = self.w, self.g
        tau = kernels.magnitude_threshold(g, TOP_P)
        own: Calls = {
            "realign with its count": lambda: kernels.realign(w, g, tau),
            "realign with its count, out=": lambda: kernels.realign(w, g, tau, out=self.out),
        }
        return "realign, host", own, self.copies

    def average(self) -> tuple[str, Calls, Calls]:
        w, g = self.w, self.g
        own: Calls = {
            "weighted_average": lambda: kernels.weighted_average([w, g], [0.5, 0.5]),
            "weighted_average, out=": lambda: kernels.weighted_average([w, g], [0.5, 0.5], out=self.out),
        }
        return "average, host", own, {**self.copies, "0.5 * a + 0.5 * b": lambda: 0.5 * w + 0.5 * g}

    def merge(self) -> tuple[str, Calls, Calls]:
        xs = [self.w, self.g]
        limits = [kernels.magnitude_threshold(x, DENSITY) for x in xs]
        own: Calls = {
            "trim": lambda: kernels.trim(xs[0], limits[0]),
            "elect_signs": lambda: kernels.elect_signs(xs),
            "merge_agreeing": lambda: kernels.merge_agreeing(xs, thresholds=limits),
            "merge_agreeing, weighted": lambda: kernels.merge_agreeing(
                xs, [0.3, 0.7], limits, elect="weighted", divide="weight"
            ),
            "thresholds and merge_agreeing": lambda: kernels.merge_agreeing(
                xs, thresholds=[kernels.magnitude_threshold(x, DENSITY) for x in xs]
            ),
        }
        return "TIES, host", own, self.copies


class DeviceBench:
    """Everything jitted, on the first device that jax finds."""

    def __init__(self, w: np.ndarray, g: np.ndarray) -> None:
        self.w, self.g = jax.device_put(w), jax.device_put(g)
        self.tau = kernels.magnitude_threshold(self.g, TOP_P)
        half_more = jnp.concatenate([self.w, self.g[: self.g.size // 2]])
        self.copies: Calls = {
            "copy of both inputs": lambda: (copy(self.w), copy(self.g)),
            "copy of as many bytes": lambda: copy(half_more),
        }

    def tables(self, clock: Clock) -> list[Table]:
        return [
            measure(title, own, peers, clock)
            for title, own, peers in (self.threshold(), self.realign(), self.average(), self.merge())
        ]

    def threshold(self) -> tuple[str, Calls, Calls]:
        g = self.g
        whole = jax.jit(lambda x: kernels.magnitude_threshold(x, TOP_P))
        own: Calls = {
            "magnitude_threshold": lambda: whole(g),
            "kth_largest_magnitudes, one array": lambda: kernels.kth_largest_magnitudes(
                [(g,)], lambda n: n // 2
            ),
        }
        return "threshold, device", own, {"one read (max)": lambda: read(g), "copy": lambda: copy(g)}

    def realign(self) -> tuple[str, Calls, Calls]:
        kept = jax.jit(lambda w, g, t: kernels.realign(w, g, t))
        donated = jax.jit(lambda w, g, t: kernels.realign(w, g, t), donate_argnums=0)
        mine = [jnp.copy(self.w)]

        def realign_in_place() -> Any:
            mine[0], count = donated(mine[0], self.g, self.tau)
            return count

        own: Calls = {
            "realign with its count": lambda: kept(self.w, self.g, self.tau),
            "realign with its count, w donated": realign_in_place,
        }
        peers = dict(self.copies)
        if (torch := torch_beside(self.w)) is not None:
            a, b = (torch.from_dlpack(x) for x in (self.w, self.g))

            def torch_realign() -> Any:
                conflict = (b.abs() >= float(self.tau)) & (a.sign() != b.sign())
                return torch.where(conflict, b, a), conflict.sum()

            peers["torch.where with its count"] = torch_realign
        return "realign, device", own, peers

    def average(self) -> tuple[str, Calls, Calls]:
        weights = jnp.array([0.5, 0.5], jnp.float32)
        average = jax.jit(lambda a, b, weights: kernels.weighted_average([a, b], weights))
        peers = dict(self.copies)
        if (torch := torch_beside(self.w)) is not None:
            a, b = (torch.from_dlpack(x) for x in (self.w, self.g))
            peers["torch.lerp"] = lambda: torch.lerp(a, b, 0.5)
        return "average, device", {"weighted_average": lambda: average(self.w, self.g, weights)}, peers

    def merge(self) -> tuple[str, Calls, Calls]:
        xs = [self.w, self.g]
        limits = [kernels.magnitude_threshold(x, DENSITY) for x in xs]
        trim = jax.jit(kernels.trim)
        elect = jax.jit(lambda xs: kernels.elect_signs(xs))
        merge = jax.jit(lambda xs, limits: kernels.merge_agreeing(xs, thresholds=limits))
        ties = jax.jit(
            lambda xs: kernels.merge_agreeing(
                xs, thresholds=[kernels.magnitude_threshold(x, DENSITY) for x in xs]
            )
        )
        own: Calls = {
            "trim": lambda: trim(xs[0], limits[0]),
            "elect_signs": lambda: elect(xs),
            "merge_agreeing": lambda: merge(xs, limits),
            "thresholds and merge_agreeing": lambda: ties(xs),
        }
        return "TIES, device", own, self.copies


def torch_beside(x: jax.Array) -> Any:
    """torch, where it is installed and works on the device of `x`."""
    if importlib.util.find_spec("torch") is None:
        return None
    import torch

    on_cpu = next(iter(x.devices())).platform == "cpu"
    return torch if on_cpu or torch.cuda.is_available() else None


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--size", type=int, default=56_600_000, help="elements an array (default: %(default)s)"
    )
    parser.add_argument("--dtype", choices=DTYPES, default="float32")
    parser.add_argument(
        "--rounds", type=int, default=7, help="the fastest of this many (default: %(default)s)"
    )
    parser.add_argument("--only", choices=("host", "device"), help="measure one back-end")
    parser.add_argument(
        "--queued", type=int, help="device calls queued before one waits (default: 1 on a CPU, else 10)"
    )
    parser.add_argument(
        "--cpu-time",
        action="store_true",
        help="CPU time of all threads, for a machine that is busy with others",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there too")
    options = parser.parse_args()
    random = np.random.default_rng(0)
    w, g = (random.standard_normal(options.size, np.float32).astype(DTYPES[options.dtype]) for _ in "wg")
    first = jax.devices()[0]
    setting = {
        "size": options.size,
        "dtype": options.dtype,
        "top_p": TOP_P,
        "density": DENSITY,
        "rounds": options.rounds,
        "queued": options.queued or (1 if first.platform == "cpu" else 10),
        "clock": "CPU time" if options.cpu_time else "wall clock",
        "device": first.device_kind,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "jax": jax.__version__,
    }
    print(", ".join(f"{key} {value}" for key, value in setting.items()) + "\n", flush=True)
    now = time.process_time if options.cpu_time else time.perf_counter
    clock = Clock(now, setting["rounds"], setting["queued"])
    tables: list[Table] = []
    if options.only != "device":
        tables += HostBench(w, g).tables(clock)
    if options.only != "host":
        tables += DeviceBench(w, g).tables(clock)
    print("\n".join(map(str, tables)), flush=True)
    if options.json:
        options.json.write_text(
            json.dumps({**setting, "tables": [asdict(table) for table in tables]}, indent=1)
        )


if __name__ == "__main__":
    main()
