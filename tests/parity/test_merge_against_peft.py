"""Whole merges against peft's `add_weighted_adapter`, from adapters that peft saved to what each side writes.

Where peft does not compute the weighted sum that it promises, the test says so by name, and where releases of
it differ, what the one at hand does is measured first.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pamctl.adapters import Adapter, open_adapter
from pamctl.adapters.formats.written import WriteOptions
from pamctl.merging import merge
from pamctl.merging.methods import NAMES, method_named
from pamctl.merging.random_numbers import Draws
from tests.adapter_cases import delta
from tests.parity.test_peft_adapters import loaded_whole, written

torch = pytest.importorskip("torch")
peft = pytest.importorskip("peft")

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning"),
    pytest.mark.filterwarnings("ignore:The density .* no pruning will be performed:UserWarning"),
    pytest.mark.filterwarnings("ignore:Using Rank-Stabilized LoRA with rank_pattern:UserWarning"),
]

Deltas = dict[str, Any]
MODULES = ["embed", "patches", "narrow", "square", "head"]


class Tiny(torch.nn.Module):  # type: ignore[name-defined]
    """An embedding, a convolution and linear layers that are wide, square and tall."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = torch.nn.Embedding(11, 8)
        self.patches = torch.nn.Conv2d(8, 6, (3, 2))
        self.narrow = torch.nn.Linear(36, 12)
        self.square = torch.nn.Linear(12, 12)
        self.head = torch.nn.Linear(12, 17)

    def forward(self, ids: Any) -> Any:
        x = self.patches(self.embed(ids).transpose(1, 2).reshape(-1, 8, 4, 4))
        return self.head(torch.tanh(self.square(torch.tanh(self.narrow(x.flatten(1))))))


def tiny() -> Any:
    torch.manual_seed(0)
    return Tiny().eval()


def of_tiny(model: Any) -> Any:
    torch.manual_seed(1)
    with torch.no_grad():
        return model(torch.randint(11, (3, 16)))


def saved_by_peft(folder: Path, seed: int, **config: Any) -> Path:
    """A random adapter of `Tiny`, as training would have left it, but for the training."""
    config = {"target_modules": MODULES, **config}
    model = peft.get_peft_model(tiny(), peft.LoraConfig(**config))
    torch.manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.normal_(std=0.3)
    model.save_pretrained(folder, save_embedding_layers=False)
    return folder


@dataclass(frozen=True)
class Theirs:
    """What peft made of two adapters.

    Args:
        deltas: read back from the folder that it saved.
        scale: with which it applies the factors that it merged; 1 would be right.
    """

    deltas: Deltas
    scale: float


def both_loaded(folders: Sequence[Path]) -> Any:
    model = peft.PeftModel.from_pretrained(tiny(), folders[0], adapter_name="0")
    for i, folder in enumerate(folders[1:], start=1):
        model.load_adapter(folder, adapter_name=str(i))
    return model.eval()


def lora_layers(model: Any) -> dict[str, Any]:
    return {
        name.removeprefix("base_model.model."): layer
        for name, layer in model.named_modules()
        if hasattr(layer, "get_delta_weight")
    }


def merged_by_peft(model: Any, weights: Sequence[float], kind: str, into: Path, **options: Any) -> Theirs:
    names = [str(i) for i in range(len(weights))]
    model.add_weighted_adapter(names, list(weights), "merged", combination_type=kind, **options)
    model.save_pretrained(into, selected_adapters=["merged"], save_embedding_layers=False)
    (scale,) = {layer.scaling["merged"] for layer in lora_layers(model).values()}
    model.delete_adapter("merged")  # else the next would silently be this one again
    return Theirs(dense(open_adapter(into / "merged")), scale)


def merged_by_us(
    folders: Sequence[Path], weights: Sequence[float] | None, method: str, into: Path, **options: Any
) -> Deltas:
    adapters = [open_adapter(folder) for folder in folders]
    return dense(open_adapter(written(merge(adapters, method, weights, **options), into)))


