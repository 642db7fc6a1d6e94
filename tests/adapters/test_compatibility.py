from dataclasses import replace

import pytest

from pamctl.adapters import Adapter, BaseModel, Parent, Provenance
from pamctl.adapters.compatibility import (
    factor_mismatch,
    refuse_different_base_names,
    refuse_different_bases,
    refuse_different_modules,
    share_a_start,
    with_differing_base_names,
)
from pamctl.adapters.factors import EMBEDDING, Layer
from pamctl.refusal import Refusal
from tests.adapter_cases import Q_PROJ, child_of, on_base, random_adapter, random_factors


def test_two_known_bases_that_differ_are_refused_and_an_unknown_one_is_not() -> None:
    one, two = random_adapter(base=on_base("aa")), random_adapter(base=on_base("bb"))
    refuse_different_bases((one, one, random_adapter()))
    with pytest.raises(Refusal, match=r"tiny \(aa\).*tiny \(bb\)"):
        refuse_different_bases((one, random_adapter(), two))


def test_two_bases_on_the_hub_are_refused_by_name_unless_their_weights_are_known_to_be_the_same() -> None:
    def of(base: str, fingerprint: str | None = None) -> Adapter:
        adapter = random_adapter(base=BaseModel(base, fingerprint))
        return Adapter(adapter.modules, adapter.provenance, base, name=f"of {base}")

    one, two = of("google/paligemma-3b-pt-224"), of("google/paligemma-3b-mix-224")
    with pytest.raises(Refusal, match=r"google/paligemma-3b-pt-224.*google/paligemma-3b-mix-224") as refusal:
        refuse_different_base_names((one, random_adapter(), two))
    assert "--allow-base-mismatch" in refusal.value.way_on
    refuse_different_base_names((one, of("google/paligemma-3b-pt-224"), of("paligemma-3b-pt-224")))
    refuse_different_base_names((of("a/b", "ff"), of("c/d", "ff")))


def test_no_common_module_is_refused() -> None:
    with pytest.raises(Refusal, match="no module in common"):
        refuse_different_modules((random_adapter(), Adapter({"other": random_factors(0, 16, 16)})))


@pytest.mark.parametrize(
    ("layer", "told"),
    [(EMBEDDING, "embedding"), (Layer("conv", (2, 2)), "conv 2x2"), (Layer("conv", (4,)), "conv 4")],
)
def test_a_module_of_another_kind_of_layer_is_refused(layer: Layer, told: str) -> None:
    other = Adapter({Q_PROJ: replace(random_factors(0, 16, 16), layer=layer)}, name="other")
    with pytest.raises(Refusal, match=f"{Q_PROJ} is linear in adapter and {told} in other"):
        refuse_different_modules((random_adapter(), other))


def test_a_module_of_another_size_is_refused_with_both_sizes() -> None:
    with pytest.raises(Refusal, match=r"is 16x16 in .* and 24x16 in"):
        refuse_different_modules((random_adapter(), Adapter({Q_PROJ: random_factors(0, 16, 24)})))


def test_the_way_on_names_the_bases_as_far_as_they_are_known() -> None:
    large = Adapter({Q_PROJ: random_factors(0, 16, 24)}, base_model="org/large", name="second")
    with pytest.raises(Refusal) as refusal:
        refuse_different_modules((random_adapter(name="first"), large))
    assert (
        refusal.value.way_on == "use adapters of one base model: first is of tiny and second is of org/large"
    )
    with pytest.raises(Refusal) as refusal:
        refuse_different_modules((Adapter({"a": random_factors(0, 4, 4)}), Adapter({})))
    assert refusal.value.way_on == "use adapters of one base model"


def test_factors_fit_only_with_the_same_modules_and_ranks() -> None:
    assert factor_mismatch((random_adapter(), random_adapter(1))) is None
    fewer = Adapter({Q_PROJ: random_factors(0, 16, 16)}, name="fewer")
    assert "not in fewer" in (factor_mismatch((random_adapter(), fewer)) or "")
    assert "not in fewer" in (factor_mismatch((fewer, random_adapter())) or "")
    assert "has rank 4 in adapter and 5 in wide" in (
        factor_mismatch((random_adapter(), random_adapter(rank=5, name="wide"))) or ""
    )


def test_a_start_is_shared_with_a_parent_a_sibling_and_oneself() -> None:
    parent = random_adapter()
    one, two = child_of(parent, seed=1), child_of(parent, seed=2)
    assert share_a_start((parent, one))
    assert share_a_start((one, two))
    assert share_a_start((one, one))
    assert not share_a_start((one, child_of(parent, seed=2, recorded=False)))
    assert not share_a_start((one, child_of(one, seed=3), child_of(two, seed=4)))


def test_a_merge_of_deltas_does_not_continue_its_parents_factors() -> None:
    parent = random_adapter()
    record = Provenance(
        "merged", "merged", parents=(Parent(parent.fingerprint),), parameters={"space": "delta"}
    )
    assert not share_a_start((parent, Adapter(random_adapter(1).modules, record)))


def test_base_names_that_differ_are_told_where_no_fingerprints_settle_it() -> None:
    one = Adapter(random_adapter().modules, base_model="one")
    two = Adapter(random_adapter().modules, base_model="two")
    assert with_differing_base_names((one, two)) == (one, two)
    assert with_differing_base_names((two, two, one)) == (two, one)
    assert with_differing_base_names((one, one)) is None
    known = random_adapter(base=on_base("aa"))
    assert with_differing_base_names((known, Adapter(known.modules, known.provenance, "other"))) is None
