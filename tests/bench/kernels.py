"""Times the kernels beside their peers, measured in turn in the same run (--help lists the options)."""

import argparse
import importlib.util
import platform
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pamctl_kernels as kernels

Timings = dict[str, float]
TOP_P = 50
DTYPES = {"float32": np.float32, "float16": np.float16, "bfloat16": ml_dtypes.bfloat16}


def best_seconds(calls: dict[str, Callable[[], Any]], rounds: int) -> Timings:
    """The fastest of `rounds` of each call, taken in turn so that a busy machine slows all of them alike."""
    best = dict.fromkeys(calls, float("inf"))
    for call in calls.values():
        jax.block_until_ready(call())
    for _ in range(rounds):
        for name, call in calls.items():
            start = time.perf_counter()
            jax.block_until_ready(call())
            best[name] = min(best[name], time.perf_counter() - start)
    return best


def threshold_calls(w: np.ndarray, on_device: jax.Array) -> dict[str, Callable[[], Any]]:
    at = w.size - int(np.ceil(w.size * TOP_P / 100))
    calls: dict[str, Callable[[], Any]] = {
        "magnitude_threshold, host": lambda: kernels.magnitude_threshold(w, TOP_P),
        "magnitude_threshold, jitted": lambda: kernels.magnitude_threshold(on_device, TOP_P),
        "np.partition(np.abs(x))": lambda: np.partition(np.abs(w), at)[at],
        "np.sort(np.abs(x))": lambda: np.sort(np.abs(w))[at],
        "copy, numpy": lambda: w.copy(),
        "copy, jitted": lambda: jitted_copy(on_device),
    }
    if importlib.util.find_spec("torch"):
        import torch

        tensor = torch.from_dlpack(on_device)
        calls["torch.kthvalue(x.abs())"] = lambda: torch.kthvalue(tensor.abs(), at + 1).values
    return calls


def realign_calls(w: np.ndarray, g: np.ndarray, *device: jax.Array) -> dict[str, Callable[[], Any]]:
    tau = kernels.magnitude_threshold(g, TOP_P)
    on_device = jax.device_put(tau)
    donated = jax.jit(lambda w, g, t: kernels.realign(w, g, t), donate_argnums=0)
    kept = [jnp.copy(device[0])]

    def realign_in_place() -> Any:
        kept[0], count = donated(kept[0], device[1], on_device)
        return kept[0], count

    calls: dict[str, Callable[[], Any]] = {
        "realign, host": lambda: kernels.realign(w, g, tau),
        "realign, jitted": lambda: kernels.realign(*device, on_device),
        "realign, jitted, w donated": realign_in_place,
        "copy, numpy": lambda: w.copy(),
        "copy, jitted": lambda: jitted_copy(device[0]),
    }
    if importlib.util.find_spec("torch"):
        import torch

        a, b = (torch.from_dlpack(x) for x in device)

        def torch_realign() -> Any:
            conflict = (b.abs() >= float(tau)) & (a.sign() != b.sign())
            return torch.where(conflict, b, a), conflict.sum()

        calls["torch.where with its count"] = torch_realign
    return calls


def average_calls(w: np.ndarray, g: np.ndarray, *device: jax.Array) -> dict[str, Callable[[], Any]]:
    weights = jnp.array([0.5, 0.5], jnp.float32)
    calls: dict[str, Callable[[], Any]] = {
        "weighted_average, host": lambda: kernels.weighted_average([w, g], [0.5, 0.5]),
        "weighted_average, jitted": lambda: kernels.weighted_average(device, weights),
        "np: 0.5 * a + 0.5 * b": lambda: 0.5 * w + 0.5 * g,
        "copy, numpy": lambda: w.copy(),
        "copy, jitted": lambda: jitted_copy(device[0]),
    }
    if importlib.util.find_spec("torch"):
        import torch

        a, b = (torch.from_dlpack(x) for x in device)
        calls["torch.lerp"] = lambda: torch.lerp(a, b, 0.5)
    return calls


jitted_copy = jax.jit(jnp.copy)


def print_table(timings: Timings, own: int) -> None:
    """One row a call; a column for each peer holds the time of the row over the time of that peer."""
    peers = list(timings)[own:]
    print("| | ms | " + " | ".join(f"/ {peer}" for peer in peers) + " |")
    print("|---|---|" + "---|" * len(peers))
    for name, seconds in timings.items():
        ratios = " | ".join(f"{seconds / timings[peer]:.2f}" for peer in peers)
        print(f"| {name} | {seconds * 1e3:.1f} | {ratios} |")
    print(flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--size", type=int, default=56_600_000, help="elements an array (default: %(default)s)"
    )
    parser.add_argument("--dtype", choices=DTYPES, default="float32")
    parser.add_argument(
        "--rounds", type=int, default=7, help="the fastest of this many (default: %(default)s)"
    )
    options = parser.parse_args()
    random = np.random.default_rng(0)
    w, g = (random.standard_normal(options.size, np.float32).astype(DTYPES[options.dtype]) for _ in "wg")
    device = jax.device_put(w), jax.device_put(g)
    versions = f"python {platform.python_version()}, numpy {np.__version__}, jax {jax.__version__}"
    print(f"{options.size} x {options.dtype}, top_p {TOP_P}; {versions}, {jax.devices()[0].device_kind}\n")
    print_table(best_seconds(threshold_calls(g, device[1]), options.rounds), own=2)
    print_table(best_seconds(realign_calls(w, g, *device), options.rounds), own=3)
    print_table(best_seconds(average_calls(w, g, *device), options.rounds), own=2)


if __name__ == "__main__":
    main()