def dense(adapter: Adapter) -> Deltas:
    return {module: delta(factors) for module, factors in adapter.modules.items()}


def times(scale: float, deltas: Deltas) -> Deltas:
    return {module: scale * each for module, each in deltas.items()}


def size(deltas: Deltas) -> float:
    return math.sqrt(sum(float((each**2).sum()) for each in deltas.values()))


def assert_same(ours: Deltas, theirs: Deltas, tolerance: float = 1e-5) -> None:
    assert ours.keys() == theirs.keys()
    for module, expected in theirs.items():
        off, whole = np.linalg.norm(ours[module] - expected), np.linalg.norm(expected)
        assert off <= tolerance * whole, f"{module} is off by {off / whole:.3g}"


class OurDraws:
    """Stands in for torch.bernoulli: one call after the other keeps what the draws of our merge keep.

    peft goes through the modules in the order of the model, and draws once for each adapter and tensor of it.
    """

    def __init__(self, model: Any, folders: Sequence[Path], tensors: Sequence[str]) -> None:
        adapters = [open_adapter(folder) for folder in folders]
        self.numbers: Iterator[tuple[Draws, bool]] = iter(
            [
                (
                    Draws(0, adapter.claimed_fingerprint, f"{module} {tensor}".replace(".", "_")),
                    (module, tensor) == ("embed", "delta"),  # peft turns the deltas of embeddings
                )
                for module in lora_layers(model)
                for tensor in tensors
                for adapter in adapters
                if module in adapter.shapes
            ]
        )

    def __call__(self, probabilities: Any) -> Any:
        draws, turned = next(self.numbers)
        shape = tuple(reversed(probabilities.shape)) if turned else tuple(probabilities.shape)
        numbers = torch.from_numpy(draws.numbers(0, math.prod(shape)).reshape(shape))
        return ((numbers.T if turned else numbers) < probabilities).to(probabilities.dtype)


@dataclass(frozen=True)
class Kind:
    """A combination type of peft, and the method that is its like.

    Args:
        options: of `add_weighted_adapter`.
        parameters: of the method.
    """

    combination: str
    method: str
    variant: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    parameters: Mapping[str, Any] = field(default_factory=dict)

    @property
    def tensors(self) -> tuple[str, ...]:
        return ("delta",) if self.combination.endswith("svd") else ("a", "b")


def kind(combination: str, method: str, variant: str | None = None, **both: Any) -> Kind:
    """A kind whose options are called alike on both sides, but for `sign`."""
    options = {{"sign": "majority_sign_method"}.get(name, name): value for name, value in both.items()}
    return Kind(combination, method, variant, options, both)


