"""What the tests of whole merges share: adapters at rest in every format, every method in every variant."""

import itertools
import json
import math
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray
from safetensors.numpy import save_file

from pamctl.adapters import Adapter, LoraFactors, open_adapter, write_adapter
from pamctl.adapters.formats.written import WriteOptions
from pamctl.merging import Recipe, execute, plan_merge
from pamctl.merging.methods import method_named
from pamctl.merging.methods.method import Method
from tests.adapter_cases import delta

Float64 = NDArray[np.float64]
Deltas = dict[str, Float64]
"""Of each module by its id, whose dots are `_`, as kohya's files leave them."""

SIZES = {
    "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q": (6, 9),
    "mid_block.attentions.0.proj_in": (8, 8),
    "up_blocks.1.attentions.2.proj_out": (7, 5),
}
"""(outputs, inputs) of modules that every format can name."""

AT_REST = ("peft", "kohya", "diffusers", "mlx")
FORMATS = ("memory", *AT_REST, "orbax")
NUMPY_DTYPES: dict[str, Any] = {"F32": np.float32, "F16": np.float16, "BF16": ml_dtypes.bfloat16}
SCALES = (0.25, 1.0, 2.0, 4.0)
ALL_OF_IT = 100
"""A rank that cuts nothing from a delta of `SIZES`."""


def flat(module: str) -> str:
    return module.replace(".", "_")


@dataclass(frozen=True)
class Input:
    """An adapter as its writer knows it.

    Args:
        modules: A (rank, inputs), B (outputs, rank), as they are at rest, and alpha / rank.
        format: one of `FORMATS`, `memory` for one that is in no file.
        rslora: alpha is divided by the square root of the rank instead; peft alone has that.
    """

    modules: Mapping[str, tuple[Any, Any, float]]
    format: str = "memory"
    dtype: str = "F32"
    rslora: bool = False

    def scale(self, module: str) -> float:
        a, _, scale = self.modules[module]
        return scale * math.sqrt(len(a)) if self.rslora else scale

    def deltas(self) -> Deltas:
        """scale · B @ A in float64, from the numbers at rest and with nothing of pamctl."""
        return {
            flat(module): self.scale(module) * b.astype(np.float64) @ a.astype(np.float64)
            for module, (a, b, _) in self.modules.items()
        }

    def times(self, factor: float) -> "Input":
        return replace(
            self, modules={module: (a, b, factor * scale) for module, (a, b, scale) in self.modules.items()}
        )

    def opened(self, folder: Path) -> Adapter:
        """The adapter, written to the folder as its format's own program would write it."""
        return _OPENED[self.format](self, folder)


def _in_memory(given: Input, folder: Path) -> Adapter:
    return Adapter(
        {
            module: LoraFactors(a.astype(np.float32), b.astype(np.float32), given.scale(module))
            for module, (a, b, _) in given.modules.items()
        }
    )


def _peft(given: Input, folder: Path) -> Adapter:
    tensors, ranks, alphas = {}, {}, {}
    for module, (a, b, scale) in given.modules.items():
        tensors[f"base_model.model.{module}.lora_A.weight"] = a
        tensors[f"base_model.model.{module}.lora_B.weight"] = b
        ranks[module], alphas[module] = len(a), scale * len(a)
    first = next(iter(given.modules))
    config = {
        "peft_type": "LORA",
        "r": ranks[first],
        "lora_alpha": alphas[first],
        "use_rslora": given.rslora,
        "rank_pattern": {name: rank for name, rank in ranks.items() if rank != ranks[first]},
        "alpha_pattern": {name: alpha for name, alpha in alphas.items() if alpha != alphas[first]},
        "target_modules": list(given.modules),
    }
    (folder / "adapter_config.json").write_text(json.dumps(config))
    save_file(tensors, folder / "adapter_model.safetensors")
    return open_adapter(folder)


def _kohya(given: Input, folder: Path) -> Adapter:
    tensors = dict[str, Any]()
    for module, (a, b, scale) in given.modules.items():
        name = f"lora_unet_{flat(module)}"
        tensors |= {f"{name}.lora_down.weight": a, f"{name}.lora_up.weight": b}
        tensors[f"{name}.alpha"] = np.asarray(scale * len(a), np.float32)
    save_file(tensors, folder / "kohya.safetensors")
    return open_adapter(folder / "kohya.safetensors")


