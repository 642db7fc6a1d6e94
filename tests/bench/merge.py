"""Times `pamctl merge` of PaliGemma-3B adapters beside copying their files and beside PEFT (--help: options).

python tests/bench/merge.py --adapters 6 --dir /dev/shm
"""

import argparse
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from pamctl.adapters import Adapter, Parent, Provenance, open_adapter, save_adapter
from pamctl.adapters.provenance import read_provenance, write_provenance
from tests.adapter_cases import random_factors
from tests.bench.inspect_adapter import PROGRAM, RANK, TOLD, write_adapter

WEIGHTS = "adapter_model.safetensors"
FLOOR = 'cat "$@" > /dev/null && cp "$1" "$OUTPUT"'
FLUSHED = FLOOR + ' && sync "$OUTPUT"'
# The base of a LoRA is never looked at when adapters are combined, so that one number stands for each matrix.
PEFT = (
    TOLD
    + """
import sys, warnings
warnings.simplefilter("ignore")
import torch
from peft import PeftModel
from safetensors import safe_open
first, second, output, combination = sys.argv[1:]
base = torch.nn.Module()
base.prepare_inputs_for_generation = None  # peft asks a language model for it
with safe_open(first + "/adapter_model.safetensors", "pt") as tensors:
    for key in tensors.keys():
        if ".lora_A." in key:
            path, last = key.removeprefix("base_model.model.").split(".lora_A.")[0].rsplit(".", 1)
            inputs = tensors.get_slice(key).get_shape()[1]
            outputs = tensors.get_slice(key.replace("lora_A", "lora_B")).get_shape()[0]
            place = base
            for name in path.split("."):
                if not hasattr(place, name):
                    place.add_module(name, torch.nn.Module())
                place = getattr(place, name)
            linear = torch.nn.Linear(inputs, outputs, bias=False, device="meta")
            linear.weight = torch.nn.Parameter(torch.zeros(1).expand(outputs, inputs), requires_grad=False)
            place.add_module(last, linear)
model = PeftModel.from_pretrained(base, first, adapter_name="first")
model.load_adapter(second, adapter_name="second")
density = 0.2 if combination == "ties" else None
model.add_weighted_adapter(["first", "second"], [0.5, 0.5], "merged", combination, density=density)
model.save_pretrained(output, selected_adapters=["merged"])
"""
)


@dataclass(frozen=True)
class Case:
    """A whole process that makes one output.

    Args:
        command: all arguments but the place of the output, which is the environment's OUTPUT.
        floor: the case whose time it is a multiple of.
        most: what is asked of it, by the name of the figure.
    """

    command: Sequence[str]
    floor: str = "floor"
    most: Mapping[str, float] = field(default_factory=dict)


@dataclass
class Figures:
    """The fastest run and the largest memory of a case, or why it failed."""

    seconds: float = float("inf")
    megabytes: float | None = None
    failure: str | None = None


def write_related(place: Path, adapters: int) -> list[Path]:
    """PaliGemma-3B adapters of which every later one records the first as its parent."""
    folders = [place / f"adapter{i}" for i in range(adapters)]
    for seed, folder in enumerate(folders):
        write_adapter(folder, seed)
        record = read_provenance(folder)
        assert record is not None
        if folder is folders[0]:
            parents = (Parent(open_adapter(folder).fingerprint),)
        else:
            write_provenance(replace(record, parents=parents), folder)
    return folders


def write_small(place: Path) -> list[Path]:
    """Two unrelated adapters of 1 MB: four square layers of 1024."""
    folders = [place / "small0", place / "small1"]
    for seed, folder in enumerate(folders):
        modules = {
            f"language_model.layers.{layer}.self_attn.q_proj": random_factors(
                10 * seed + layer, 1024, 1024, RANK
            )
            for layer in range(4)
        }
        folder.mkdir()
        save_adapter(Adapter(modules, Provenance("trained", "trained")), folder)
    return folders


def copying(script: str, folders: Sequence[Path]) -> Case:
    return Case(["sh", "-c", script, "sh", *(str(folder / WEIGHTS) for folder in folders)])


def merging(folders: Sequence[Path], *options: str, floor: str = "floor", **most: float) -> Case:
    command = [sys.executable, "-c", PROGRAM, "merge", *map(str, folders), *options, "-o", "OUTPUT"]
    return Case(command, floor, most)


def with_peft(folders: Sequence[Path], combination: str) -> Case:
    return Case([sys.executable, "-c", PEFT, *map(str, folders[:2]), "OUTPUT", combination])


def cases(folders: Sequence[Path], small: Sequence[Path], peft: bool) -> dict[str, Case]:
    """Everything that is timed, by name, in the order in which it is."""
    two = folders[:2]
    found = {
        "floor": copying(FLOOR, two),
        "floor, flushed": copying(FLUSHED, two),
        "average": merging(two, times_the_floor=3, megabytes=350),
        "ties": merging(two, "--method", "ties", "--space", "factor", times_the_floor=6, megabytes=350),
        f"linear, rank {RANK}": merging(
            two,
            "--method",
            "linear",
            "--space",
            "delta",
            "--rank",
            str(RANK),
            times_the_floor=60,
            megabytes=350,
        ),
        "average in 64M": merging(two, "--max-memory", "64M", megabytes=200),
        "small": merging(small, seconds=0.5),
    }
    if len(folders) > 2:
        many = f"{len(folders)} adapters"
        found |= {
            f"floor, {many}": copying(FLOOR, folders),
            f"average, {many}": merging(folders, floor=f"floor, {many}", megabytes=350),
            f"ties, {many}": merging(
                folders, "--method", "ties", "--space", "factor", floor=f"floor, {many}", megabytes=350
            ),
        }
    if peft:
        imports = Case([sys.executable, "-c", TOLD + "import torch, peft"])
        found |= {"peft, imports alone": imports}
        found |= {f"peft {name}": with_peft(folders, name) for name in ("linear", "ties")}
    return found


