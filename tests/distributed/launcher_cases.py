"""The variables of every launcher, with what they say; what they look like where there is one process."""

from collections.abc import Mapping

from pamctl.distributed.launchers import Launch

LAUNCHERS_VARIABLES = (
    "PAMCTL_ SLURM OMPI TPU_ MEGASCALE JAX_COORDINATOR JAX_LOCAL NNODES NODE_RANK SKYPILOT CUDA_VISIBLE"
).split()
PROXY_VARIABLES = "grpc_proxy https_proxy http_proxy no_grpc_proxy no_proxy".split()


def is_told_by_a_launcher(name: str) -> bool:
    """Whether a variable has a say in how processes join, so that tests must not inherit it."""
    return name.startswith(tuple(LAUNCHERS_VARIABLES)) or name.lower() in PROXY_VARIABLES


def without_launchers(environ: Mapping[str, str]) -> dict[str, str]:
    """An environment in which a process is alone."""
    return {name: value for name, value in environ.items() if not is_told_by_a_launcher(name)}


SLURM = {
    "SLURM_JOB_ID": "4099",
    "SLURM_STEP_ID": "0",
    "SLURM_STEP_NODELIST": "gpu[007-009,012],cpu1",
    "SLURM_NTASKS": "4",
    "SLURM_STEP_NUM_TASKS": "4",
    "SLURM_PROCID": "3",
    "SLURM_LOCALID": "0",
    "SLURM_NODEID": "3",
    "SLURM_STEP_TASKS_PER_NODE": "1(x4)",
}
SHARED_NODE = {"SLURM_STEP_TASKS_PER_NODE": "1,3", "SLURM_NODEID": "1", "SLURM_LOCALID": "2"}
OPEN_MPI = {
    "OMPI_MCA_orte_hnp_uri": "1531576320.0;tcp://10.96.0.1,10.148.0.1:34911",
    "OMPI_COMM_WORLD_SIZE": "16",
    "OMPI_COMM_WORLD_RANK": "9",
    "OMPI_COMM_WORLD_LOCAL_RANK": "1",
    "OMPI_COMM_WORLD_LOCAL_SIZE": "8",
}
TPU = {"TPU_WORKER_HOSTNAMES": "w0.sub,w1.sub,w2.sub,w3.sub", "TPU_WORKER_ID": "2"}
SLICES = {
    "MEGASCALE_NUM_SLICES": "2",
    "MEGASCALE_SLICE_ID": "1",
    "MEGASCALE_COORDINATOR_ADDRESS": "slice0-0.sub:8080",
}
XPK = {"JAX_COORDINATOR_IP": "10.0.0.5", "JAX_COORDINATOR_PORT": "6002", "NNODES": "2", "NODE_RANK": "1"}
SKYPILOT = {
    "SKYPILOT_NODE_IPS": "10.1.1.1\n10.1.1.2\n10.1.1.3",
    "SKYPILOT_NUM_NODES": "3",
    "SKYPILOT_NODE_RANK": "2",
}

