"""Times `pamctl inspect` of a PaliGemma-3B adapter beside reading and hashing its file (--help: options)."""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np

from pamctl.adapters import Adapter, ComputedModules, LoraFactors, ModuleShape, Provenance, save_adapter

RANK = 32
TEXT = {
    "self_attn.q_proj": (2048, 2048),
    "self_attn.k_proj": (2048, 256),
    "self_attn.v_proj": (2048, 256),
    "self_attn.o_proj": (2048, 2048),
    "mlp.gate_proj": (2048, 16384),
    "mlp.up_proj": (2048, 16384),
    "mlp.down_proj": (16384, 2048),
}
VISION = {
    **{f"self_attn.{name}": (1152, 1152) for name in ("q_proj", "k_proj", "v_proj", "out_proj")},
    "mlp.fc1": (1152, 4304),
    "mlp.fc2": (4304, 1152),
}
FLOOR = """
import hashlib, sys
digest = hashlib.sha256()
with open(sys.argv[1], "rb") as stream:
    while block := stream.read(1 << 20):
        digest.update(block)
"""
# A program's most memory, told by itself at its end: its ru_maxrss would be at least that
# of the parent which it was forked from.
TOLD = """
import atexit, re, sys
def tell():
    with open("/proc/self/status") as status:
        print(re.search(r"VmHWM:\\s*(\\d+)", status.read())[1], file=sys.stderr)
atexit.register(tell)
"""
PROGRAM = TOLD + "from pamctl.cli.main import run\nrun()\n"


class Run(NamedTuple):
    seconds: float
    megabytes: float


def paligemma_shapes() -> dict[str, ModuleShape]:
    """Every linear layer of both towers of PaliGemma-3B: 288 modules, 56.6 million numbers at rank 32."""
    sizes = {f"language_model.layers.{i}.{name}": size for i in range(18) for name, size in TEXT.items()}
    sizes |= {
        f"vision_tower.encoder.layers.{i}.{name}": size for i in range(27) for name, size in VISION.items()
    }
    return {name: ModuleShape(RANK, *size, "F32") for name, size in sizes.items()}


def write_adapter(folder: Path, seed: int) -> None:
    shapes = paligemma_shapes()

    def factors(module: str) -> LoraFactors:
        draw = np.random.default_rng([seed, *module.encode()])
        shape = shapes[module]
        sides = ((RANK, shape.inputs), (shape.outputs, RANK))
        return LoraFactors(*(0.02 * draw.standard_normal(side, dtype=np.float32) for side in sides))

    folder.mkdir()
    save_adapter(Adapter(ComputedModules(shapes, factors), Provenance("trained", "trained")), folder)


def timed(program: str, *arguments: str) -> Run:
    start = time.perf_counter()
    ran = subprocess.run(
        [sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=True
    )
    seconds = time.perf_counter() - start
    return Run(seconds, int(ran.stderr.split()[-1]) / 1024 if TOLD in program else 0.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5, help="the fastest of so many runs counts")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        first, second = Path(place, "first"), Path(place, "second")
        write_adapter(first, 1)
        write_adapter(second, 2)
        weights = str(first / "adapter_model.safetensors")
        programs = {
            "read and sha256": (FLOOR, weights),
            "python and numpy": (TOLD + "import numpy\n",),
            "inspect --no-norms": (PROGRAM, "inspect", str(first), "--no-norms"),
            "inspect": (PROGRAM, "inspect", str(first)),
            "inspect, two": (PROGRAM, "inspect", str(first), str(second)),
        }
        runs: dict[str, list[Run]] = {name: [] for name in programs}
        for _ in range(options.repeats):  # in turn, so that a busy machine slows all of them alike
            for name, (program, *arguments) in programs.items():
                runs[name].append(timed(program, *arguments))
        size = os.path.getsize(weights)
    floor = min(run.seconds for run in runs["read and sha256"])
    bare = min(run.megabytes for run in runs["python and numpy"])
    table = {
        name: {
            "seconds": round(min(run.seconds for run in of), 3),
            "times_the_floor": round(min(run.seconds for run in of) / floor, 2),
            "megabytes_beyond_numpy": round(max(run.megabytes for run in of) - bare, 1),
        }
        for name, of in runs.items()
    }
    del table["read and sha256"]["megabytes_beyond_numpy"]
    if options.json:
        print(json.dumps({"bytes": size, "load": os.getloadavg()[0], "runs": table}))
        return
    print(
        f"{size / 1e6:.1f} MB, load {os.getloadavg()[0]:.1f}, fastest of {options.repeats}, "
        f"python and numpy alone {bare:.0f} MB"
    )
    for name, figures in table.items():
        memory = figures.get("megabytes_beyond_numpy")
        print(
            f"{name:<20}{figures['seconds']:>8.3f} s{figures['times_the_floor']:>8.2f} x floor"
            + (f"{memory:>10.1f} MB beyond it" if memory is not None else "")
        )


if __name__ == "__main__":
    main()
