"""Compiling in haste: what computes for a moment is not worth optimising, which takes far longer."""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version

# The older of XLA's two ways to make code for a CPU is sooner done. A flag unknown to XLA ends a process.
_EMITTERS = " --xla_cpu_use_fusion_emitters=false" * version("jaxlib").startswith("0.10.")

FLAGS = "--xla_backend_optimization_level=0" + _EMITTERS
"""XLA_FLAGS of processes whose programs are hardly optimised."""


@contextmanager
def compiled_in_haste() -> Iterator[None]:
    """What is compiled inside is hardly optimised.

    Nothing that is compiled outside is used inside, nor the other way round: the last bits differ.
    """
    import jax

    before = jax.config.values["jax_disable_most_optimizations"]
    jax.clear_caches()
    jax.config.update("jax_disable_most_optimizations", True)
    try:
        yield
    finally:
        jax.config.update("jax_disable_most_optimizations", before)
        jax.clear_caches()