PAIRS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "other ranks and alphas": ({"r": 2, "lora_alpha": 7}, {"r": 5, "lora_alpha": 3}),
    "the first by rsLoRA": ({"r": 3, "lora_alpha": 6, "use_rslora": True}, {"r": 4, "lora_alpha": 4}),
    "the second by rsLoRA": ({"r": 3, "lora_alpha": 6}, {"r": 4, "lora_alpha": 4, "use_rslora": True}),
    "patterns of ranks and alphas": (
        {"r": 3, "rank_pattern": {"square": 5, "embed": 1}, "alpha_pattern": {"narrow": 1}},
        {"r": 2, "lora_alpha": 9, "rank_pattern": {"patches": 4}},
    ),
    "other modules": (
        {"r": 3, "lora_alpha": 2, "target_modules": MODULES[:-1]},
        {"r": 2, "lora_alpha": 5, "target_modules": MODULES[1:]},
    ),
}
WEIGHTS = {
    "other ranks and alphas": (1.0, 1.0),
    "the first by rsLoRA": (0.7, 0.2),
    "the second by rsLoRA": (0.7, -0.4),
    "patterns of ranks and alphas": (-1.3, 0.6),
    "other modules": (0.7, 0.3),
}
OF_DELTAS = {
    "cat": kind("cat", "cat"),
    "svd": kind("svd", "svd"),
    "svd to rank 1": Kind("svd", "svd", options={"svd_rank": 1}, parameters={"rank": 1}),
    "ties_svd": kind("ties_svd", "ties", "peft", density=0.4),
    "ties_svd by frequency": kind("ties_svd", "ties", "peft", density=0.7, sign="frequency"),
    "ties_svd of everything": kind("ties_svd", "ties", "peft", density=1.0),
    "magnitude_prune_svd": kind("magnitude_prune_svd", "magnitude-prune", density=0.4),
    "magnitude_prune_svd of everything": kind("magnitude_prune_svd", "magnitude-prune", density=1.0),
    "dare_linear_svd": kind("dare_linear_svd", "dare-linear", density=0.6),
    "dare_linear_svd of everything": kind("dare_linear_svd", "dare-linear", density=1.0),
    "dare_ties_svd": kind("dare_ties_svd", "dare-ties", "peft", density=0.6),
    "dare_ties_svd by frequency": kind("dare_ties_svd", "dare-ties", "peft", density=0.6, sign="frequency"),
    "dare_ties_svd of everything": kind("dare_ties_svd", "dare-ties", "peft", density=1.0),
}


@dataclass(frozen=True)
class Pair:
    """Two folders of peft, their configurations, the weights to merge them with, and a model with both."""

    folders: list[Path]
    configs: Sequence[Mapping[str, Any]]
    weights: tuple[float, float]
    model: Any

    @property
    def rank(self) -> int | None:
        """To which peft cuts: the largest rank that any module has; None where it is that of each module."""
        ranks = [max(config["r"], *config.get("rank_pattern", {0: 0}).values()) for config in self.configs]
        modules = {tuple(config.get("target_modules", MODULES)) for config in self.configs}
        alike = len(modules) == 1 and not any("rank_pattern" in config for config in self.configs)
        return None if alike else max(ranks)


@pytest.fixture(scope="module", params=PAIRS)
def pair(request: Any, tmp_path_factory: Any) -> Pair:
    folder, configs = tmp_path_factory.mktemp("pair"), PAIRS[request.param]
    folders = [saved_by_peft(folder / str(i), i, **config) for i, config in enumerate(configs)]
    return Pair(folders, configs, WEIGHTS[request.param], both_loaded(folders))


@pytest.fixture(scope="module")
def times_scaled(tmp_path_factory: Any) -> int:
    """How often this peft multiplies by an adapter's scale where it merges deltas: 1, or 2 up to 0.20.0."""
    folder = tmp_path_factory.mktemp("scaled")
    inputs = [saved_by_peft(folder / str(i), i, r=2, lora_alpha=8) for i in range(2)]
    theirs = merged_by_peft(both_loaded(inputs), (1.0, 0.0), "svd", folder / "theirs")
    return round(math.log(size(theirs.deltas) / size(dense(open_adapter(inputs[0]))), 4)) + 1


@pytest.mark.parametrize("name", OF_DELTAS)
def test_deltas_are_merged_as_peft_merges_them(
    name: str, pair: Pair, times_scaled: int, tmp_path: Path
) -> None:
    of_peft, weights = OF_DELTAS[name], pair.weights
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(torch, "bernoulli", OurDraws(pair.model, pair.folders, of_peft.tensors))
        theirs = merged_by_peft(
            pair.model, weights, of_peft.combination, tmp_path / "theirs", **of_peft.options
        )
    parameters = dict(of_peft.parameters)
    rank = parameters.pop("rank", None if of_peft.method == "cat" else pair.rank)
    ours = merged_by_us(
        pair.folders,
        _as_peft_weighs(weights, pair.configs, of_peft, times_scaled),
        of_peft.method,
        tmp_path / "ours",
        space="delta",
        svd="full",
        variant=of_peft.variant,
        rank=rank,
        parameters=parameters,
    )
    assert theirs.scale in (1.0, pytest.approx(_inherited_scale(pair.folders, tmp_path / "theirs")))
    assert_same(times(theirs.scale, ours), theirs.deltas)