SEVERAL = {
    "slurm, a task a node: all its devices": (SLURM, Launch("SLURM", "gpu007:61443", 4, 3)),
    "slurm, tasks share the node: one device each": (
        SLURM | SHARED_NODE,
        Launch("SLURM", "gpu007:61443", 4, 3, (2,)),
    ),
    "slurm, shared but each task has been given its own device": (
        SLURM | SHARED_NODE | {"CUDA_VISIBLE_DEVICES": "2"},
        Launch("SLURM", "gpu007:61443", 4, 3),
    ),
    "slurm, shared and every task sees all devices": (
        SLURM | SHARED_NODE | {"CUDA_VISIBLE_DEVICES": "0,1,2"},
        Launch("SLURM", "gpu007:61443", 4, 3, (2,)),
    ),
    "slurm, shared but the user names devices to jax": (
        SLURM | SHARED_NODE | {"JAX_LOCAL_DEVICE_IDS": "1,2"},
        Launch("SLURM", "gpu007:61443", 4, 3),
    ),
    "slurm, tasks per node from the job's option": (
        SLURM | {"SLURM_STEP_TASKS_PER_NODE": "", "SLURM_NTASKS_PER_NODE": "1"},
        Launch("SLURM", "gpu007:61443", 4, 3),
    ),
    "slurm, a step smaller than its job": (
        SLURM | {"SLURM_NTASKS": "64"},
        Launch("SLURM", "gpu007:61443", 4, 3),
    ),
    "slurm, hosts without brackets": (
        SLURM | {"SLURM_STEP_NODELIST": "node-a,node-b"},
        Launch("SLURM", "node-a:61443", 4, 3),
    ),
    "slurm, brackets twice in a name": (
        SLURM | {"SLURM_STEP_NODELIST": "r[1-2]n[03,05-09]-ib,x"},
        Launch("SLURM", "r1n03-ib:61443", 4, 3),
    ),
    "slurm, with jax's own port": (
        SLURM | {"JAX_COORDINATOR_PORT": "1234"},
        Launch("SLURM", "gpu007:1234", 4, 3),
    ),
    "slurm, with jax's own address": (
        SLURM | {"JAX_COORDINATOR_ADDRESS": "head:99"},
        Launch("SLURM", "head:99", 4, 3),
    ),
    "open mpi, eight ranks a node": (OPEN_MPI, Launch("Open MPI", "10.96.0.1:62624", 16, 9, (1,))),
    "open mpi, a rank a node": (
        OPEN_MPI | {"OMPI_COMM_WORLD_LOCAL_RANK": "0", "OMPI_COMM_WORLD_LOCAL_SIZE": "1"},
        Launch("Open MPI", "10.96.0.1:62624", 16, 9),
    ),
    "open mpi, IPv6": (
        OPEN_MPI | {"OMPI_MCA_orte_hnp_uri": "4096.0;tcp6://[fe80::b9b,2620:10d::2]:43370"},
        Launch("Open MPI", "[fe80::b9b]:61441", 16, 9, (1,)),
    ),
    "open mpi 5, which names no host": (
        {name: value for name, value in OPEN_MPI.items() if "uri" not in name},
        Launch("Open MPI", None, 16, 9, (1,)),
    ),
    "mpirun within a slurm job": (OPEN_MPI | SLURM, Launch("Open MPI", "10.96.0.1:62624", 16, 9, (1,))),
    "tpu pod": (TPU, Launch("TPU pod", "w0.sub:8482", 4, 2)),
    "tpu pod, addresses of processes first": (
        TPU | {"TPU_PROCESS_ADDRESSES": "p0:8471,p1:8471", "TPU_WORKER_ID": "1"},
        Launch("TPU pod", "p0:8482", 2, 1),
    ),
    "tpu slices": (TPU | SLICES, Launch("TPU pod", "slice0-0.sub:8482", 8, 6)),
    "tpu slices of one host": (
        TPU | SLICES | {"TPU_WORKER_HOSTNAMES": "localhost", "TPU_WORKER_ID": "0"},
        Launch("TPU pod", "slice0-0.sub:8482", 2, 1),
    ),
    "tpu pod that hides its number": (
        {"TPU_WORKER_HOSTNAMES": "a,b"},
        Launch("TPU pod", "a:8482", 2, None),
    ),
    "xpk": (XPK, Launch("XPK", "10.0.0.5:6002", 2, 1)),
    "xpk, by name": (
        {
            "JAX_COORDINATOR_ADDRESS": "job-0.sub",
            "JAX_COORDINATOR_PORT": "6002",
            "NNODES": "2",
            "NODE_RANK": "0",
        },
        Launch("XPK", "job-0.sub:6002", 2, 0),
    ),
    "skypilot": (SKYPILOT, Launch("SkyPilot", "10.1.1.1:8476", 3, 2)),
}

ALONE = {
    "nothing": {},
    "a shell of sbatch, which is no step": {
        name: value for name, value in SLURM.items() if not name.startswith("SLURM_STEP")
    },
    "a script of sbatch": SLURM | {"SLURM_STEP_ID": "4294967291"},
    "a shell of salloc": SLURM | {"SLURM_STEP_ID": "4294967290"},
    "srun with one task": SLURM | {"SLURM_STEP_NUM_TASKS": "1", "SLURM_NTASKS": "4"},
    "mpirun with one rank": OPEN_MPI | {"OMPI_COMM_WORLD_SIZE": "1"},
    "a TPU host by itself": {"TPU_WORKER_HOSTNAMES": "localhost", "TPU_WORKER_ID": "0"},
    "one node of xpk": XPK | {"NNODES": "1"},
    "another launcher's NNODES": {"NNODES": "4", "NODE_RANK": "1"},
    "one node of skypilot": SKYPILOT | {"SKYPILOT_NUM_NODES": "1"},
}