def _diffusers(given: Input, folder: Path) -> Adapter:
    tensors = dict[str, Any]()
    for module, (a, b, scale) in given.modules.items():
        tensors |= {f"unet.{module}.lora.down.weight": a, f"unet.{module}.lora.up.weight": b}
        tensors[f"unet.{module}.alpha"] = np.asarray(scale * len(a), np.float32)
    save_file(tensors, folder / "pytorch_lora_weights.safetensors")
    return open_adapter(folder / "pytorch_lora_weights.safetensors")


def _mlx(given: Input, folder: Path) -> Adapter:
    rank = max(len(a) for a, _, _ in given.modules.values())
    tensors = {}
    for module, (a, b, scale) in given.modules.items():
        # a file has one rank and one scale: a module's own scale, a power of two, is exact in b
        missing, b = rank - len(a), b * b.dtype.type(scale / 2)
        tensors[f"{module}.lora_a"] = np.ascontiguousarray(np.pad(a, ((0, missing), (0, 0))).T)
        tensors[f"{module}.lora_b"] = np.ascontiguousarray(np.pad(b, ((0, 0), (0, missing))).T)
    config = {"fine_tune_type": "lora", "num_layers": 1, "lora_parameters": {"rank": rank, "scale": 2.0}}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    save_file(tensors, folder / "adapters.safetensors")
    return open_adapter(folder)


def _orbax(given: Input, folder: Path) -> Adapter:
    write_adapter(
        _in_memory(given, folder),
        folder / "checkpoint",
        "orbax",
        WriteOptions(dtype=given.dtype, compact=True),
    )
    return open_adapter(folder / "checkpoint")


_OPENED = {
    "memory": _in_memory,
    "peft": _peft,
    "kohya": _kohya,
    "diffusers": _diffusers,
    "mlx": _mlx,
    "orbax": _orbax,
}


def random_input(
    seed: int,
    *,
    ranks: Sequence[int] = (4,),
    scales: Sequence[float] = (1.0,),
    modules: Sequence[str] = tuple(SIZES),
    format: str = "memory",
    dtype: str = "F32",
    rslora: bool = False,
) -> Input:
    """An adapter of random numbers; ranks and scales are those of its modules in turn."""
    made = {}
    for i, module in enumerate(modules):
        rng, (outputs, inputs) = np.random.default_rng([seed, i]), SIZES[module]
        rank = ranks[i % len(ranks)]
        a, b = rng.standard_normal((rank, inputs)), rng.standard_normal((outputs, rank))
        to = NUMPY_DTYPES[dtype]
        made[module] = (a.astype(to), b.astype(to), scales[i % len(scales)])
    return Input(made, format, dtype, rslora)


# one draw of three, which is faster than three draws
_RANKS = st.sampled_from(list(itertools.product(range(1, 7), repeat=len(SIZES))))
_SCALES = st.sampled_from(list(itertools.product(SCALES, repeat=len(SIZES))))


@st.composite
def inputs(
    draw: st.DrawFn,
    least: int = 2,
    most: int = 3,
    *,
    formats: Sequence[str] = ("memory",) * 3 + AT_REST,
    dtypes: Sequence[str] = tuple(NUMPY_DTYPES),
    alike: bool = False,
    everywhere: bool = True,
) -> list[Input]:
    """Adapters of 1 to 3 modules in mixed formats, dtypes, ranks and scales, rsLoRA among them.

    Args:
        formats: to choose from; orbax takes a sixth of a second to write and has to be asked for.
        alike: all have the same modules and one rank, so that factors can be merged.
        everywhere: all have the same modules; else each has the first and some of the others.
    """
    seed = draw(st.integers(0, 2**20))
    count, modules = draw(st.integers(least, most)), tuple(SIZES)[: draw(st.integers(1, len(SIZES)))]
    same = [draw(st.integers(1, 6))]
    made = []
    for i in range(count):
        format = draw(st.sampled_from(formats))
        others = () if everywhere or alike else draw(st.sets(st.sampled_from(modules)))
        own = tuple(m for m in modules if everywhere or alike or m == modules[0] or m in others)
        made.append(
            random_input(
                1000 * seed + i,
                ranks=same if alike else draw(_RANKS),
                scales=draw(_SCALES),
                modules=own,
                format=format,
                dtype=draw(st.sampled_from(dtypes)),
                rslora=format == "peft" and draw(st.booleans()),
            )
        )
    return made


