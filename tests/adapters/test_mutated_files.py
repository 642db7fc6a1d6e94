"""The bounded twin of tests/bench/mutated_files.py, and that its judge can find fault."""

import json
from pathlib import Path
from typing import Any

import pytest

from pamctl.adapters import LoraFactors, open_adapter
from tests.bench import mutated_files
from tests.bench.mutated_files import Seed, judge, seeds, try_one


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> list[Seed]:
    return seeds(tmp_path_factory.mktemp("seeds"))


def test_two_thousand_mutated_adapters_are_each_refused_or_read_whole(given: list[Seed]) -> None:
    outcomes = [try_one(given, 1, index) for index in range(2000)]
    assert [outcome for outcome in outcomes if outcome.fault] == []
    refused = sum(outcome.refused for outcome in outcomes)
    assert 500 < refused < 1900  # the mutations reach what is read as well as what is refused


def test_a_seed_as_it_is_passes(given: list[Seed], tmp_path: Path) -> None:
    for seed in given:
        assert judge(seed, seed.files, tmp_path / seed.name) == (False, "")


def test_a_reader_that_is_wrong_is_found_out(
    given: list[Seed], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def with_half_the_scale(*arguments: Any, **options: Any) -> Any:
        adapter = open_adapter(*arguments, **options)
        adapter.modules = {
            module: LoraFactors(factors.a, factors.b, factors.scale / 2, factors.layer)
            for module, factors in adapter.modules.items()
        }
        return adapter

    monkeypatch.setattr(mutated_files, "open_adapter", with_half_the_scale)
    for seed in given:
        assert judge(seed, seed.files, tmp_path / seed.name)[1].startswith("read otherwise")
    peft = next(seed for seed in given if seed.name == "peft")
    config = json.loads(peft.files["adapter_config.json"]) | {"lora_alpha": 7}
    files = {**peft.files, "adapter_config.json": json.dumps(config).encode()}
    assert judge(peft, files, tmp_path / "peft")[1].startswith("peft scales by [3.5, ")


@pytest.mark.parametrize(
    ("error", "said"), [(KeyError("lora_A"), "KeyError"), (mutated_files.TooSlow(), "took more than 5 s")]
)
def test_an_error_that_is_no_refusal_and_a_hang_are_found_out(
    error: BaseException, said: str, given: list[Seed], monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*_: Any, **__: Any) -> Any:
        raise error

    monkeypatch.setattr(mutated_files, "open_adapter", failing)
    assert said in try_one(given, 0, 0).fault
