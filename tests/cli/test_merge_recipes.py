"""A merge by a recipe in TOML: rules for some modules, options over it, the recipe that is written."""

import json
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from pamctl.adapters import Adapter, open_adapter
from pamctl.cli.errors import exit_code_of
from pamctl.cli.merge import merge
from tests.adapter_cases import SIZES, delta, random_adapter, saved

VISION, PROJECTOR = "vision_tower.encoder.layers.0.mlp.fc1", "multi_modal_projector.linear"
Capture = pytest.CaptureFixture[str]


def run(*arguments: str) -> int:
    return exit_code_of(lambda: merge.main(list(arguments), standalone_mode=False))


def by_recipe(text: str, *arguments: str, output: str = "merged") -> int:
    """Merge `first` and `other`, unless arguments name adapters, by a recipe of this text."""
    Path("recipe.toml").write_text(text)
    return run(*(arguments or ("first", "other")), "--recipe", "recipe.toml", "-o", output)


def merged_by(*options: str, output: str = "expected") -> Adapter:
    assert run("first", "other", *options, "-o", output) == 0
    return open_adapter(output)


def contents(folder: str | Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in Path(folder).iterdir()}


def written_recipe(output: str = "merged") -> dict[str, Any]:
    return tomllib.loads((Path(output) / "recipe.toml").read_text())


def same_delta(one: Adapter, two: Adapter, module: str) -> None:
    np.testing.assert_allclose(delta(one.modules[module]), delta(two.modules[module]), rtol=1e-4, atol=1e-4)


def test_a_recipe_is_what_its_options_are(place: Path) -> None:
    text = 'method = "ties"\nvariant = "mergekit"\nweights = [0.7, 0.3]\ndensity = [0.5, 0.25]\nrank = 5\n'
    assert by_recipe(text) == 0
    options = "--method ties --variant mergekit --weights 0.7,0.3 --set density=0.5,0.25 --rank 5".split()
    merged_by(*options)
    assert contents("merged") == contents("expected")


def test_density_is_the_short_form_of_its_setting(place: Path) -> None:
    merged_by("--method", "ties", "--density", "0.3", output="short")
    merged_by("--method", "ties", "--set", "density=0.3", output="long")
    assert contents("short") == contents("long")
    assert written_recipe("short")["density"] == [0.3, 0.3]


def test_each_rule_merges_its_modules_by_its_own_method_weights_and_densities(place: Path) -> None:
    rules = (
        'method = "linear"\nweights = [1.0, 1.0]\n'
        '[[rules]]\nmodules = "vision_tower.*"\nmethod = "ties"\ndensity = [0.5, 0.25]\nrank = 12\n'
        '[[rules]]\nmodules = ["multi_modal*", "lm_head"]\nweights = [2, -1]\n'
    )
    assert by_recipe(rules) == 0
    merged = open_adapter("merged")
    ties = merged_by(
        *"--method ties --weights 1,1 --set density=0.5,0.25 --rank 12 --set scope=tensor".split(),
        output="by-ties",
    )
    weighted = merged_by(*"--method linear --weights 2,-1".split(), output="weighted")
    linear = merged_by("--method", "linear", output="by-linear")
    same_delta(merged, ties, VISION)
    same_delta(merged, weighted, PROJECTOR)
    for module in SIZES.keys() - {VISION, PROJECTOR}:
        same_delta(merged, linear, module)


def test_the_first_rule_that_matches_counts(place: Path) -> None:
    assert (
        by_recipe(
            'method = "linear"\n'
            f'[[rules]]\nmodules = "{VISION}"\nweights = [1, 0]\n'
            '[[rules]]\nmodules = "*"\nweights = [0, 1]\n'
        )
        == 0
    )
    merged = open_adapter("merged")
    same_delta(merged, open_adapter("first"), VISION)
    same_delta(merged, open_adapter("other"), PROJECTOR)


def test_what_a_rule_leaves_open_is_as_for_the_others(place: Path) -> None:
    text = (
        'method = "ties"\nweights = [0.7, 0.3]\ndensity = 0.4\n[[rules]]\nmodules = "vision*"\nlambda = 2\n'
    )
    assert by_recipe(text) == 0
    (rule,) = written_recipe()["rules"]
    assert (rule["method"], rule["weights"], rule["density"], rule["lambda"]) == (
        "ties",
        [0.7, 0.3],
        [0.4, 0.4],
        2.0,
    )


def test_parameters_of_one_method_do_not_carry_over_to_a_rule_with_another(place: Path) -> None:
    text = 'method = "ties"\nvariant = "mergekit"\ndensity = 0.4\n[[rules]]\nmodules = "vision*"\n'
    assert by_recipe(f'{text}method = "linear"\n') == 0
    (rule,) = written_recipe()["rules"]
    assert rule["method"] == "linear"
    assert "density" not in rule
    assert rule["variant"] != "mergekit"