@contextmanager
def opened(given: Sequence[Input]) -> Iterator[list[Adapter]]:
    """The adapters, as long as their files are there."""
    if all(each.format == "memory" for each in given):
        yield [each.opened(Path()) for each in given]
        return
    with tempfile.TemporaryDirectory() as name:
        adapters = []
        for i, each in enumerate(given):
            folder = Path(name) / str(i)
            folder.mkdir()
            adapters.append(each.opened(folder))
        yield adapters


def deltas_of(adapter: Adapter) -> Deltas:
    return {flat(module): delta(factors) for module, factors in adapter.modules.items()}


def bits_of(adapter: Adapter) -> dict[str, bytes]:
    """Of each module the bytes of both factors."""
    return {
        flat(module): factors.a.tobytes() + factors.b.tobytes() for module, factors in adapter.modules.items()
    }


def with_zeros(deltas: Sequence[Deltas]) -> list[Deltas]:
    """Every module in each; where one does not have it, zeros."""
    shapes = {module: values.shape for each in deltas for module, values in each.items()}
    return [{m: each.get(m, np.zeros(shape)) for m, shape in sorted(shapes.items())} for each in deltas]


def largest(deltas: Sequence[Deltas], weights: Sequence[float] | None = None) -> dict[str, float]:
    """Of each module how large an element of a weighted sum can be: what rounding is measured by."""
    weights = weights or [1.0] * len(deltas)
    return {
        module: sum(
            max(abs(w), 1) * float(np.abs(each[module]).max())
            for w, each in zip(weights, deltas, strict=True)
        )
        for module in deltas[0]
    }


def assert_same(
    found: Deltas, expected: Mapping[str, Any], sizes: Mapping[str, float], rtol: float = 2e-5
) -> None:
    """Deltas that differ by no more than float32 arithmetic on numbers of these sizes."""
    assert found.keys() == expected.keys()
    for module, values in found.items():
        np.testing.assert_allclose(
            values, expected[module], rtol=0, atol=rtol * sizes[module], err_msg=module
        )


@dataclass(frozen=True)
class Case:
    """A method in one of its variants with some parameters.

    Args:
        parameters: `lambda_` stands for lambda.
        copies: the weight at which N copies of an adapter give it back: 1, or 1/N where they are summed;
            None where they do not at either.
    """

    name: str
    parameters: Mapping[str, Any] = field(default_factory=dict)
    variant: str | None = None
    copies: str | None = "one"

    @property
    def method(self) -> Method:
        return method_named(self.name)

    @property
    def options(self) -> dict[str, Any]:
        """Fields of a recipe, and arguments of `merge`."""
        given = {name.rstrip("_"): value for name, value in self.parameters.items()}
        return {"method": self.name, "variant": self.variant, "parameters": given}

    @property
    def lossless(self) -> dict[str, Any]:
        """Options for a result of which no rank is cut away."""
        cut = {} if self.method.exact_rank else {"rank": ALL_OF_IT, "svd": "full"}
        return {"space": "delta", **cut}

    @property
    def weighted(self) -> bool:
        return self.name not in ("running-average", "slerp", "model-stock")

    @property
    def most(self) -> int:
        return self.method.most or 3

    def merged(self, adapters: Sequence[Adapter], weights: Any = None, **options: Any) -> Adapter:
        """As `merge` does it, but in one thread, which for modules so small is faster."""
        recipe = Recipe(weights=weights and tuple(weights), **self.options | options)
        return execute(plan_merge(adapters, recipe, workers=1)).adapter

    def __str__(self) -> str:
        values = [f"{name.rstrip('_')}={value}" for name, value in self.parameters.items()]
        return " ".join([self.name, *filter(None, [self.variant]), *values])


def case(name: str, variant: str | None = None, copies: str | None = "one", **parameters: Any) -> Case:
    return Case(name, parameters, variant, copies)


