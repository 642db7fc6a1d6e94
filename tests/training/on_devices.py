"""One task trained and scored on several CPU devices: `on_devices.py DEVICES FSDP FOLDER OUT`."""

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

import jax

from pamctl.distributed import devices
from pamctl.evaluation.score import score_adapter
from pamctl.models.base import load_base
from pamctl.training import train_task


def main(count: int, fsdp: int, folder: Path, out: Path) -> None:
    jax.config.update("jax_num_cpu_devices", count)
    devices.SHARDED_FROM = 0  # the base is so small that nothing of it would be
    base, task = str(folder / "base"), folder / "shapes.jsonl"
    train_task(
        task,
        out,
        base=base,
        global_adapter=folder / "first",
        fsdp=fsdp,
        batch_size=8,
        steps=6,
        align_every=2,
        learning_rate=0.02,
        accumulate=1 if count == 8 else 2,
    )
    (result,) = score_adapter(str(out), [task], base=base, split="train", fsdp=fsdp)
    held = load_base(base, fsdp=fsdp).parameters["language_model"]["layers"]["mlp"]["gate_proj"]["weight"]
    print(json.dumps({"score": result.score, "part": held.addressable_shards[0].data.shape}))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]), Path(sys.argv[4]))