def _as_peft_weighs(
    weights: Sequence[float], configs: Sequence[Mapping[str, Any]], of_peft: Kind, times_scaled: int
) -> list[float]:
    """The weights that give what peft gives: times the scale once more where it scales twice."""
    if times_scaled == 1 or not of_peft.combination.endswith("svd"):
        return list(weights)
    if any("rank_pattern" in config for config in configs):
        pytest.skip(f"peft {peft.__version__} scales twice, and here each module has a scale of its own")
    scales = [
        config.get("lora_alpha", 8) / (math.sqrt(config["r"]) if config.get("use_rslora") else config["r"])
        for config in configs
    ]
    return [weight * scale for weight, scale in zip(weights, scales, strict=True)]


def _inherited_scale(folders: Sequence[Path], theirs: Path) -> float:
    """The first adapter's `use_rslora` stays with a result of alpha = r and makes it sqrt(r) too strong."""
    first = open_adapter(folders[0]).origin
    result = open_adapter(theirs / "merged").origin
    assert first is not None
    assert result is not None
    return math.sqrt(result.settings["r"]) if first.settings["use_rslora"] else 1.0


def test_svd_clamps_as_peft_does(tmp_path: Path) -> None:
    """peft's limit hangs on the signs of singular vectors, LAPACK's whim: here they are set as ours are."""
    folders = [saved_by_peft(tmp_path / str(i), i, r=2 + i, lora_alpha=2 + i) for i in range(2)]
    plain = torch.linalg.svd

    def signed(matrix: Any, **options: Any) -> Any:
        u, s, vh = plain(matrix, full_matrices=False)
        signs = torch.sign(u[u.abs().argmax(dim=0), torch.arange(u.shape[1])])
        return u * signs, s, vh * signs[:, None]

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(torch.linalg, "svd", signed)
        theirs = merged_by_peft(both_loaded(folders), (1, 1), "svd", tmp_path / "theirs", svd_clamp=0.9)
    ours = merged_by_us(folders, None, "svd", tmp_path / "ours", parameters={"clamp": 0.9})
    assert_same(ours, theirs.deltas)


EQUAL_RANKS = ({"r": 3, "lora_alpha": 2}, {"r": 3, "lora_alpha": 8})
EQUAL_SCALES = ({"r": 3, "lora_alpha": 6}, {"r": 3, "lora_alpha": 6})
OF_FACTORS = {
    "linear": kind("linear", "linear", "peft"),
    "ties": kind("ties", "ties", "peft", density=0.4),
    "ties by frequency": kind("ties", "ties", "peft", density=0.7, sign="frequency"),
    "ties of everything": kind("ties", "ties", "peft", density=1.0),
    "dare_ties": kind("dare_ties", "dare-ties", "peft", density=0.6),
}
SUMS_OF_FACTORS = {
    "magnitude_prune": kind("magnitude_prune", "magnitude-prune", density=0.4),
    "dare_linear": kind("dare_linear", "dare-linear", density=0.6),
    "dare_linear of everything": kind("dare_linear", "dare-linear", density=1.0),
}


def of_factors(
    of_peft: Kind, configs: Sequence[Mapping[str, Any]], weights: Sequence[float], tmp_path: Path
) -> tuple[list[Path], Theirs]:
    folders = [saved_by_peft(tmp_path / str(i), i, **config) for i, config in enumerate(configs)]
    model = both_loaded(folders)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(torch, "bernoulli", OurDraws(model, folders, of_peft.tensors))
        return folders, merged_by_peft(
            model, weights, of_peft.combination, tmp_path / "theirs", **of_peft.options
        )


