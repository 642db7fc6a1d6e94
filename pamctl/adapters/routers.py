"""The routers of experts: what fits an adapter's modules, and why plain LoRA cannot stand for them.

A module of E experts of rank r/E has their factors side by side, expert e's rows of a being e·r/E to
(e+1)·r/E - 1, as the columns of b. Its update of x is sum_e softmax(router @ x)_e · b_e @ a_e @ x.
"""

import hashlib
from collections.abc import Mapping

import numpy as np

from pamctl.adapters.factors import Float32, ModuleShape
from pamctl.refusal import Refusal


def misfit(modules: Mapping[str, ModuleShape], routers: Mapping[str, tuple[int, ...]]) -> str | None:
    """Why routers of these shapes are not those of these modules, or None where each is (experts, inputs).

    All modules are linear, of one rank and one number of experts, which divides the rank.
    """
    for module in [*modules, *routers]:
        if module not in routers:
            return f"{module} has no router"
        if module not in modules:
            return f"there is a router of {module}, but no factors"
    first = next(iter(modules))
    for module, shape in modules.items():
        router, of_first = routers[module], routers[first]
        if shape.layer.kind != "linear":
            return f"{module} has a router, but is {shape.layer.kind}"
        if len(router) != 2 or router[1] != shape.inputs or router[0] < 1:
            return f"the router of {module} is {list(router)}, not (experts, {shape.inputs})"
        if router[0] != of_first[0]:
            return f"{module} has {router[0]} experts, {first} {of_first[0]}"
        if shape.rank != modules[first].rank:
            return f"{module} has rank {shape.rank}, {first} {modules[first].rank}"
        if shape.rank % router[0]:
            return f"{module} has rank {shape.rank}, which {router[0]} experts cannot share evenly"
    return None


def router_digest(router: Float32, rank: int) -> bytes:
    """SHA-256 of one module's router; the rank tells where each expert's factors begin."""
    digest = hashlib.sha256(f"router {len(router)} {rank}\n".encode())
    digest.update(np.ascontiguousarray(router, dtype="<f4").data)
    return digest.digest()


def no_one_delta(name: str) -> Refusal:
    """The refusal of experts where plain LoRA is wanted."""
    return Refusal(
        f"{name} is a mixture of experts: its update depends on the input, so that no one B A holds it",
        "score it with pamctl eval, or train on from it with --method moelora; "
        "a method that trains one LoRA, such as pam, gives what can be merged and converted",
    )
