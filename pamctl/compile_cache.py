"""Where compiled programs are kept between runs, so that a second run starts at once."""

import atexit
import fcntl
import os
import tempfile
import warnings
from contextlib import suppress
from pathlib import Path

_RUN = ".run"


def keep_compiled_programs() -> None:
    """Let jax keep what it compiles in `$XDG_CACHE_HOME/pamctl/jax`.

    JAX_COMPILATION_CACHE_DIR says another place, as for every program that uses jax.
    A folder that cannot be made or written is passed over: the cache saves seconds and decides nothing.
    """
    if "JAX_COMPILATION_CACHE_DIR" in os.environ:
        return
    folder = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "pamctl" / "jax"
    try:
        # The cache is code that will be run, so nobody else may write to it.
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except (OSError, RuntimeError):
        return
    if not os.access(folder, os.W_OK | os.X_OK):
        return
    with suppress(OSError):  # a full disk, a file system without locks
        _drop_what_killed_runs_wrote(folder)
        _mark_this_run(folder)
    import jax

    # A full disk or a damaged entry costs a compilation, which is nothing that the user could mend.
    warnings.filterwarnings("ignore", message="Error (reading|writing) persistent compilation cache")
    jax.config.update("jax_compilation_cache_dir", str(folder))


def _mark_this_run(folder: Path) -> None:
    """Leave a locked file in the folder while this process lives; a killed one leaves it there unlocked."""
    handle, name = tempfile.mkstemp(suffix=_RUN, dir=folder)
    fcntl.flock(handle, fcntl.LOCK_EX)
    atexit.register(Path(name).unlink, missing_ok=True)


def _drop_what_killed_runs_wrote(folder: Path) -> None:
    """Remove the programs written since a killed run began: jax may have written one in part."""
    for run in folder.glob(f"*{_RUN}"):
        with suppress(OSError), run.open() as opened:
            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
            began = run.stat().st_mtime
            for program in folder.iterdir():
                if program.suffix != _RUN and program.stat().st_mtime >= began:
                    program.unlink()
            run.unlink()
