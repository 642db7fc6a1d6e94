"""Methods that are the same where a number is 0 or 1, bit for bit, and not the same otherwise."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pamctl.adapters import LoraFactors, open_adapter
from pamctl.merging import merge
from pamctl.training.methods import METHODS
from tests.training.method_cases import Bench, same

# Steps large enough that signs change.
LARGE: dict[str, Any] = {"learning_rate": 0.3, "align_every": 2}


class KeptBench(Bench):
    """Does each run once."""

    def __init__(self, inputs: Path, out: Path) -> None:
        super().__init__(inputs, out, **LARGE)
        self._kept: dict[str, Path] = {}

    def __call__(self, method: str, task: str = "shapes", **given: Any) -> Path:
        key = repr((method, task, sorted(given.items())))
        if key not in self._kept:
            before = {} if task == "shapes" else {"global_adapter": None}
            self._kept[key] = super().__call__(method, task, **{**before, **given})
        return self._kept[key]


@pytest.fixture(scope="module")
def bench(inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> KeptBench:
    return KeptBench(inputs, tmp_path_factory.mktemp("golden"))


@pytest.mark.parametrize(
    ("method", "off", "on", "plain"),
    [
        ("pam", {"top_p": 0}, {"top_p": 100}, "average"),
        ("finetune+align", {"top_p": 0}, {"top_p": 100}, "finetune"),
        ("tall+pam", {"align": False}, {}, "tall"),
        ("lwf", {"terms": ["lwf:weight=0"]}, {}, "finetune"),
        ("lwf+pam", {"terms": ["lwf:weight=0"], "align": False}, {"align": False}, "average"),
        ("l2", {"terms": ["l2:weight=0"]}, {}, "finetune"),
        ("ilora", {"decay": 0.0}, {}, "finetune"),
    ],
)
def test_what_is_turned_off_is_not_there(
    bench: KeptBench, method: str, off: dict[str, Any], on: dict[str, Any], plain: str
) -> None:
    assert same(bench(method, **off), bench(plain))
    assert not same(bench(method, **on), bench(plain))


def test_replay_from_an_empty_buffer_is_finetune(bench: KeptBench) -> None:
    kept = bench("er", "colours")
    assert same(kept, bench("finetune", "colours"))
    assert same(bench("er", global_adapter=kept, replay="buffer=0"), bench("finetune", global_adapter=kept))
    assert not same(bench("er", global_adapter=kept), bench("finetune", global_adapter=kept))


@pytest.mark.parametrize("method", [name for name, of in METHODS.items() if of.adapter != "moe"])
def test_first_tasks_are_plain_lora(bench: KeptBench, method: str) -> None:
    given: dict[str, Any] = {"decay": 0.0} if METHODS[method].decay else {}
    assert same(bench(method, "colours", **given), bench("finetune", "colours"))


def test_one_expert_is_plain_lora_over_two_tasks(bench: KeptBench) -> None:
    one, plain = bench("moelora", "colours", experts=1), bench("finetune", "colours")
    assert same(one, plain)
    assert same(bench("moelora", global_adapter=one), bench("finetune", global_adapter=plain))
    assert not same(bench("moelora", "colours", experts=3), plain)


@pytest.mark.parametrize("method", sorted({name for name, of in METHODS.items() if of.merge}))
def test_an_adapter_merged_with_itself_is_itself(inputs: Path, method: str) -> None:
    by = dict(METHODS[method].merge or {})
    first = open_adapter(inputs / "first")
    name = by.pop("method")
    merged = merge([first, open_adapter(inputs / "first")], name, space="factor", parameters=by)
    found, before = (
        np.concatenate([of.ravel() for m in first.shapes for of in folded(each.modules[m])])
        for each in (merged, first)
    )
    kept = np.ones(len(before), bool)
    if name == "ties":
        # What TIES trims of both is gone: a tenth, the smallest.
        kept[np.argsort(np.abs(before))[: len(before) - int(0.9 * len(before))]] = False
        assert not found[~kept].any()
    np.testing.assert_array_equal(found[kept], before[kept])


def folded(factors: LoraFactors) -> tuple[np.ndarray, np.ndarray]:
    whole = factors.folded()
    return np.asarray(whole.a), np.asarray(whole.b)