@pytest.mark.parametrize("weights", [(0.7, 0.2), (1.0, -0.4)])
@pytest.mark.parametrize("name", OF_FACTORS)
def test_the_variant_peft_merges_factors_as_peft_does(
    name: str, weights: tuple[float, float], tmp_path: Path
) -> None:
    """With square roots of weight · scale on either side, so that the results have cross terms."""
    of_peft = OF_FACTORS[name]
    folders, theirs = of_factors(of_peft, EQUAL_RANKS, weights, tmp_path)
    options = {"space": "factor", "variant": "peft", "parameters": of_peft.parameters}
    assert_same(merged_by_us(folders, weights, of_peft.method, tmp_path / "ours", **options), theirs.deltas)


@pytest.mark.parametrize("name", SUMS_OF_FACTORS)
def test_sums_of_factors_are_those_of_peft_at_the_square_roots_of_its_weights(
    name: str, tmp_path: Path
) -> None:
    """These have no variant `peft`: at equal scales its square roots are all that sets them apart."""
    of_peft, weights = SUMS_OF_FACTORS[name], (0.7, 0.2)
    folders, theirs = of_factors(of_peft, EQUAL_SCALES, weights, tmp_path)
    roots = [math.sqrt(weight) for weight in weights]
    options = {"space": "factor", "parameters": of_peft.parameters}
    assert_same(merged_by_us(folders, roots, of_peft.method, tmp_path / "ours", **options), theirs.deltas)


@pytest.mark.parametrize("weight", [1.0, 0.3, -2.0])
@pytest.mark.parametrize("name", ["other ranks and alphas", "the first by rsLoRA", "other modules"])
def test_linear_with_one_adapter_reweighs_it(name: str, weight: float, tmp_path: Path) -> None:
    """The one case in which peft's linear is linear; one adapter is always merged by it."""
    folders = [saved_by_peft(tmp_path / str(i), i, **config) for i, config in enumerate(PAIRS[name])]
    theirs = merged_by_peft(both_loaded(folders[:1]), [weight], "svd", tmp_path / "theirs")
    alone = dense(open_adapter(folders[0]))
    assert_same(times(theirs.scale * weight, alone), theirs.deltas)
    ours = merged_by_us(folders, [weight, 0.0], "linear", tmp_path / "ours", space="delta")
    nothing = {module: 0.0 * each for module, each in ours.items() if module not in alone}
    assert_same(ours, times(weight, alone) | nothing)


@pytest.fixture
def copies(tmp_path: Path) -> list[Path]:
    """One adapter twice, of scale 4."""
    return [saved_by_peft(tmp_path / str(i), 0, r=2, lora_alpha=8) for i in range(2)]