def test_options_override_the_recipe(place: Path) -> None:
    text = 'method = "ties"\nweights = [0.7, 0.3]\ndensity = 0.4\nlambda = 2.0\nseed = 1\n'
    options = "--weights 1,2 --density 0.6 --seed 5 --rank max --space delta".split()
    assert by_recipe(text, "first", "other", *options) == 0
    written = written_recipe()
    assert (written["weights"], written["density"], written["lambda"], written["rank"]) == (
        [1.0, 2.0],
        [0.6, 0.6],
        2.0,
        "max",
    )


def test_another_method_takes_neither_parameters_nor_variant_from_the_recipe(place: Path) -> None:
    text = 'method = "ties"\nvariant = "mergekit"\ndensity = 0.4\n'
    assert by_recipe(text, "first", "other", "--method", "task-arithmetic", "--set", "lambda=0.5") == 0
    written = written_recipe()
    assert (written["method"], written["lambda"]) == ("task-arithmetic", 0.5)
    assert "density" not in written


def test_the_recipe_names_the_adapters_where_the_command_does_not(place: Path) -> None:
    text = 'adapters = ["first", "other"]\nmethod = "linear"\n'
    Path("recipe.toml").write_text(text)
    assert run("--recipe", "recipe.toml", "-o", "merged") == 0
    assert contents("merged") == contents_of_merge("first", "other")
    assert run("second", "other", "--recipe", "recipe.toml", "-o", "others") == 0
    assert contents("others") == contents_of_merge("second", "other")


def contents_of_merge(one: str, two: str) -> dict[str, bytes]:
    assert run(one, two, "--method", "linear", "-o", "expected", "--force") == 0
    return contents("expected")


def test_no_adapters_at_all_is_a_wrong_call(place: Path, capsys: Capture) -> None:
    Path("recipe.toml").write_text('method = "linear"\n')
    assert run("--recipe", "recipe.toml", "-o", "merged") == 2
    assert "Missing argument" in capsys.readouterr().err


def test_the_output_table_says_how_the_result_is_written(place: Path) -> None:
    assert by_recipe('[output]\nformat = "kohya"\ndtype = "f16"\n') == 0
    tensors = load_file(place / "merged" / "lora.safetensors")
    assert {values.dtype for name, values in tensors.items() if ".lora_" in name} == {np.dtype(np.float16)}
    assert open_adapter("merged").origin.format == "kohya"  # type: ignore[union-attr]
    assert written_recipe()["output"] == {"format": "kohya", "dtype": "f16"}


def test_options_override_the_output_table(place: Path) -> None:
    assert by_recipe('[output]\nformat = "kohya"\ndtype = "f16"\n', "first", "other", "--format", "peft") == 0
    assert (place / "merged" / "adapter_config.json").exists()
    assert written_recipe()["output"] == {"format": "peft", "dtype": "f16"}


RECIPES = {
    "average": "",
    "unequal weights": "weights = [0.1, 0.23]\n",
    "energy": 'space = "delta"\nenergy = 0.9\n',
    "largest rank": 'method = "linear"\nrank = "max"\n',
    "random": 'method = "dare-ties"\nseed = 3\ndensity = [0.3, 0.6]\n',
    "inner method": 'method = "knots"\ninner = "dare-ties"\nseed = 3\ndensity = 0.3\n',
    "rules": 'method = "linear"\n[[rules]]\nmodules = "vision*"\nmethod = "ties"\ndensity = [0.5, 0.25]\n',
    "every module by rules": '[[rules]]\nmodules = "vision*"\nrank = 2\n[[rules]]\nmodules = "*"\nrank = 3\n',
    "output": '[output]\nformat = "kohya"\ndtype = "f16"\ncompact = true\n',
}


@pytest.mark.parametrize("text", RECIPES.values(), ids=RECIPES)
def test_the_recipe_in_the_output_gives_the_same_bytes_again(place: Path, text: str) -> None:
    assert by_recipe(text) == 0
    assert run("first", "other", "--recipe", "merged/recipe.toml", "-o", "again") == 0
    assert contents("again") == contents("merged")


@pytest.mark.parametrize("weights", ["0.1,0.2,0.4", "0.83,0.04,0.25", "1,1,1"])
def test_weights_that_were_made_shares_stay_as_they_are(place: Path, weights: str) -> None:
    assert run("first", "second", "other", "--weights", weights, "-o", "merged") == 0
    assert run("first", "second", "other", "--recipe", "merged/recipe.toml", "-o", "again") == 0
    assert contents("again") == contents("merged")


