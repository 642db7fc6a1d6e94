"""Whether and how this process joins others, before jax knows its devices: one rule for every launcher."""

import os
import socket
from collections.abc import Mapping
from dataclasses import replace
from importlib.util import find_spec
from threading import Thread
from typing import Literal

from pamctl.distributed.launchers import ADDRESS, LOOKED_FOR, Launch, launch_of, number_of
from pamctl.refusal import Refusal, UsageRefusal

Mode = Literal["auto", "on", "off"]

TIMEOUT = 300  # seconds for which processes wait for each other
_DAY = 86400
_OPTIONS = "--coordinator, --num-processes and --process-id"
_PROXIES = ("grpc_proxy", "https_proxy", "http_proxy")
_NO_PROXY = "no_grpc_proxy"


def join(
    mode: Mode = "auto",
    coordinator: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
) -> str:
    """Join the other processes of this run, if there are any, before jax is asked for devices.

    Processes that have joined already are left as they are. Arguments go before PAMCTL_COORDINATOR,
    PAMCTL_NUM_PROCESSES and PAMCTL_PROCESS_ID, and these before what a launcher tells.

    Args:
        mode: `auto` joins if a launcher tells of several processes, `on` refuses to be alone, `off` is alone.
        coordinator: host:port where process 0 awaits the others.

    Returns:
        One line that says what was chosen, to be shown.

    Raises:
        UsageRefusal: the arguments do not make a whole, or `on` finds no launcher.
        Refusal: the processes do not meet.
    """
    import jax

    if jax.distributed.is_initialized():
        return _described("joined before")
    if mode == "off":
        return _described("")
    launch = _chosen_launch(coordinator, num_processes, process_id)
    if launch is not None:
        _initialize(launch)
        return _described(launch.launcher)
    if mode == "on":
        _initialize_as_jax_finds()
        return _described("Cloud TPU VM")
    return _described("")


def _described(launcher: str) -> str:
    import jax

    local, total, platform = jax.local_device_count(), jax.device_count(), jax.devices()[0].platform.upper()
    devices = f"{platform} device{'' if total == 1 else 's'}"
    if not launcher:
        return f"one process, {total} {devices}"
    process = f"process {jax.process_index()} of {jax.process_count()}"
    return f"{launcher}: {process}, {local} local of {total} {devices}"


def _chosen_launch(
    coordinator: str | None, num_processes: int | None, process_id: int | None
) -> Launch | None:
    """What was asked for, completed by what a launcher tells; None where there is nothing of either."""
    environ: Mapping[str, str] = os.environ
    coordinator = coordinator or environ.get("PAMCTL_COORDINATOR") or None
    if num_processes is None:
        num_processes = number_of(environ, "PAMCTL_NUM_PROCESSES")
    if process_id is None:
        process_id = number_of(environ, "PAMCTL_PROCESS_ID")
    launch = launch_of(environ)
    if launch is None:
        if coordinator is None and num_processes is None and process_id is None:
            return None
        if coordinator is None or num_processes is None or process_id is None:
            raise UsageRefusal(
                "of coordinator, num-processes and process-id some are given and some are missing",
                f"give {_OPTIONS}, or start with a launcher that tells them",
            )
        launch = Launch("as told", coordinator, num_processes, process_id)
    return _checked(
        replace(
            launch,
            coordinator=coordinator or launch.coordinator,
            num_processes=launch.num_processes if num_processes is None else num_processes,
            process_id=launch.process_id if process_id is None else process_id,
        )
    )


def _checked(launch: Launch) -> Launch:
    for value, option in ((launch.coordinator, "coordinator"), (launch.process_id, "process-id")):
        if value is None:
            raise UsageRefusal(
                f"{launch.launcher} started {launch.num_processes} processes but does not tell the {option}",
                f"give --{option} or PAMCTL_{option.upper().replace('-', '_')}",
            )
    assert launch.coordinator is not None
    assert launch.process_id is not None
    if not ADDRESS.fullmatch(launch.coordinator):
        raise UsageRefusal(
            f"the coordinator {launch.coordinator} is not host:port",
            "add a port that is free on the host of process 0, such as :8476",
        )
    if not 0 <= launch.process_id < launch.num_processes:
        raise UsageRefusal(
            f"there is no process {launch.process_id} among {launch.num_processes}",
            f"number the processes 0 to {launch.num_processes - 1}, each number once",
        )
    return launch


