"""Merges adapters larger than the memory allowed and measures what each merge takes (--help: options).

python tests/bench/merge_memory.py --gigabytes 1 --max-memory 256M
"""

import argparse
import json
import math
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.bench.inspect_adapter import PROGRAM, TEXT, TOLD

WEIGHTS = "adapter_model.safetensors"
PREFIX = "base_model.model.model.language_model.layers"
ALLOWED_BESIDE = 100.0  # MB: what the program takes before it reads a number
CASES = {
    "average, exact": "--method average --space delta",
    "average of factors": "--method average --space factor",
    "ties of factors": "--method ties --space factor",
    "linear to rank 32": "--method linear --space delta --rank 32",
    "ties of deltas": "--method ties --space delta",
}
IMPOSSIBLE = "1M"


@dataclass
class Measured:
    """What a merge took, or why it was refused.

    Args:
        bound: its --max-memory.
        fits: whether its most memory is within the bound and what the program itself takes.
        refusal: what was told, and `needs` the bound that was named as the least.
    """

    bound: str
    seconds: float
    megabytes: float
    fits: bool
    refusal: str | None = None
    needs: str | None = None


def shapes(rank: int, gigabytes: float) -> dict[str, tuple[int, int]]:
    """Tensors of PaliGemma's language model, layer by layer, until there are so many bytes of float32."""
    found: dict[str, tuple[int, int]] = {}
    for layer in range(1000):
        for name, (inputs, outputs) in TEXT.items():
            if found and 4 * sum(map(math.prod, found.values())) >= gigabytes * 1e9:
                return found
            found[f"{PREFIX}.{layer}.{name}.lora_A.weight"] = (rank, inputs)
            found[f"{PREFIX}.{layer}.{name}.lora_B.weight"] = (outputs, rank)
    return found


def write_sparse(folder: Path, seed: int, rank: int, gigabytes: float, layers_with_numbers: int) -> None:
    """A PEFT folder whose weights take little space: zeros, which are holes in the file, but for some layers.

    The last row of each A has numbers everywhere: without them the zeros would be padding of a lower rank.
    """
    folder.mkdir()
    config = {"peft_type": "LORA", "r": rank, "lora_alpha": rank, "base_model_name_or_path": "paligemma"}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    tensors = shapes(rank, gigabytes)
    header: dict[str, Any] = {}
    end = 0
    for name, shape in tensors.items():
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [end, end + 4 * math.prod(shape)]}
        end += 4 * math.prod(shape)
    text = json.dumps(header).encode()
    draw = np.random.default_rng(seed)

    def numbers(shape: tuple[int, ...]) -> bytes:
        return (0.02 * draw.standard_normal(shape, dtype=np.float32)).tobytes()

    with open(folder / WEIGHTS, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for place, shape in enumerate(tensors.values()):
            if place < 2 * len(TEXT) * layers_with_numbers:
                file.write(numbers(shape))
                continue
            last_rows = 1 if place % 2 == 0 else 0
            file.seek(4 * (math.prod(shape) - shape[1] * last_rows), os.SEEK_CUR)
            file.write(numbers((last_rows, shape[1])))
        file.truncate(8 + len(text) + end)


def bare_megabytes() -> float:
    """What python and numpy take by themselves."""
    command = [sys.executable, "-c", TOLD + "import numpy"]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stderr) / 1024


def megabytes(size: str) -> float:
    """What `--max-memory` means by a size, in MiB."""
    return float(size[:-1]) * {"K": 1 / 1024, "M": 1, "G": 1024}[size[-1].upper()]


def merged(folders: Sequence[Path], options: Sequence[str], bound: str, output: Path) -> Measured:
    """Merge in a process of its own, with the most memory that it held at a time."""
    command = [sys.executable, "-c", PROGRAM, "merge", *map(str, folders), *options, "-o", str(output)]
    started = time.perf_counter()
    ended = subprocess.run([*command, "--max-memory", bound], capture_output=True, text=True)
    seconds = time.perf_counter() - started
    shutil.rmtree(output, ignore_errors=True)
    *told, most = ended.stderr.splitlines()
    peak = int(most) / 1024
    found = Measured(bound, seconds, peak, peak <= megabytes(bound) + ALLOWED_BESIDE)
    if ended.returncode:
        found.refusal = " ".join(told[-2:])
        least = re.search(r"--max-memory (\d+M)", found.refusal)
        found.needs = least[1] if least else None
    return found


def measured(folders: Sequence[Path], bound: str, output: Path) -> Iterator[tuple[str, Measured]]:
    """Each case under the bound and, where that is refused, under the one named as the least."""
    for name, options in CASES.items():
        first = merged(folders, options.split(), bound, output)
        yield name, first
        if first.needs:
            yield name, merged(folders, options.split(), first.needs, output)
    dry = [*CASES["average, exact"].split(), "--dry-run"]
    yield "an impossible bound", merged(folders, dry, IMPOSSIBLE, output)


def as_line(name: str, each: Measured) -> str:
    told = f"refused: {each.refusal}" if each.refusal else "fits" if each.fits else "DOES NOT FIT"
    return f"{name:<22}{each.bound:>8}{each.seconds:>9.1f} s{each.megabytes:>8.0f} MB   {told}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--gigabytes", type=float, default=0.5, help="of each adapter [0.5]")
    parser.add_argument("--adapters", type=int, default=8, help="how many are merged [8]")
    parser.add_argument("--rank", type=int, default=256, help="of each [256]")
    parser.add_argument("--max-memory", default="256M", help="the bound, as 256M [256M]")
    parser.add_argument("--layers-with-numbers", type=int, default=1, help="the others are zeros [1]")
    parser.add_argument("--dir", type=Path, help="where files lie [the folder for temporary files]")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.dir) as place:
        folders = [Path(place, f"adapter{i}") for i in range(options.adapters)]
        for seed, folder in enumerate(folders):
            write_sparse(folder, seed, options.rank, options.gigabytes, options.layers_with_numbers)
        size = os.path.getsize(folders[0] / WEIGHTS)
        about = {"bytes": size, "adapters": options.adapters, "rank": options.rank, "bare": bare_megabytes()}
        if not options.json:
            print(
                f"{options.adapters} adapters of {size / 1e6:.0f} MB, rank {options.rank}; bare numpy takes "
                f"{about['bare']:.0f} MB\n{'':<22}{'bound':>8}{'time':>11}{'peak':>11}   within the bound "
                f"and {ALLOWED_BESIDE:.0f} MB for the program?"
            )
        rows = []
        for name, each in measured(folders, options.max_memory, Path(place, "output")):
            rows.append((name, each))
            if not options.json:
                print(as_line(name, each), flush=True)
    load = os.getloadavg()[0]
    if options.json:
        print(json.dumps({**about, "load": load, "runs": [{"case": n, **asdict(each)} for n, each in rows]}))
    else:
        print(f"load {load:.1f}")
    *cases, (_, impossible) = rows
    last = dict(cases)
    if impossible.refusal is None or any(each.refusal or not each.fits for each in last.values()):
        sys.exit(1)


if __name__ == "__main__":
    main()
