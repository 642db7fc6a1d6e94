"""A mixture of experts as the commands meet it: scored by `eval`, and refused where one B A is wanted."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pamctl.adapters import Adapter, LoraFactors, Provenance
from pamctl.adapters.factors import Float32
from pamctl.adapters.provenance import BaseModel
from pamctl.models.base import load_base
from tests.adapter_cases import saved
from tests.training_cases import CONFIG, write_base, write_task
from tests.warm_pamctl import WarmPamctl

MODULES = [f"language_model.layers.{layer}.self_attn.q_proj" for layer in range(2)]
WIDTH = CONFIG.text.hidden_size
QUERIES = CONFIG.text.num_attention_heads * CONFIG.text.head_dim


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base and a task, adapters of it as plain LoRA and as experts, and an adapter of another base."""
    folder = tmp_path_factory.mktemp("experts")
    base = BaseModel("base", load_base(str(write_base(folder / "base"))).fingerprint)
    write_task(folder, "red")
    saved(adapter(base), folder / "plain")
    saved(adapter(base, experts=1), folder / "one-expert")
    saved(adapter(base, "twice"), folder / "doubled")
    saved(adapter(base, "twice", experts=2), folder / "alike")
    saved(adapter(base, "against", experts=2), folder / "opposed")
    saved(adapter(BaseModel("other", "0" * 64), experts=2), folder / "foreign")
    return folder


def adapter(base: BaseModel, second: str | None = None, experts: int = 0) -> Adapter:
    """Factors large enough to change answers.

    Args:
        second: four more components: the first four once more, or `against` them, with the other sign.
    """
    modules, routers = {}, {}
    for number, module in enumerate(MODULES):
        rng = np.random.default_rng(number)
        a: Float32 = rng.standard_normal((4, WIDTH), np.float32)
        b: Float32 = 4 * rng.standard_normal((QUERIES, 4), np.float32)
        if second is not None:
            a, b = np.concatenate([a, a]), np.concatenate([b, b if second == "twice" else -b], axis=1)
        modules[module] = LoraFactors(a, b)
        routers[module] = 5 * rng.standard_normal((experts, WIDTH), np.float32)
    record = Provenance("trained", "trained", tasks=("red",), base=base)
    return Adapter(modules, record, base.name, routers=routers if experts else None)


def answers(warm: WarmPamctl, place: Path, reference: str | None, tmp_path: Path) -> list[Any]:
    file = tmp_path / f"{reference or 'none'}.jsonl"
    done = warm(
        *["eval", *([reference] if reference else []), "--task", "red.jsonl", "--base", "base"],
        *["--predictions", str(file), "--json"],
        cwd=place,
    )
    assert done.code == 0, done.stderr
    assert json.loads(done.stdout)["results"][0]["n"] > 1
    return [json.loads(line)["prediction"] for line in file.read_text().splitlines()]


def test_eval_gates_each_token(warm: WarmPamctl, place: Path, tmp_path: Path) -> None:
    """Experts that are alike are what one of them is, whatever their gates, and not their sum."""
    plain = answers(warm, place, "plain", tmp_path)
    assert answers(warm, place, "one-expert", tmp_path) == plain
    assert answers(warm, place, "alike", tmp_path) == plain
    assert answers(warm, place, "doubled", tmp_path) != plain


def test_eval_heeds_the_routers(warm: WarmPamctl, place: Path, tmp_path: Path) -> None:
    """Experts against each other would add nothing if each had the same gate."""
    assert answers(warm, place, "opposed", tmp_path) != answers(warm, place, None, tmp_path)


def test_eval_records_it_as_any_adapter(warm: WarmPamctl, place: Path, tmp_path: Path) -> None:
    results = tmp_path / "results.jsonl"
    common = ["--task", "red.jsonl", "--base", "base", "--limit", "2"]
    assert warm("eval", "alike", *common, "--results", str(results), cwd=place).code == 0
    record = json.loads((place / "alike" / "pamctl.json").read_text())
    (line,) = results.read_text().splitlines()
    assert json.loads(line)["adapter"] == record["fingerprint"]
    assert json.loads(line)["tasks"] == ["red"]


@pytest.mark.parametrize(
    "command",
    [
        "merge alike opposed -o out",
        "merge plain alike -o out --space delta",
        "convert alike -o out --format peft",
        "convert alike/experts.safetensors -o out.safetensors --format kohya",
        "convert alike -o out --format orbax",
        "align alike --to opposed -o out",
        "align plain --to alike",
        "inspect alike",
        "inspect plain alike",
        "convert-base base -o out --fold alike",
    ],
)
def test_where_one_delta_is_wanted_it_is_refused(warm: WarmPamctl, place: Path, command: str) -> None:
    before = sorted(file.name for file in place.iterdir())
    done = warm(*command.split(), cwd=place)
    assert (done.code, done.stdout) == (1, "")
    what, way_on = done.stderr.splitlines()
    assert "is a mixture of experts: its update depends on the input, so that no one B A holds it" in what
    assert "pamctl eval" in way_on
    assert "--method moelora" in way_on
    assert sorted(file.name for file in place.iterdir()) == before


def test_no_loader_serves_it(warm: WarmPamctl, place: Path) -> None:
    done = warm("inspect", "alike", "--target", "vllm", cwd=place)
    assert done.code == 1
    assert "it is experts, and vllm reads peft" in " ".join((done.stdout + done.stderr).split())


def test_experts_of_another_base_are_refused(warm: WarmPamctl, place: Path) -> None:
    done = warm("eval", "foreign", "--task", "red.jsonl", "--base", "base", cwd=place)
    assert (done.code, done.stdout) == (1, "")
    assert "was made for base other (000000000000)" in done.stderr