CASES = [
    case("average"),
    case("running-average", count=3),
    case("linear", "paper", "share"),
    case("linear", "mergekit"),
    case("task-arithmetic", None, "share"),
    case("cat", None, "share"),
    case("svd", None, "share"),
    case("ties", "paper", density=1.0),
    case("ties", "peft", density=1.0),
    case("ties", "mergekit", density=1.0),
    case("ties", "paper", density=1.0, merge="sum", copies="share"),
    case("ties", "mergekit", density=1.0, sign="frequency", merge="max"),
    case("magnitude-prune", None, "share", density=1.0),
    case("dare-linear", "paper", "share", density=1.0),
    case("dare-linear", "mergekit", "share", density=1.0),
    case("dare-ties", "peft", density=1.0),
    case("dare-ties", "mergekit", "share", density=1.0),
    case("della", "paper", density=1.0),
    case("della", "mergekit", density=1.0),
    case("della-linear", "paper", "share", density=1.0),
    case("della-linear", "mergekit", "share", density=1.0),
    case("breadcrumbs", "paper", "share", density=1.0, gamma=0.0),
    case("breadcrumbs", "mergekit", "share", density=1.0, gamma=0.0),
    case("breadcrumbs-ties", "paper", density=1.0, gamma=0.0),
    case("breadcrumbs-ties", "mergekit", "share", density=1.0, gamma=0.0),
    case("magmax"),
    case("tall"),
    case("consensus", None, "share"),
    case("sce"),
    case("slerp", t=0.3),
    case("nuslerp"),
    case("nuslerp", row_wise=True),
    case("multislerp"),
    case("karcher"),
    case("nearswap", t=0.5),
    case("model-stock"),
    case("model-stock", filter_wise=True),
    case("knots", inner="ties", density=1.0),
    case("knots", inner="average", stack="inputs"),
    case("core", inner="ties", density=1.0),
    case("core", inner="task-arithmetic", copies="share"),
    case("tsv"),
    case("iso-c", None, None),
    case("iso-cts", None, None, common_space_fraction=0.5),
    case("cart"),
    case("opcm"),
]
"""Every method in every variant, so set that what an adapter has it keeps."""

PARTIAL = [
    case("ties", "paper", density=0.5),
    case("ties", "peft", density=0.5),
    case("ties", "mergekit", density=0.25),
    case("ties", "mergekit", density=0.75, scope="global", lambda_=0.5),
    case("magnitude-prune", density=0.5),
    case("magnitude-prune", density=0.25, scope="global", lambda_=2.0),
    case("breadcrumbs", "paper", density=0.5, gamma=0.25),
    case("breadcrumbs", "mergekit", density=0.5, gamma=0.25),
    case("breadcrumbs", "mergekit", density=0.9, gamma=0.25),
    case("breadcrumbs-ties", "paper", density=0.5, gamma=0.25),
    case("breadcrumbs-ties", "mergekit", density=0.5, gamma=0.25),
    case("consensus", k=1, lambda_=0.6, alpha=0.5),
    case("sce", select_topk=0.5),
    case("multislerp", normalize_weights=False),
    case("knots", inner="ties", density=0.5, scope="global"),
    case("knots", inner="magnitude-prune", density=0.5, stack="inputs", scope="tensor"),
    case("core", inner="ties", density=0.5, scope="tensor"),
    case("core", inner="magmax"),
    case("tsv", k=2),
    case("iso-c", alpha=0.5),
    case("iso-cts", common_space_fraction=0.2),
    case("cart", rho=0.3, lambda_=0.7),
    case("opcm", alpha=0.8),
]
"""Deterministic methods that drop, select or cut."""

RANDOM = [
    case("dare-linear", "paper", density=0.5),
    case("dare-linear", "mergekit", density=0.5),
    case("dare-ties", "peft", density=0.5),
    case("dare-ties", "mergekit", density=0.5),
    case("della", "paper", density=0.5),
    case("della", "mergekit", density=0.5),
    case("della-linear", "paper", density=0.5),
    case("della-linear", "mergekit", density=0.5),
    case("knots", inner="dare-ties", density=0.5),
    case("core", inner="dare-linear", density=0.5),
]
"""Methods that draw random numbers."""