def _initialize(launch: Launch) -> None:
    assert launch.coordinator is not None
    _keep_off_proxies(launch.coordinator)
    if launch.process_id == 0 and "JAX_COORDINATOR_BIND_ADDRESS" not in os.environ:
        _refuse_taken_port(launch.coordinator)
    _meet(
        f"process {launch.process_id} of {launch.num_processes}",
        launch.coordinator,
        coordinator_address=launch.coordinator,
        num_processes=launch.num_processes,
        process_id=launch.process_id,
        local_device_ids=launch.local_device_ids,
        # jax's own detection would fill local_device_ids with the local rank: one GPU of a node's eight.
        cluster_detection_method="deactivate",
    )


def _initialize_as_jax_finds() -> None:
    """Let jax ask the metadata server of a Cloud TPU VM, which knows the other hosts if no variable does."""
    refusal = UsageRefusal(
        f"no launcher of several processes is found; looked for {LOOKED_FOR}",
        f"start with one of them, give {_OPTIONS}, or leave it at auto to run alone",
    )
    if find_spec("libtpu") is None:
        raise refusal
    try:
        _meet("this process", "the coordinator of the Cloud TPU VM")
    except (ValueError, OSError) as fault:  # nothing detected; no metadata server
        raise refusal from fault


def _meet(process: str, coordinator: str, **arguments: object) -> None:
    """Call jax.distributed.initialize, and refuse when it fails or takes too long."""
    import jax

    jax.config.update("jax_check_proxy_envs", False)
    # Its handler would take SIGTERM away from every command that has none of its own.
    jax.config.update("jax_enable_preemption_service", False)
    faults: list[Exception] = []

    def initialize() -> None:
        try:
            jax.distributed.initialize(initialization_timeout=_DAY, **arguments)  # type: ignore[arg-type]
        except Exception as fault:
            faults.append(fault)

    # When jax's own time is over it aborts the whole process, so it is given more than is waited here.
    thread = Thread(target=initialize, daemon=True)
    thread.start()
    thread.join(TIMEOUT)
    if thread.is_alive():
        jax.distributed.shutdown()
        raise Refusal(
            f"{process} has not met the others at {coordinator} within {TIMEOUT:g} s",
            "see that all are started, that process 0 runs on that host and that its port can be reached",
        )
    for fault in faults:
        if not isinstance(fault, jax.errors.JaxRuntimeError):
            raise fault
        raise Refusal(
            f"{process} cannot join at {coordinator}: {str(fault).splitlines()[0]}",
            "see that all are started, that process 0 runs on that host and that its port can be reached",
        ) from fault


def _refuse_taken_port(coordinator: str) -> None:
    """Try the port first: jax crashes on one that is taken, or shares it with another run's coordinator."""
    host, _, port = coordinator.rpartition(":")
    dual = socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if dual else socket.AF_INET
    try:
        socket.create_server(("", int(port)), family=family, dualstack_ipv6=dual).close()
    except (OSError, OverflowError) as fault:
        raise Refusal(
            f"process 0 cannot open port {port} to await the others: {getattr(fault, 'strerror', fault)}",
            f"give every process --coordinator {host}:PORT with a port that is free there",
        ) from fault


def _keep_off_proxies(coordinator: str) -> None:
    """gRPC would ask an HTTP proxy for the coordinator and hang; other hosts stay behind the proxy."""
    if not any(os.environ.get(name) for name in _PROXIES):
        return
    host = coordinator.rpartition(":")[0].strip("[]")
    before = os.environ.get(_NO_PROXY) or os.environ.get("no_proxy")
    os.environ[_NO_PROXY] = f"{before},{host}" if before else host
