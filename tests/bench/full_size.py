"""Plans, trains and decodes a random full-size PaliGemma-3B by whole commands (--help: options).

python tests/bench/full_size.py --dir /tmp/paligemma-3b
"""

import argparse
import os
import shutil
import subprocess
import sys
import time
from importlib.resources import files
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from pamctl.models.images import ImageProcessor
from tests.bench.load_base import configuration, write_model

_STEP = "train-task tiny-gqa -o {out}/trained --base {base} --steps 1 --batch-size {batch}"
COMMANDS = {
    "plan": f"{_STEP} --dry-run",
    "one step": _STEP,
    "one step, nf4": f"{_STEP} --quantize nf4 --force",
    "decode": "eval {out}/trained --task tiny-gqa --base {base} --limit {batch}",
}
USUAL = ("plan", "one step", "decode")


def complete(folder: Path) -> None:
    """Give the weights a tokenizer and a processor; the embedded ones fit any PaliGemma's ids."""
    tiny = Path(str(files("pamctl") / "assets" / "tiny-paligemma"))
    shutil.copy(tiny / "tokenizer.json", folder)
    (folder / "preprocessor_config.json").write_text(ImageProcessor(size=224).to_json())


def measured(arguments: str) -> tuple[float, float, str]:
    """Seconds, peak memory in GB, and what a command told."""
    begun = time.perf_counter()
    command = [sys.executable, "-m", "pamctl", *arguments.split()]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    told = process.stdout.read() if process.stdout else ""
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode}:\n{told}")
    return time.perf_counter() - begun, used.ru_maxrss / 2**20, told


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--dir", type=Path, required=True, help="where the model is, or is to be written")
    parser.add_argument("--layers", type=int, help="of each tower, to try it out [default: all]")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--only", choices=list(COMMANDS), action="append")
    options = parser.parse_args()
    if not options.dir.exists():
        write_model(options.dir, configuration(options.layers))
    complete(options.dir)
    out = options.dir.with_name(options.dir.name + "-adapters")
    shutil.rmtree(out, ignore_errors=True)
    for name in options.only or USUAL:
        seconds, peak, told = measured(COMMANDS[name].format(out=out, base=options.dir, batch=options.batch))
        print(f"{name}: {seconds:.0f} s, peak {peak:.2f} GiB", flush=True)
        print("  " + "\n  ".join(line for line in told.splitlines() if " | " not in line)[:1500], flush=True)


if __name__ == "__main__":
    main()