def run(case: Case, output: Path, figures: Figures) -> None:
    """Run a case once, without the output of an earlier run in its way."""
    shutil.rmtree(output, ignore_errors=True)
    output.unlink(missing_ok=True)
    command = [str(output) if word == "OUTPUT" else word for word in case.command]
    start = time.perf_counter()
    ran = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OUTPUT": str(output)})
    seconds = time.perf_counter() - start
    told = ran.stderr.splitlines()
    if told and told[-1].isdecimal():
        figures.megabytes = max(figures.megabytes or 0.0, int(told.pop()) / 1024)
    if ran.returncode:
        figures.failure = " ".join(told[-2:])
    figures.seconds = min(figures.seconds, seconds)


def table(timed: Mapping[str, Case], measured: Mapping[str, Figures]) -> dict[str, dict[str, Any]]:
    """The figures of each case, as ratios too, with what is asked of them."""
    rows: dict[str, dict[str, Any]] = {}
    for name, case in timed.items():
        figures = measured[name]
        if figures.failure is not None:
            rows[name] = {"failure": figures.failure}
            continue
        row: dict[str, Any] = {
            "seconds": round(figures.seconds, 3),
            "times_the_floor": round(figures.seconds / measured[case.floor].seconds, 2),
            "times_the_flushed_floor": round(figures.seconds / measured["floor, flushed"].seconds, 2),
        }
        if figures.megabytes is not None:
            row["megabytes"] = round(figures.megabytes, 1)
        ours = {"peft linear": "average", "peft ties": "ties"}.get(name)
        if ours and measured[ours].failure is None:
            row[f"times_{ours}"] = round(figures.seconds / measured[ours].seconds, 2)
        if case.most:
            row |= {"asked": dict(case.most), "met": all(row[key] <= most for key, most in case.most.items())}
        rows[name] = row
    return rows


def as_line(name: str, row: Mapping[str, Any]) -> str:
    if "failure" in row:
        return f"{name:<22} failed: {row['failure']}"
    line = f"{name:<22}{row['seconds']:>9.3f} s{row['times_the_floor']:>8.2f}"
    line += f"{row['times_the_flushed_floor']:>9.2f}"
    line += f"{row['megabytes']:>9.0f} MB" if "megabytes" in row else " " * 12
    for key, value in row.items():
        if key in ("times_average", "times_ties"):
            line += f"   {value:.1f} x our {key.removeprefix('times_')}"
    if "asked" in row:
        asked = ", ".join(f"{key.replace('_', ' ')} {most:g}" for key, most in row["asked"].items())
        line += f"   {'met' if row['met'] else 'MISSED'}: at most {asked}"
    return line


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--adapters", type=int, default=2, help="merge so many as well, if more than 2 [2]")
    parser.add_argument("--repeats", type=int, default=5, help="the fastest of so many runs counts [5]")
    parser.add_argument("--peft-repeats", type=int, default=1, help="runs of PEFT, 0 for none [1]")
    parser.add_argument(
        "--dir",
        type=Path,
        help="where files lie meanwhile, 226 MB an adapter and one output [the folder for temporary files]; "
        "on a disk the flush to it bounds the time, in memory (/dev/shm) nothing does",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    if options.adapters < 2:
        parser.error("--adapters is at least 2")
    peft = options.peft_repeats > 0 and all(map(importlib.util.find_spec, ("torch", "peft")))
    with tempfile.TemporaryDirectory(dir=options.dir) as folder:
        place = Path(folder)
        folders, small = write_related(place, options.adapters), write_small(place)
        os.sync()  # what was just written does not share the disk with what is timed
        timed = cases(folders, small, peft)
        measured = {name: Figures() for name in timed}
        run(copying(FLOOR, folders), place / "output", Figures())  # from here on, files are in the page cache
        for turn in range(options.repeats):  # in turn, so that a busy machine slows all of them alike
            for name, case in timed.items():
                if turn < options.peft_repeats or not name.startswith("peft"):
                    run(case, place / "output", measured[name])
        size = os.path.getsize(folders[0] / WEIGHTS)
    rows = table(timed, measured)
    about = {"bytes": size, "cores": len(os.sched_getaffinity(0)), "load": os.getloadavg()[0]}
    if options.json:
        print(json.dumps({**about, "repeats": options.repeats, "runs": rows}))
    else:
        print(
            f"{size / 1e6:.1f} MB an adapter, {about['cores']} cores, load {about['load']:.1f}, "
            f"fastest of {options.repeats}\n{'':<22}{'':>11}{'x floor':>8}{'flushed':>9}{'peak':>12}"
        )
        for name, row in rows.items():
            print(as_line(name, row))
    if any("failure" in row for row in rows.values()):
        sys.exit(1)


if __name__ == "__main__":
    main()