class TestFaultsOfPeft:
    def test_releases_up_to_0_20_0_scale_merged_deltas_twice(
        self, times_scaled: int, copies: list[Path], tmp_path: Path
    ) -> None:
        assert times_scaled in (1, 2)
        theirs = merged_by_peft(both_loaded(copies), (0.5, 0.5), "svd", tmp_path / "theirs")
        alone = dense(open_adapter(copies[0]))
        told = f"peft {peft.__version__} scales {times_scaled} times"
        assert size(theirs.deltas) == pytest.approx(4 ** (times_scaled - 1) * size(alone), rel=1e-5), told
        assert_same(merged_by_us(copies, (0.5, 0.5), "svd", tmp_path / "ours"), alone)

    def test_linear_has_cross_terms_so_that_two_copies_are_twice_as_strong(
        self, copies: list[Path], tmp_path: Path
    ) -> None:
        theirs = merged_by_peft(both_loaded(copies), (0.5, 0.5), "linear", tmp_path / "theirs")
        alone = dense(open_adapter(copies[0]))
        assert_same(theirs.deltas, times(2, alone))
        assert_same(merged_by_us(copies, (0.5, 0.5), "linear", tmp_path / "ours", space="delta"), alone)

    def test_ties_divides_by_how_many_agree_so_that_weights_of_a_half_halve_it(
        self, copies: list[Path], times_scaled: int, tmp_path: Path
    ) -> None:
        theirs = merged_by_peft(both_loaded(copies), (0.5, 0.5), "ties_svd", tmp_path / "theirs", density=1.0)
        alone, options = dense(open_adapter(copies[0])), {"space": "delta", "parameters": {"density": 1.0}}
        assert_same(theirs.deltas, times(0.5 * 4 ** (times_scaled - 1), alone))
        for variant, share in (("peft", 0.5), ("paper", 1.0), ("mergekit", 1.0)):
            ours = merged_by_us(
                copies, (0.5, 0.5), "ties", tmp_path / variant, variant=variant, svd="full", **options
            )
            assert_same(ours, times(share, alone))

    def test_each_tensor_is_trimmed_by_itself_so_that_weak_modules_keep_as_much_as_strong_ones(
        self, tmp_path: Path
    ) -> None:
        weak = {"alpha_pattern": {"square": 0.003}, "r": 3, "lora_alpha": 3}
        folders = [saved_by_peft(tmp_path / str(i), i, **weak) for i in range(2)]
        model = both_loaded(folders)
        theirs = merged_by_peft(model, (1, 1), "ties_svd", tmp_path / "theirs", density=0.2)
        options = {"space": "delta", "svd": "full", "parameters": {"density": 0.2}}
        ours = merged_by_us(folders, None, "ties", tmp_path / "ours", variant="paper", **options)
        assert not ours["square"].any()
        assert theirs.deltas["square"].any()

    def test_a_density_under_one_element_leaves_nothing(self, copies: list[Path], tmp_path: Path) -> None:
        density = 0.004  # of 88 to 432 elements
        theirs = merged_by_peft(
            both_loaded(copies), (1, 1), "magnitude_prune_svd", tmp_path / "theirs", density=density
        )
        ours = merged_by_us(
            copies, None, "magnitude-prune", tmp_path / "ours", space="delta", parameters={"density": density}
        )
        alone = dense(open_adapter(copies[0]))
        for module, whole in alone.items():
            kept = int(density * whole.size)
            assert bool(theirs.deltas[module].any()) == (kept > 0)
            largest = 2 * np.where(np.abs(whole) == np.abs(whole).max(), whole, 0)
            assert_same({module: ours[module]}, {module: largest})

    def test_rslora_is_left_to_a_result_that_is_scaled_already(self, tmp_path: Path) -> None:
        config = {"r": 4, "lora_alpha": 2, "use_rslora": True}
        folders = [saved_by_peft(tmp_path / str(i), 0, **config) for i in range(2)]
        theirs = merged_by_peft(both_loaded(folders), (0.5, 0.5), "cat", tmp_path / "theirs")
        alone = dense(open_adapter(folders[0]))
        assert theirs.scale in (1.0, pytest.approx(math.sqrt(8)))
        assert_same(theirs.deltas, times(theirs.scale, alone))
        assert_same(merged_by_us(folders, (0.5, 0.5), "cat", tmp_path / "ours"), alone)

    def test_patterns_of_ranks_make_linear_write_what_cannot_be_read(self, tmp_path: Path) -> None:
        config = {"r": 3, "lora_alpha": 3, "rank_pattern": {"square": 5}}
        folders = [saved_by_peft(tmp_path / str(i), i, **config) for i in range(2)]
        model = both_loaded(folders)
        model.add_weighted_adapter(["0", "1"], [1.0, 1.0], "merged", combination_type="linear")
        model.save_pretrained(tmp_path / "theirs", selected_adapters=["merged"], save_embedding_layers=False)
        adapters = [open_adapter(folder) for folder in folders]
        merged = merge(adapters, "linear", space="factor", variant="peft")
        whole = loaded_whole(tiny(), written(merged, tmp_path / "ours"))
        if not peft.LoraConfig.from_pretrained(tmp_path / "theirs" / "merged").rank_pattern:
            with pytest.raises(RuntimeError, match="size mismatch"):
                peft.PeftModel.from_pretrained(tiny(), tmp_path / "theirs" / "merged")
            return
        theirs = peft.PeftModel.from_pretrained(tiny(), tmp_path / "theirs" / "merged").eval()
        torch.testing.assert_close(of_tiny(whole), of_tiny(theirs))


