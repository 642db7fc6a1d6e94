"""Mixtures of experts on disk: written whole, opened only by who heeds the routers, damaged ones refused."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from pamctl import hub
from pamctl.adapters import Adapter, LoraFactors, Provenance, open_adapter, save_adapter, write_adapter
from pamctl.adapters.extra import Extra
from pamctl.adapters.factors import EMBEDDING, ComputedModules
from pamctl.adapters.formats import FORMATS
from pamctl.adapters.formats.written import WriteOptions
from pamctl.adapters.matching import RenamedAdapter
from pamctl.adapters.sources import locate
from pamctl.alignment import align
from pamctl.conversion import convert
from pamctl.merging import merge
from pamctl.refusal import Refusal, UsageRefusal
from tests.adapter_cases import Q_PROJ, SIZES, on_base, random_adapter, random_factors, saved, write_peft

EXPERTS = "experts.safetensors"
Tensors = dict[str, np.ndarray[Any, Any]]


def random_routers(experts: int = 2, seed: int = 0) -> dict[str, np.ndarray[Any, np.dtype[np.float32]]]:
    rng = np.random.default_rng(seed)
    return {
        module: rng.standard_normal((experts, inputs), np.float32) for module, (inputs, _) in SIZES.items()
    }


def random_experts(scale: float = 1.0, **record: Any) -> Adapter:
    """Two experts of rank 2 in each module."""
    modules = random_adapter(scale=scale).modules
    provenance = Provenance("trained", "trained", **record) if record else None
    return Adapter(modules, provenance, "tiny", "experts", routers=random_routers())


def test_a_folder_holds_factors_routers_record_and_card_and_no_config(tmp_path: Path) -> None:
    folder = saved(random_experts(0.5, tasks=("a",)), tmp_path / "experts")
    assert sorted(file.name for file in folder.iterdir()) == ["README.md", EXPERTS, "pamctl.json"]
    tensors = load_file(folder / EXPERTS)
    assert tensors.keys() == {f"{module}.{leaf}" for module in SIZES for leaf in ("a", "b", "router")}
    factors, router = random_adapter().modules[Q_PROJ], random_routers()[Q_PROJ]
    np.testing.assert_array_equal(tensors[f"{Q_PROJ}.a"], factors.a)
    np.testing.assert_array_equal(tensors[f"{Q_PROJ}.b"], 0.5 * factors.b)
    np.testing.assert_array_equal(tensors[f"{Q_PROJ}.router"], router)
    assert {tensor.dtype for tensor in tensors.values()} == {np.dtype(np.float32)}


def test_there_and_back(tmp_path: Path) -> None:
    adapter = random_experts(0.5, tasks=("a",), base=on_base("f" * 64))
    back = open_adapter(saved(adapter, tmp_path / "experts"), routers=True)
    assert back.fingerprint == adapter.fingerprint
    assert back.provenance is not None
    assert back.provenance.fingerprint == adapter.fingerprint
    assert (back.experts, back.rank, back.base_model, back.base_fingerprint) == (2, 4, "tiny", "f" * 64)
    assert back.parameters == adapter.parameters == sum(4 * (i + o) + 2 * i for i, o in SIZES.values())
    for module, router in random_routers().items():
        np.testing.assert_array_equal(back.routers[module], router)
        np.testing.assert_array_equal(back.modules[module].b, adapter.modules[module].folded().b)


def test_equal_adapters_give_equal_bytes(tmp_path: Path) -> None:
    one, other = (saved(random_experts(tasks=("a",)), tmp_path / name) for name in ("one", "other"))
    for file in one.iterdir():
        assert file.read_bytes() == (other / file.name).read_bytes()


def test_the_base_is_known_without_a_record(tmp_path: Path) -> None:
    folder = saved(random_experts(), tmp_path / "experts")
    assert not (folder / "pamctl.json").exists()
    assert open_adapter(folder / EXPERTS, routers=True).base_model == "tiny"


def test_routers_are_part_of_the_fingerprint() -> None:
    modules = random_adapter().modules
    plain = Adapter(modules)
    # of the release before there were routers
    assert plain.fingerprint == "ed850679ff86ecd49c8de45859783955ce9b1d1807c37879a7a84e72fdf2bff8"
    found = {plain.fingerprint, Adapter(modules, routers={}).fingerprint}
    assert len(found) == 1
    for experts, seed in ((2, 0), (2, 1), (4, 0)):
        found.add(Adapter(modules, routers=random_routers(experts, seed)).fingerprint)
    assert len(found) == 4


def test_where_an_expert_begins_is_part_of_the_fingerprint() -> None:
    """Two experts of rank 1, and two of rank 2 of which the first holds all that there is."""
    two = random_factors(0, 3, 3, 2)
    padded = LoraFactors(np.pad(two.a, ((0, 2), (0, 0))), np.pad(two.b, ((0, 0), (0, 2))))
    router = {"m": np.ones((2, 3), np.float32)}
    assert Adapter({"m": two}).fingerprint == Adapter({"m": padded}).fingerprint
    assert (
        Adapter({"m": two}, routers=router).fingerprint != Adapter({"m": padded}, routers=router).fingerprint
    )


def test_who_wants_plain_lora_is_refused(tmp_path: Path) -> None:
    folder = saved(random_experts(tasks=("a",)), tmp_path / "experts")
    for reference in (folder, folder / EXPERTS):
        with pytest.raises(Refusal, match="its update depends on the input, so that no one B A") as refused:
            open_adapter(reference)
        assert str(reference) in refused.value.what
        assert "pamctl eval" in refused.value.way_on


@pytest.mark.parametrize("format", FORMATS)
def test_no_format_of_plain_lora_takes_it(tmp_path: Path, format: str) -> None:
    with pytest.raises(Refusal, match="mixture of experts: its update depends on the input"):
        write_adapter(random_experts(), tmp_path / "out", format)
    assert not (tmp_path / "out").exists()


def test_plain_lora_is_not_written_as_experts(tmp_path: Path) -> None:
    with pytest.raises(UsageRefusal, match="format is 'experts'"):
        save_adapter(random_adapter(), tmp_path, "experts")


def test_it_is_written_as_f32_and_without_extras(tmp_path: Path) -> None:
    with pytest.raises(UsageRefusal, match="dtype is BF16"):
        save_adapter(random_experts(), tmp_path, options=WriteOptions(dtype="BF16"))
    head = Extra("module", (1,), "F32", lambda: np.ones(1, np.float32))
    carrying = Adapter(random_adapter().modules, extras={"lm_head.weight": head}, routers=random_routers())
    with pytest.raises(Refusal, match=r"such as lm_head.weight, for which a mixture of experts has no place"):
        save_adapter(carrying, tmp_path)
    assert not [*tmp_path.iterdir()]


def test_its_card_says_how_it_is_used(tmp_path: Path) -> None:
    text = (saved(random_experts(tasks=("a",)), tmp_path / "experts") / "README.md").read_text()
    assert "# Mixture of LoRA experts for `tiny`" in text
    assert "- experts: 2, which share the rank, and a router in each module" in text
    assert "pamctl eval ORG/NAME --task TASK" in text
    assert "- lora\n" not in text
    assert "merge" not in text
    assert "peft" not in text


def test_plain_lora_beside_it_is_not_taken_for_it(tmp_path: Path) -> None:
    folder = write_peft(saved(random_experts(), tmp_path / "experts"))
    assert locate(folder).weights.name == EXPERTS
    with pytest.raises(Refusal, match="mixture of experts"):
        open_adapter(folder)


def test_an_adapter_that_lies_deeper_is_named(tmp_path: Path) -> None:
    saved(random_experts(), tmp_path / "inner")
    with pytest.raises(Refusal) as refused:
        open_adapter(tmp_path, routers=True)
    assert refused.value.way_on == f"an adapter lies deeper: give {tmp_path}/inner"


def test_it_opens_from_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = saved(random_experts(tasks=("a",)), tmp_path / "cache")
    (folder / "optimizer.pt").write_bytes(b"not wanted")

    def fetch(reference: hub.HubReference, wanted: Callable[[list[str]], list[str]]) -> hub.Snapshot:
        names = tuple(sorted(path.name for path in folder.iterdir()))
        assert sorted(wanted([*names])) == [EXPERTS, "pamctl.json"]
        return hub.Snapshot(reference.repository, "0" * 40, folder, names)

    monkeypatch.setattr(hub, "fetch", fetch)
    opened = open_adapter("hf://org/name", routers=True)
    assert opened.fingerprint == random_experts().fingerprint
    with pytest.raises(Refusal, match="hf://org/name is a mixture of experts"):
        open_adapter("hf://org/name")


def without(*names: str) -> Callable[[Tensors], Tensors]:
    return lambda tensors: {name: values for name, values in tensors.items() if name not in names}


def with_(name: str, values: np.ndarray[Any, Any]) -> Callable[[Tensors], Tensors]:
    return lambda tensors: {**tensors, name: values}


NAN = np.full((2, 16), np.nan, np.float32)
OTHER = "mlp.fc9"


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (without(f"{Q_PROJ}.router"), f"{Q_PROJ} has no router"),
        (without(*(f"{module}.router" for module in SIZES)), "has no router"),
        (without(f"{Q_PROJ}.a", f"{Q_PROJ}.b"), f"a router of {Q_PROJ}, but no factors"),
        (without(f"{Q_PROJ}.a"), f"of {Q_PROJ} there is b, but no a"),
        (without(f"{Q_PROJ}.b"), f"of {Q_PROJ} there is a, but no b"),
        (with_(f"{Q_PROJ}.router", np.ones((4, 16), np.float32)), f"{Q_PROJ} has 4 experts, .* 2"),
        (
            with_(f"{Q_PROJ}.router", np.ones((2, 15), np.float32)),
            rf"of {Q_PROJ} is \[2, 15\], not \(experts, 16\)",
        ),
        (with_(f"{Q_PROJ}.router", np.ones((0, 16), np.float32)), rf"{Q_PROJ} is \[0, 16\]"),
        (with_(f"{Q_PROJ}.router", np.ones((), np.float32)), rf"{Q_PROJ} is \[\]"),
        (with_(f"{Q_PROJ}.router", np.ones((2, 16), np.float16)), rf"{Q_PROJ}.router is F16, not F32"),
        (with_(f"{Q_PROJ}.router", NAN), rf"{Q_PROJ}.router holds NaN"),
        (with_(f"{Q_PROJ}.a", np.ones((3, 16), np.float32)), "are not the factors of one module"),
        (
            with_(f"{Q_PROJ}.lora_a", np.ones((3, 16), np.float32)),
            r"lora_a is none of <module>.a, <module>.b",
        ),
        (with_("router", np.ones((2, 16), np.float32)), "router is none of"),
    ],
)
def test_a_damaged_file_is_refused_by_name(
    tmp_path: Path, damage: Callable[[Tensors], Tensors], named: str
) -> None:
    folder = saved(random_experts(), tmp_path / "experts")
    save_file(damage(load_file(folder / EXPERTS)), folder / EXPERTS)
    with pytest.raises(Refusal, match=named) as refused:
        open_adapter(folder, routers=True)
    assert str(folder / EXPERTS) in refused.value.what


def test_ranks_that_do_not_fit_are_refused_by_name(tmp_path: Path) -> None:
    folder = saved(random_experts(), tmp_path / "experts")
    tensors = load_file(folder / EXPERTS)
    larger = {f"{Q_PROJ}.a": np.ones((6, 16), np.float32), f"{Q_PROJ}.b": np.ones((16, 6), np.float32)}
    save_file({**tensors, **larger}, folder / EXPERTS)
    with pytest.raises(Refusal, match=f"{Q_PROJ} has rank 6, .* 4"):
        open_adapter(folder, routers=True)
    three = {f"{module}.router": np.ones((3, inputs), np.float32) for module, (inputs, _) in SIZES.items()}
    save_file({**tensors, **three}, folder / EXPERTS)
    with pytest.raises(Refusal, match="has rank 4, which 3 experts cannot share evenly"):
        open_adapter(folder, routers=True)


@pytest.mark.parametrize("size", [0, 7, 100, 3000, -1])
def test_a_truncated_file_is_refused(tmp_path: Path, size: int) -> None:
    file = saved(random_experts(), tmp_path / "experts") / EXPERTS
    file.write_bytes(file.read_bytes()[:size])
    with pytest.raises(Refusal, match=EXPERTS):
        open_adapter(file.parent, routers=True)


def test_a_record_of_other_weights_is_refused(tmp_path: Path) -> None:
    folder = saved(random_experts(tasks=("a",)), tmp_path / "experts")
    tensors = load_file(folder / EXPERTS)
    save_file({**tensors, f"{Q_PROJ}.router": -tensors[f"{Q_PROJ}.router"]}, folder / EXPERTS)
    with pytest.raises(Refusal, match="not those that its record describes"):
        _ = open_adapter(folder, routers=True).fingerprint
    record = json.loads((folder / "pamctl.json").read_text())
    assert record["fingerprint"] == random_experts().fingerprint


def test_an_adapter_of_routers_that_do_not_fit_cannot_be_made() -> None:
    embedding = LoraFactors(np.ones((2, 3), np.float32), np.ones((3, 2), np.float32), layer=EMBEDDING)
    with pytest.raises(ValueError, match="m has a router, but is embedding"):
        Adapter({"m": embedding}, routers={"m": np.ones((2, 3), np.float32)})
    modules = ComputedModules(random_adapter().shapes, random_adapter().modules.__getitem__)
    with pytest.raises(ValueError, match="has no router"):
        Adapter(modules, routers={Q_PROJ: np.ones((2, 16), np.float32)})


@pytest.mark.parametrize(
    "use",
    [
        lambda experts: merge([random_adapter(), experts]),
        lambda experts: align(experts, experts),
        lambda experts: align(random_adapter(), experts),
        convert,
    ],
)
def test_one_in_memory_is_refused_where_its_routers_would_be_lost(use: Callable[[Adapter], object]) -> None:
    with pytest.raises(Refusal, match="experts is a mixture of experts"):
        use(random_experts())


def test_other_ids_keep_their_routers() -> None:
    renamed = RenamedAdapter(random_experts(), {Q_PROJ: "q"})
    np.testing.assert_array_equal(renamed.routers["q"], random_routers()[Q_PROJ])
    assert renamed.experts == 2
