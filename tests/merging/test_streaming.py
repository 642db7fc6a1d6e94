"""Modules that are merged some rows at a time: the same bytes and checks as whole ones."""

from pathlib import Path

import numpy as np
import pytest

from pamctl.adapters import Adapter, LoraFactors, open_adapter, write_adapter
from pamctl.merging import Recipe, execute, plan_merge
from pamctl.refusal import Refusal

TIGHT, ROOMY = 12 << 20, 1 << 30
WIDE = 140_000


def adapter(seed: int, *, padded: bool = False, scale: float = 1.0) -> Adapter:
    draw = np.random.default_rng(seed)
    a, b = draw.standard_normal((4, WIDE), np.float32), draw.standard_normal((8, 4), np.float32)
    if padded:
        a[3:], b[:, 3:] = 0, 0
    return Adapter({"wide": LoraFactors(a, b, scale)}, name=f"adapter {seed}")


def merged_at(adapters: list[Adapter], recipe: Recipe, memory: int, path: Path) -> Path:
    plan = plan_merge(adapters, recipe, max_memory=memory)
    assert plan.modules["wide"].need.streamed is (memory == TIGHT)
    write_adapter(execute(plan).adapter, path)
    return path


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize(
    "recipe",
    [
        Recipe(space="factor"),
        Recipe(space="delta"),
        Recipe("linear", space="delta", weights=(0.3, 0.9)),
        Recipe("ties", space="factor", parameters={"density": 0.5}),
        Recipe("ties", space="factor", parameters={"density": 0.5, "scope": "tensor"}),
    ],
    ids=["factors", "deltas", "linear", "ties", "ties of tensors"],
)
def test_how_much_is_held_changes_no_byte(tmp_path: Path, recipe: Recipe, padded: bool) -> None:
    adapters = [adapter(1, padded=padded, scale=0.75), adapter(2, padded=padded, scale=1.25)]
    paths = [merged_at(adapters, recipe, memory, tmp_path / str(memory)) for memory in (TIGHT, ROOMY)]
    tight, whole = ({file.name: file.read_bytes() for file in path.iterdir()} for path in paths)
    assert tight == whole
    assert open_adapter(paths[0]).fingerprint == open_adapter(paths[1]).fingerprint


def test_weights_that_are_not_the_recorded_ones_are_refused_where_rows_are_read(tmp_path: Path) -> None:
    changed = merged_at([adapter(1), adapter(2)], Recipe(space="factor"), ROOMY, tmp_path / "changed")
    with (changed / "adapter_model.safetensors").open("r+b") as stream:
        stream.seek(-4, 2)
        stream.write(np.float32(0.125).tobytes())
    other = merged_at([adapter(3), adapter(4)], Recipe(space="factor"), ROOMY, tmp_path / "other")
    plan = plan_merge([open_adapter(changed), open_adapter(other)], Recipe(space="delta"), max_memory=TIGHT)
    assert plan.modules["wide"].need.streamed
    with pytest.raises(Refusal, match="not those that its record describes"):
        write_adapter(execute(plan).adapter, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_format_that_takes_arrays_whole_is_planned_whole() -> None:
    adapters = [adapter(1), adapter(2)]
    assert plan_merge(adapters, max_memory=TIGHT).modules["wide"].need.streamed
    with pytest.raises(Refusal, match="--max-memory"):
        plan_merge(adapters, max_memory=TIGHT, streams=False)
