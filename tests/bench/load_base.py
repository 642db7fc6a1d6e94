"""Times loading a random full-size PaliGemma-3B beside merely reading its files (--help: options)."""

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import ml_dtypes
import numpy as np

from pamctl.adapters.safetensors_file import write_safetensors
from pamctl.models.config import PaliGemmaConfig, TextConfig, VisionConfig
from pamctl.models.leaves import hub_name, model_leaves

SHARD = 2_000_000_000
TOLD = """
import re, sys, time
from pathlib import Path
import jax, ml_dtypes, numpy as np
from pamctl.models.config import PaliGemmaConfig
from pamctl.models.weights import read_weights
folder = Path(sys.argv[1])
jax.devices()
# A virtual machine's free memory may be its host's until it is touched, which takes longer than reading into
# it: had once before the clock starts, neither is charged for it.
np.empty(sum(file.stat().st_size for file in folder.glob("*.safetensors")), np.uint8)[::4096] = 1
def tell(start):
    seconds = time.perf_counter() - start
    with open("/proc/self/status") as status:
        print(seconds, int(re.search(r"VmHWM:\\s*(\\d+)", status.read())[1]) * 1024)
"""
# The weights must lie in memory in the end, so the floor's bytes do too: in numpy's memory, a file an array.
FLOOR = (
    TOLD
    + """
start = time.perf_counter()
kept = []
for file in sorted(folder.glob("*.safetensors")):
    memory = np.empty(file.stat().st_size, np.uint8)
    with file.open("rb", buffering=0) as stream:
        left = memory.data
        while left:
            left = left[stream.readinto(left[: 1 << 20]):]
    kept.append(memory)
tell(start)
"""
)
LOAD = (
    TOLD
    + """
start = time.perf_counter()
kept = read_weights(folder, PaliGemmaConfig.from_file(folder), ml_dtypes.bfloat16)
tell(start)
"""
)


def configuration(layers: int | None) -> PaliGemmaConfig:
    return PaliGemmaConfig(
        VisionConfig(1152, 4304, layers or 27, 16), TextConfig(2048, 16384, layers or 18, 8, 1, 257216)
    )


def write_model(folder: Path, config: PaliGemmaConfig) -> None:
    """One block of random numbers over and over: what they are costs no time here and none there."""
    folder.mkdir(parents=True)
    shapes = {hub_name(name): leaf.stored for leaf in model_leaves(config) for name in leaf.names()}
    draws = np.random.default_rng(0).standard_normal(1 << 22, dtype=np.float32)
    block = (0.02 * draws).astype(ml_dtypes.bfloat16)
    shards: list[list[str]] = [[]]
    for name, shape in shapes.items():
        if sum(2 * math.prod(shapes[held]) for held in shards[-1]) + 2 * math.prod(shape) > SHARD:
            shards.append([])
        shards[-1].append(name)
    weight_map = {}
    for number, names in enumerate(shards, 1):
        file = f"model-{number:05}-of-{len(shards):05}.safetensors"
        tensors: Iterator[tuple[str, np.ndarray]] = ((name, np.resize(block, shapes[name])) for name in names)
        write_safetensors(
            folder / file, {name: shapes[name] for name in names}, tensors, dict.fromkeys(names, "BF16")
        )
        weight_map |= dict.fromkeys(names, file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    (folder / "config.json").write_text(config.to_json())


def measured(program: str, folder: Path, cache: str) -> tuple[float, int]:
    """Seconds and peak bytes of a process of its own, which keeps what it caches in `cache`."""
    command = [sys.executable, "-c", program, str(folder)]
    ran = subprocess.run(
        command,
        env={**os.environ, "XDG_CACHE_HOME": cache},
        capture_output=True,
        text=True,
        check=True,
    )
    seconds, peak = ran.stdout.split()
    return float(seconds), int(peak)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dir", type=Path, required=True, help="where the model is, or is to be written")
    parser.add_argument("--layers", type=int, help="of each tower, to try it out [default: all]")
    parser.add_argument("--repeats", type=int, default=3, help="the fastest of so many runs counts")
    options = parser.parse_args()
    if not options.dir.exists():
        write_model(options.dir, configuration(options.layers))
    weights = sum(file.stat().st_size for file in options.dir.glob("*.safetensors"))
    measured(FLOOR, options.dir, str(options.dir))  # fills the file cache
    names = ("read", "first load", "later load")
    runs: dict[str, list[tuple[float, int]]] = {name: [] for name in names}
    for _ in range(options.repeats):  # in turn, so that a busy machine slows all alike
        with tempfile.TemporaryDirectory() as cache:
            for name, program in zip(names, (FLOOR, LOAD, LOAD), strict=True):
                runs[name].append(measured(program, options.dir, cache))
    best = {name: min(seconds for seconds, _ in of) for name, of in runs.items()}
    print(f"{weights / 1e9:.2f} GB, load {os.getloadavg()[0]:.1f}, fastest of {options.repeats}")
    for name, of in runs.items():
        peak = max(peak for _, peak in of)
        print(
            f"{name}: {best[name]:.2f} s, {best[name] / best['read']:.2f} x reading, "
            f"peak {peak / 1e9:.2f} GB, {peak / weights:.2f} x the weights; "
            f"all: {' '.join(f'{seconds:.1f}' for seconds, _ in of)} s"
        )


if __name__ == "__main__":
    main()
