"""Where arrays lie: on one device, on eight, and on slices; how far a base is sharded."""

import os
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import jax
import numpy as np
import pytest
from jax.sharding import AxisType, Mesh

from pamctl.distributed import Devices, agree, barrier, broadcast_text, devices, is_main
from pamctl.refusal import Refusal, UsageRefusal

EIGHT_DEVICES = """
import jax, jax.numpy as jnp, numpy as np
from jax.sharding import PartitionSpec as P
from pamctl.distributed import Devices, join
from pamctl.refusal import UsageRefusal

assert join() == "one process, 8 CPU devices"
plain, sharded, mixed = Devices.of(10**12), Devices.of(fsdp=8), Devices.of(fsdp=4)
assert plain.mesh.shape == {"data": 8, "fsdp": 1}, "a CPU tells no memory, so the base is replicated"
assert sharded.mesh.shape == {"data": 1, "fsdp": 8} and mixed.mesh.shape == {"data": 2, "fsdp": 4}

def spec(on, shape, dtype=np.float32, stacked=False):
    return on.base_sharding(shape, dtype, stacked=stacked).spec

MIB = 2**20
assert spec(plain, (4096, 4096)) == P()
assert spec(mixed, (4096, 1024)) == P("fsdp")
assert spec(mixed, (1024, 4096)) == P(None, "fsdp")
assert spec(mixed, (4098, 1024)) == P(None, "fsdp"), "the largest that four devices divide"
assert spec(mixed, (1025, 1025)) == P(), "no dimension divides"
assert spec(mixed, (MIB - 4,)) == P() and spec(mixed, (MIB,)) == P("fsdp"), "4 MiB"
assert spec(mixed, (MIB,), jnp.bfloat16) == P() and spec(mixed, (2 * MIB,), jnp.bfloat16) == P("fsdp")
assert spec(mixed, (4096, 16, 32)) == P("fsdp")
assert spec(mixed, (4096, 16, 32), stacked=True) == P(None, None, "fsdp"), "layers are taken one by one"

whole = np.arange(16 * 5, dtype=np.float32).reshape(16, 5)
table = np.random.default_rng(0).standard_normal((2048, 512), np.float32)
ids = np.random.default_rng(1).integers(0, 2048, 16)
for on in (plain, sharded, mixed):
    assert on.local_rows(16).tolist() == list(range(16))
    batch = on.put_batch({"x": whole, "ids": ids})
    assert batch["x"].sharding.spec == P(("data", "fsdp"))
    assert [shard.data.shape for shard in batch["x"].addressable_shards] == [(2, 5)] * 8
    assert (np.asarray(batch["x"]) == whole).all()
    there = jax.device_put(table, on.base_sharding(table.shape, table.dtype, stacked=False))
    rows = jax.jit(lambda table, ids: table[ids] * 2, out_shardings=on.batch)(there, batch["ids"])
    assert (np.asarray(rows) == table[ids] * 2).all(), "indexing a sharded table is allowed, and exact"
    assert len(jax.device_put(whole, on.replicated).addressable_shards[3].data) == 16
one = Devices.alone()
assert one.mesh.size == 1 and one.local_rows(3).tolist() == [0, 1, 2]
assert one.put_batch(whole).sharding.device_set == {jax.devices()[0]}
for wrong in (12, 4, 0):
    try:
        plain.local_rows(wrong)
    except UsageRefusal as refusal:
        print(refusal.way_on)
print("all held")
"""


def test_shardings_and_batches_hold_on_eight_devices() -> None:
    finished = subprocess.run(
        [sys.executable, "-W", "error", "-c", EIGHT_DEVICES],
        env={**os.environ, "JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "8"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout.splitlines() == [
        "use a batch size of 8 or 16",
        "use a batch size of 8",
        "use a batch size of 8",
        "all held",
    ]


def test_one_process_need_not_ask_others() -> None:
    assert is_main()
    barrier("any")
    assert agree(True)
    assert not agree(False)
    assert broadcast_text("any") == "any"


def test_on_one_device_a_batch_is_only_put(monkeypatch: pytest.MonkeyPatch) -> None:
    mesh = Mesh(np.array(jax.devices()[:1]).reshape(1, 1), ("data", "fsdp"), axis_types=(AxisType.Auto,) * 2)
    alone = Devices(mesh)
    assert alone.local_rows(3).tolist() == [0, 1, 2]
    [put] = alone.put_batch([np.ones((3, 2), np.float32)])
    assert put.devices() == {jax.devices()[0]}
    assert alone.base_sharding((4096, 4096), np.float32, stacked=False) == alone.replicated


def with_memory(count: int, *limits: int | None) -> list[Any]:
    """Stand-ins for devices of one process, whose memory has these bytes."""
    return [
        SimpleNamespace(
            id=i, process_index=0, platform="gpu", device_kind="test", slice_index=0,
            memory_stats=lambda limit=limit: None if limit is None else {"bytes_limit": limit},
        )
        for i, limit in zip(range(count), limits * count, strict=False)
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("count", "base_bytes", "limit", "expected"),
    [
        (8, 6 * 10**9, 16 * 10**9, 1),
        (8, 8 * 10**9, 16 * 10**9, 1),
        (8, 12 * 10**9, 16 * 10**9, 8),
        (6, 12 * 10**9, 16 * 10**9, 2),
        (1, 12 * 10**9, 16 * 10**9, 1),
        (8, 12 * 10**9, None, 1),
    ],
)
def test_a_base_is_sharded_where_it_leaves_too_little_memory(
    count: int, base_bytes: int, limit: int | None, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jax, "local_devices", lambda: with_memory(count, limit))
    assert devices._default_fsdp(count, base_bytes) == expected


def test_an_fsdp_that_divides_no_devices_is_refused() -> None:
    with pytest.raises(UsageRefusal, match=r"fsdp \d+ does not divide \d+ devices"):
        Devices.of(fsdp=jax.device_count() + 1)


def scattered(slices: int, hosts: int, each: int) -> list[Any]:
    """Stand-ins for the devices of several slices, each of several hosts."""
    return [
        SimpleNamespace(
            id=(s * hosts + h) * each + i, process_index=s * hosts + h, slice_index=s,
            platform="gpu", device_kind="test",
        )
        for s in range(slices) for h in range(hosts) for i in range(each)
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("slices", "each", "fsdp", "rows_of_slices"),
    [
        (2, 4, 1, [[0], [0], [0], [0], [1], [1], [1], [1]]),
        (2, 4, 4, [[0, 0, 0, 0], [1, 1, 1, 1]]),
        (2, 4, 8, [[0, 0, 0, 0, 1, 1, 1, 1]]),
        (2, 6, 4, [[0, 0, 1, 1]] * 3),
    ],
)
def test_fsdp_stays_within_a_slice_as_far_as_it_goes(
    slices: int, each: int, fsdp: int, rows_of_slices: list[list[int]]
) -> None:
    mesh = devices._arranged(scattered(slices, 1, each), fsdp)
    assert [[device.slice_index for device in row] for row in mesh] == rows_of_slices
    assert len({device.id for device in mesh.flat}) == slices * each


def test_processes_of_unequal_devices_are_refused() -> None:
    with pytest.raises(Refusal, match="process 1 has 2 devices and process 0 has 4"):
        devices._refuse_uneven(scattered(1, 1, 4) + scattered(1, 2, 2)[2:])
