"""How many threads the linear algebra of a command may use."""

import os


def use_one_thread() -> None:
    """Keep numpy's BLAS to one thread, unless the user has set a number; call it before numpy is imported.

    The products of a merge are a rank wide, too small to share: on a busy machine threads that wait for each
    other make it ten times slower. One thread also adds in one order, whatever the core count.
    """
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
