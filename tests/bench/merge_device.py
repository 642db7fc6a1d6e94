"""Times dense merges of PaliGemma-3B's layers on an accelerator beside the host (--help: options)."""

import argparse
import json
import time
from typing import Any

import jax
import numpy as np

from pamctl.adapters import Adapter, LoraFactors
from pamctl.merging import Recipe, plan_merge
from pamctl.merging.devices import HOST, Place
from pamctl.merging.execute import Execution

RANK = 32
LAYER = {
    "self_attn.q_proj": (2048, 2048),
    "self_attn.k_proj": (2048, 256),
    "mlp.gate_proj": (2048, 16384),
    "mlp.down_proj": (16384, 2048),
}
METHODS = ("ties", "dare-ties", "magmax", "consensus", "breadcrumbs", "della")


def adapter(seed: int) -> Adapter:
    """The modules of one language layer, with random factors."""
    draw = np.random.default_rng(seed)

    def factors(inputs: int, outputs: int) -> LoraFactors:
        sides = ((RANK, inputs), (outputs, RANK))
        return LoraFactors(*(0.02 * draw.standard_normal(side, dtype=np.float32) for side in sides))

    return Adapter({f"language_model.layers.0.{name}": factors(*size) for name, size in LAYER.items()})


def timed(execution: Execution) -> tuple[float, dict[str, LoraFactors]]:
    start = time.perf_counter()
    merged = {module: execution.module(module) for module in execution.plan.modules}
    return time.perf_counter() - start, merged


def difference(one: LoraFactors, two: LoraFactors) -> float:
    """The norm of the difference of two deltas, relative to the first, from the factors."""
    apart = np.hstack([one.b, -two.b]).astype(np.float64), np.vstack([one.a, two.a]).astype(np.float64)
    whole = one.b.astype(np.float64), one.a.astype(np.float64)
    squares = [float(np.sum((b.T @ b) * (a @ a.T))) for b, a in (apart, whole)]
    return float(np.sqrt(max(squares[0], 0.0) / squares[1]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--methods", nargs="*", default=METHODS, help="which methods")
    parser.add_argument("--no-host", action="store_true", help="do not merge on the host too")
    parser.add_argument("--json", metavar="FILE", help="write the figures there too")
    options = parser.parse_args()
    adapters = [adapter(seed) for seed in (1, 2)]
    device = Place(jax.device_put, 1 << 25)
    print(f"{jax.devices()[0].device_kind}; {len(LAYER)} modules of 2 adapters, rank {RANK}, in delta space")
    rows: list[dict[str, Any]] = []
    for method in options.methods:
        plan = plan_merge(adapters, Recipe(method, space="delta"), device="cpu")
        timed(Execution(plan, device))  # compiles
        seconds, there = timed(Execution(plan, device))
        row: dict[str, Any] = {"method": method, "device_seconds": round(seconds, 3)}
        if not options.no_host:
            seconds, here = timed(Execution(plan, HOST))
            row["host_seconds"] = round(seconds, 3)
            row["difference"] = max(difference(here[module], there[module]) for module in here)
        rows.append(row)
        print(
            "  ".join(
                f"{name} {value:.3g}" if isinstance(value, float) else f"{value:<12}"
                for name, value in row.items()
            ),
            flush=True,
        )
    if options.json:
        with open(options.json, "w") as file:
            json.dump({"device": jax.devices()[0].device_kind, "rows": rows}, file)


if __name__ == "__main__":
    main()