def needed_by(method: str) -> dict[str, Any]:
    """What a method cannot do without."""
    return {"parameters": {"count": 2}} if method == "running-average" else {}


@pytest.fixture(scope="module")
def related(tmp_path_factory: Any) -> list[Adapter]:
    """Adapters of ranks 4, 2 and 3 that have something in common, the last without the head."""
    folder, adapters = tmp_path_factory.mktemp("related"), []
    common = dense(open_adapter(saved_by_peft(folder / "common", 9, r=2, lora_alpha=2)))
    assert set(common) == set(MODULES)
    for i, (rank, modules) in enumerate([(4, MODULES), (2, MODULES), (3, MODULES[:-1])]):
        config = {"r": rank, "lora_alpha": 2 * rank, "target_modules": modules}
        adapter = open_adapter(saved_by_peft(folder / str(i), i, **config))
        shared = open_adapter(folder / "common")
        present = Adapter({module: shared.modules[module] for module in adapter.shapes})
        mixed = merge([adapter, present], "linear", (0.5, 2.0), space="delta", rank=rank)
        adapters.append(open_adapter(written(mixed, folder / f"mixed {i}")))
    return adapters


def with_deltas_added(deltas: Deltas) -> Any:
    model = tiny().double()
    with torch.no_grad():
        for module, each in deltas.items():
            weight = getattr(model, module).weight
            turned = each.T if module == "embed" else each
            weight += torch.from_numpy(turned.reshape(weight.shape))
    return model


def assert_applied_whole(merged: Adapter, folder: Path, options: WriteOptions | None = None) -> None:
    """Assert that the adapter, written, is loaded whole and does what its deltas say."""
    loaded, deltas = loaded_whole(tiny(), written(merged, folder, options)).double(), dense(merged)
    assert any(each.any() for each in deltas.values())
    torch.testing.assert_close(of_tiny(loaded), of_tiny(with_deltas_added(deltas)), atol=1e-5, rtol=0)


@pytest.mark.parametrize("method", NAMES)
def test_every_method_writes_what_peft_loads_whole_and_applies(
    method: str, related: list[Adapter], tmp_path: Path
) -> None:
    inputs = related[: method_named(method).most]
    assert len({adapter.rank for adapter in inputs}) == len(inputs)
    assert_applied_whole(merge(inputs, method, space="delta", **needed_by(method)), tmp_path / "merged")


@pytest.mark.parametrize("method", ["linear", "ties", "della", "knots", "tsv"])
def test_a_rank_for_each_module_is_what_peft_loads_whole_and_applies(
    method: str, related: list[Adapter], tmp_path: Path
) -> None:
    merged = merge(related, method, space="delta", energy=0.9)
    assert len({shape.rank for shape in merged.shapes.values()}) > 1
    assert_applied_whole(merged, tmp_path / "merged", WriteOptions(compact=True))


@pytest.mark.parametrize("method", [name for name in NAMES if "factor" in method_named(name).spaces])
def test_every_method_on_factors_writes_what_peft_loads_whole_and_applies(
    method: str, tmp_path: Path
) -> None:
    config = {"r": 3, "lora_alpha": 6}
    inputs = [open_adapter(saved_by_peft(tmp_path / str(i), i, **config)) for i in range(2)]
    assert_applied_whole(merge(inputs, method, space="factor", **needed_by(method)), tmp_path / "merged")
