"""Which launcher started this process as one of several, read from the environment alone."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from pamctl.refusal import UsageRefusal

ADDRESS = re.compile(r"(?P<host>\[[^\]]+\]|[^:\[\]]+):\d+")
LOOKED_FOR = (
    "Open MPI (OMPI_COMM_WORLD_SIZE), SLURM's srun (SLURM_STEP_NODELIST), "
    "a TPU pod (TPU_WORKER_HOSTNAMES, MEGASCALE_NUM_SLICES), XPK (JAX_COORDINATOR_ADDRESS with NNODES), "
    "SkyPilot (SKYPILOT_NUM_NODES)"
)

Environment = Mapping[str, str]

_PORT = 8476
_TPU_PORT = 8482
# Ports of jobs lie at the end of the ephemeral range, where jax puts them too.
_JOB_PORTS, _FIRST_JOB_PORT = 2**12, 65536 - 2**12
# The steps of sbatch's script, of salloc's shell and of the prolog have the highest numbers.
_FIRST_RESERVED_STEP = 0xFFFFFFF0


@dataclass(frozen=True)
class Launch:
    """A process among several.

    Attributes:
        launcher: who started them, to be shown.
        coordinator: host:port where process 0 awaits the others; None if the launcher does not tell.
        process_id: which of them this is; None if the launcher does not tell.
        local_device_ids: ordinals of the GPUs that are this process's own; None for all that it sees.
    """

    launcher: str
    coordinator: str | None
    num_processes: int
    process_id: int | None
    local_device_ids: tuple[int, ...] | None = None


def launch_of(environ: Environment) -> Launch | None:
    """Return what the launcher of several processes tells of this one, None where there is but one.

    Raises:
        UsageRefusal: a launcher's variable that has to be a number is none.
    """
    for launcher in (_open_mpi, _slurm, _tpu_pod, _xpk, _skypilot):
        launch = launcher(environ)
        if launch is not None and launch.num_processes > 1:
            return launch
    return None


def number_of(environ: Environment, name: str) -> int | None:
    """Return a variable as a number, None where it is unset or empty."""
    value = environ.get(name)
    try:
        return int(value) if value else None
    except ValueError as fault:
        raise UsageRefusal(f"{name} is {value!r}, not a number", f"unset {name}, or correct it") from fault


def _open_mpi(environ: Environment) -> Launch | None:
    # 1531576320.0;tcp://10.96.0.1,10.148.0.1:34911 or 1314521088.0;tcp6://[fe80::b9b,2620::2]:43370
    uri = environ.get("OMPI_MCA_orte_hnp_uri", "")
    found = re.match(r"(\d+)\.\d+;tcp(?:://([^,:;]+)|6://\[([^,\]]+))", uri)
    host, port = (found[2] or found[3], _job_port(int(found[1]) // 2**12)) if found else (None, _PORT)
    return Launch(
        "Open MPI",
        _address(environ, host, port),
        number_of(environ, "OMPI_COMM_WORLD_SIZE") or 1,
        number_of(environ, "OMPI_COMM_WORLD_RANK"),
        _local_device_ids(
            environ,
            number_of(environ, "OMPI_COMM_WORLD_LOCAL_SIZE"),
            number_of(environ, "OMPI_COMM_WORLD_LOCAL_RANK"),
        ),
    )


def _slurm(environ: Environment) -> Launch | None:
    nodes = environ.get("SLURM_STEP_NODELIST")
    step = number_of(environ, "SLURM_STEP_ID") or 0
    if not nodes or step >= _FIRST_RESERVED_STEP:
        return None
    # In a step within a larger job SLURM_NTASKS may still be the job's.
    tasks = number_of(environ, "SLURM_STEP_NUM_TASKS") or number_of(environ, "SLURM_NTASKS") or 1
    return Launch(
        "SLURM",
        _address(environ, _first_node(nodes), _job_port(number_of(environ, "SLURM_JOB_ID") or 0)),
        tasks,
        number_of(environ, "SLURM_PROCID"),
        _local_device_ids(environ, _slurm_tasks_here(environ), number_of(environ, "SLURM_LOCALID")),
    )


def _tpu_pod(environ: Environment) -> Launch | None:
    workers = environ.get("TPU_PROCESS_ADDRESSES") or environ.get("TPU_WORKER_HOSTNAMES")
    if not workers:
        return None
    hosts = workers.split(",")
    worker = number_of(environ, "TPU_WORKER_ID")
    first_of_slice = (number_of(environ, "MEGASCALE_SLICE_ID") or 0) * len(hosts)
    # The ports that these variables may name belong to the TPU runtime.
    first = (environ.get("MEGASCALE_COORDINATOR_ADDRESS") or hosts[0]).split(":")[0]
    return Launch(
        "TPU pod",
        _address(environ, first, _TPU_PORT),
        len(hosts) * (number_of(environ, "MEGASCALE_NUM_SLICES") or 1),
        None if worker is None else worker + first_of_slice,
    )


def _xpk(environ: Environment) -> Launch | None:
    coordinator = _address(environ, environ.get("JAX_COORDINATOR_IP"), _PORT)
    if coordinator is None:  # NNODES and NODE_RANK are other launchers' words too
        return None
    return Launch("XPK", coordinator, number_of(environ, "NNODES") or 1, number_of(environ, "NODE_RANK"))


def _skypilot(environ: Environment) -> Launch | None:
    first = environ.get("SKYPILOT_NODE_IPS", "").strip().partition("\n")[0]
    return Launch(
        "SkyPilot",
        _address(environ, first, _PORT),
        number_of(environ, "SKYPILOT_NUM_NODES") or 1,
        number_of(environ, "SKYPILOT_NODE_RANK"),
    )


def _address(environ: Environment, host: str | None, port: int) -> str | None:
    """host:port, where jax's own variables have the last word."""
    host = environ.get("JAX_COORDINATOR_ADDRESS") or host
    if not host or ADDRESS.fullmatch(host):
        return host or None
    if ":" in host and not host.startswith("["):
        host = f"[{host}]"
    return f"{host}:{number_of(environ, 'JAX_COORDINATOR_PORT') or port}"


