"""Where compiled programs are kept between runs, so that a second run starts at once."""

import os
import warnings
from pathlib import Path


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
    import jax

    # A full disk or a damaged entry costs a compilation, which is nothing that the user could mend.
    warnings.filterwarnings("ignore", message="Error (reading|writing) persistent compilation cache")
    jax.config.update("jax_compilation_cache_dir", str(folder))
