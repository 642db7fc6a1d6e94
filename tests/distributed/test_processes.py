"""Two processes on one machine: they join, wait, agree, and feed one global batch."""

import os
import socket
import subprocess
import sys

from launcher_cases import without_launchers

TWO_PROCESSES = """
import sys
import numpy as np
from pamctl.distributed import Devices, join
index = int(sys.argv[2])
line = join(coordinator=sys.argv[1], num_processes=2, process_id=index)
assert line == f"as told: process {index} of 2, 2 local of 4 CPU devices", line
import jax
devices = Devices.of()
assert devices.is_main == (index == 0)
devices.barrier("start")
assert not devices.agree(False) and devices.agree(index == 1) and devices.agree(True)
assert devices.broadcast_text(f"grüße von {index}") == "grüße von 0"
assert devices.broadcast_text("" if index == 0 else "other") == ""
whole = np.arange(24, dtype=np.float32).reshape(8, 3)
# As topology may have it: the devices of the two processes take turns.
shuffled = Devices(jax.sharding.Mesh(devices.mesh.devices[[0, 2, 1, 3]], devices.mesh.axis_names))
for on, expected in (
    (devices, [[0, 1, 2, 3], [4, 5, 6, 7]]),
    (Devices.of(fsdp=4), [[0, 1, 2, 3], [4, 5, 6, 7]]),
    (shuffled, [[0, 1, 4, 5], [2, 3, 6, 7]]),
):
    rows = on.local_rows(8)
    assert rows.tolist() == expected[index]
    batch = on.put_batch({"x": whole[rows], "n": rows.astype(np.float32)})
    assert batch["x"].shape == (8, 3) and batch["x"].sharding == on.batch
    for shard in batch["x"].addressable_shards:
        assert (np.asarray(shard.data) == whole[shard.index]).all()
    total = jax.jit(lambda b: b["x"].T @ b["n"], out_shardings=on.replicated)(batch)
    assert (np.asarray(total) == whole.T @ np.arange(8)).all()
devices.barrier("end")
print("all held", flush=True)
"""


def test_two_processes_behind_a_dead_proxy_work_as_one() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        coordinator = f"127.0.0.1:{server.getsockname()[1]}"
    environment = {
        **without_launchers(os.environ),
        "JAX_PLATFORMS": "cpu",
        "JAX_NUM_CPU_DEVICES": "2",
        "http_proxy": "http://127.0.0.1:9",
    }
    running = [
        subprocess.Popen(
            [sys.executable, "-W", "error", "-c", TWO_PROCESSES, coordinator, str(index)],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for index in range(2)
    ]
    try:
        ended = [process.communicate(timeout=120) for process in running]
    finally:
        for process in running:
            process.kill()
    for process, (stdout, stderr) in zip(running, ended, strict=True):
        # Gloo says on stdout that it is connected.
        assert stdout.splitlines()[-1:] == ["all held"], stderr
        assert process.returncode == 0, stderr
