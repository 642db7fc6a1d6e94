"""What holds for every test."""

import atexit
import os
import shutil
import tempfile

import pytest
from hypothesis import settings

# Machines are busy: a property test has no time limit of its own.
settings.register_profile("pamctl", deadline=None)
settings.load_profile("pamctl")

# pytest-xdist has a worker a core: threads of a worker's linear algebra would only wait for each other.
for threads in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"):
    os.environ.setdefault(threads, "1")

# Tests keep compiled programs apart from the user's, and leave none behind. What one test compiles, all later
# ones find, in whichever process: pytest-xdist's workers get the environment of the one that starts them.
if "PYTEST_XDIST_WORKER" not in os.environ:
    os.environ["XDG_CACHE_HOME"] = tempfile.mkdtemp(prefix="pamctl-tests-")
    atexit.register(shutil.rmtree, os.environ["XDG_CACHE_HOME"], ignore_errors=True)
    os.environ["JAX_COMPILATION_CACHE_DIR"] = os.path.join(os.environ["XDG_CACHE_HOME"], "jax")
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.1"

# Those that take minutes, by themselves, begin first: at the end a second worker would wait for them.
_LONG = (
    "test_readme.py",
    "test_several_devices.py",
    "test_chain.py",
    "test_kills.py",
    "test_refusals.py",
    "test_paligemma_logits.py",
    "test_main.py",
    "test_demo.py",
    "test_loop.py",
    "test_back_ends.py",
    "test_paligemma_adapters.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that take longest; within a file the order stays."""
    items.sort(key=lambda item: _LONG.index(item.path.name) if item.path.name in _LONG else len(_LONG))