def test_the_written_recipe_leaves_nothing_open_and_tells_no_paths(place: Path) -> None:
    assert by_recipe('adapters = ["first"]\nmethod = "ties"\n') == 0
    written = written_recipe()
    assert "adapters" not in written
    assert written["space"] == "delta"
    assert {"variant", "weights", "density", "scope", "sign", "merge", "lambda"} <= written.keys()
    assert str(place) not in (place / "merged" / "recipe.toml").read_text()


def test_the_largest_rank_is_that_of_each_module_by_itself(place: Path, capsys: Capture) -> None:
    saved(Adapter({VISION: random_adapter(7, rank=9).modules[VISION]}, None, "tiny"), place / "vision")
    command = "first vision -o merged --method linear --rank max --dry-run --json"
    assert run(*command.split()) == 0
    ranks = {part["module"]: part["rank"] for part in json.loads(capsys.readouterr().out)["plan"]}
    assert ranks == {module: 9 if module == VISION else 4 for module in SIZES}


def test_energy_keeps_at_least_its_share_with_the_smallest_rank(place: Path, capsys: Capture) -> None:
    assert (
        run(*"first other -o merged --space delta --energy 0.9 --format peft --compact --json".split()) == 0
    )
    assert json.loads(capsys.readouterr().out)["retained_energy_percent"] >= 90
    merged, exact = open_adapter("merged"), merged_by("--space", "delta")
    for module in SIZES:
        energies = np.linalg.svd(delta(exact.modules[module]), compute_uv=False) ** 2
        smallest = int(np.argmax(np.cumsum(energies) >= 0.9 * energies.sum())) + 1
        assert merged.shapes[module].rank == smallest, module


NOT_A_RECIPE = {
    "not TOML": ("weights = [1,\n", "is not TOML"),
    "weights in a text": ('weights = "0.5"\n', "weights is '0.5'"),
    "a weight that is no number": ("weights = [true, 1]\n", "weights are not all numbers"),
    "a method that is no text": ("method = 3\n", "method is 3"),
    "rules in one table": ('[rules]\nmodules = "*"\n', "rules are not tables"),
    "a rule without modules": ('[[rules]]\nmethod = "ties"\n', "a rule's modules are None"),
    "modules that are numbers": ("[[rules]]\nmodules = [1]\n", "a rule's modules are list"),
    "adapters in a text": ('adapters = "first"\n', "adapters is not a list"),
    "output in a text": ('output = "kohya"\n', "output is not a table"),
    "an unknown key": ("densty = 0.5\n", "no parameter 'densty'"),
    "an unknown key in a rule": (
        '[[rules]]\nmodules = "vision*"\nmethod = "ties"\ndensty = 0.5\n',
        "ties has no parameter 'densty'",
    ),
    "an unknown key of the output": ('[output]\nfromat = "kohya"\n', "no 'fromat'"),
    "an unknown format": ('[output]\nformat = "zip"\n', "format is 'zip'"),
    "an unknown method": ('method = "tise"\n', "method is 'tise'"),
    "a density out of range": ('method = "ties"\ndensity = 1.5\n', "density of ties is 1.5"),
    "three densities": ('method = "ties"\ndensity = [1, 1, 1]\n', "density of ties is given 3 times"),
    "a rule that matches nothing": ('[[rules]]\nmodules = "nothing.*"\nrank = 2\n', "the rule of nothing.*"),
    "a rule for what another took": (
        '[[rules]]\nmodules = "*"\nrank = 2\n[[rules]]\nmodules = "vision*"\nrank = 3\n',
        "the rule of vision*",
    ),
}


@pytest.mark.parametrize(("text", "told"), NOT_A_RECIPE.values(), ids=NOT_A_RECIPE)
def test_what_is_wrong_in_a_recipe_is_refused_with_its_place(
    place: Path, capsys: Capture, text: str, told: str
) -> None:
    assert by_recipe(text) == 2
    out, err = capsys.readouterr()
    error, hint = err.splitlines()
    assert out == ""
    assert error.startswith("Error: recipe.toml")
    assert told in error
    assert hint.startswith("Hint: ")
    assert not Path("merged").exists()


def test_a_fault_of_an_option_is_not_blamed_on_the_recipe(place: Path, capsys: Capture) -> None:
    assert by_recipe('method = "ties"\n', "first", "other", "--weights", "1,2,3") == 2
    assert capsys.readouterr().err.startswith("Error: 3 weights for 2 adapters\n")


def test_a_recipe_that_is_not_there_is_a_wrong_call(place: Path, capsys: Capture) -> None:
    assert run("first", "other", "--recipe", "nowhere.toml", "-o", "merged") == 2
    assert "nowhere.toml" in capsys.readouterr().err
