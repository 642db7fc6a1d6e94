"""Compiling in haste: what computes for a moment is not worth optimising, which takes far longer."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version

# The older of XLA's two ways to make code for a CPU is sooner done. A flag unknown to XLA ends a process.
_EMITTERS = " --xla_cpu_use_fusion_emitters=false" * version("jaxlib").startswith("0.10.")

FOLDER = "jax_compilation_cache_dir"

FLAGS = "--xla_backend_optimization_level=0" + _EMITTERS
"""XLA_FLAGS of processes whose programs are hardly optimised."""


@contextmanager
def compiled_in_haste() -> Iterator[None]:
    """What is compiled inside is hardly optimised.

    Nothing that is compiled outside is used inside, nor the other way round: the last bits differ.
    """
    import jax

    before = {name: jax.config.values[name] for name in ("jax_disable_most_optimizations", FOLDER)}
    _configure(
        {"jax_disable_most_optimizations": True, FOLDER: before[FOLDER] and f"{before[FOLDER]}-in-haste"}
    )
    try:
        yield
    finally:
        _configure(before)


def _configure(values: Mapping[str, object]) -> None:
    """Forget what was compiled, and keep programs that differ in haste in folders that differ."""
    import jax
    from jax.experimental.compilation_cache.compilation_cache import reset_cache

    jax.clear_caches()
    for name, value in values.items():
        jax.config.update(name, value)
    reset_cache()