def _job_port(job: int) -> int:
    return _FIRST_JOB_PORT + job % _JOB_PORTS


def _first_node(nodes: str) -> str:
    """The first of SLURM's list of nodes, such as node001, node[001-015,017],other or rack[1-2]n[3-4]."""
    first = re.match(r"(?:[^,\[]|\[[^\]]*\])*", nodes)
    return re.sub(r"\[([^,\]-]*)[^\]]*\]", r"\1", first[0] if first else nodes)


def _slurm_tasks_here(environ: Environment) -> int | None:
    """How many tasks of the step this node has; 2(x3),1 stands for three nodes with two and one with one."""
    tasks: list[int] = []
    for count, times in re.findall(r"(\d+)(?:\(x(\d+)\))?", environ.get("SLURM_STEP_TASKS_PER_NODE", "")):
        tasks += [int(count)] * int(times or 1)
    node = number_of(environ, "SLURM_NODEID") or 0
    return tasks[node] if node < len(tasks) else number_of(environ, "SLURM_NTASKS_PER_NODE")


def _local_device_ids(
    environ: Environment, tasks_here: int | None, local_rank: int | None
) -> tuple[int, ...] | None:
    """A GPU each where tasks share a node, and for a task alone on its node all of them."""
    if tasks_here == 1 or local_rank is None or environ.get("JAX_LOCAL_DEVICE_IDS"):
        return None
    visible = environ.get("CUDA_VISIBLE_DEVICES")
    if visible and local_rank >= len(visible.split(",")):
        return None  # the launcher has already given each task a GPU of its own
    return (local_rank,)
