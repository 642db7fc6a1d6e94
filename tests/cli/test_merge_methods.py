"""The methods as `pamctl merge` lists and explains them."""

import json
from pathlib import Path
from typing import Any

import pytest

from pamctl.cli.errors import exit_code_of
from pamctl.cli.merge import merge
from pamctl.merging.methods import NAMES, explanation, method_named
from tests.adapter_cases import random_adapter, saved

Capture = pytest.CaptureFixture[str]


def run(*arguments: str) -> int:
    return exit_code_of(lambda: merge.main(list(arguments), standalone_mode=False))


def printed(capsys: Capture, *arguments: str) -> str:
    """What stdout takes of a call that succeeds and says nothing else."""
    assert run(*arguments) == 0
    out, err = capsys.readouterr()
    assert err == ""
    return out


def in_json(capsys: Capture, *arguments: str) -> dict[str, Any]:
    payload: dict[str, Any] = json.loads(printed(capsys, *arguments, "--json"))
    return payload


def test_the_list_names_every_method_with_what_it_does(capsys: Capture) -> None:
    lines = printed(capsys, "--list-methods").splitlines()
    assert [line.split()[0] for line in lines] == list(NAMES)
    assert all(method_named(line.split()[0]).title in line for line in lines)


def test_the_list_in_json_describes_every_parameter(capsys: Capture) -> None:
    payload = in_json(capsys, "--list-methods")
    assert payload["schema"] == "pamctl.merge-methods/1"
    assert [method["name"] for method in payload["methods"]] == list(NAMES)
    for described in payload["methods"]:
        method = method_named(described["name"])
        assert described["spaces"] == list(method.spaces)
        assert described["variants"] == list(method.variants)
        assert described["order_matters"] is not method.symmetric
        assert [parameter["name"] for parameter in described["parameters"]] == [
            parameter.name for parameter in method.parameters
        ]
        assert all(parameter["meaning"] for parameter in described["parameters"])


@pytest.mark.parametrize("name", NAMES)
def test_a_method_is_explained_by_formula_parameters_and_source(capsys: Capture, name: str) -> None:
    text, method = printed(capsys, "--explain", name), method_named(name)
    assert text.startswith(f"{name}: ")
    assert explanation(name) in text
    assert " = " in explanation(name), "a formula"
    assert "Source" in explanation(name)
    for parameter in method.parameters:
        assert f"--set {parameter.name}=" in text
        assert parameter.name in explanation(name)
    for variant in method.variants:
        assert variant in text
    assert f"--space {'|'.join(method.spaces)}" in text


@pytest.mark.parametrize("name", NAMES)
def test_an_explanation_in_json_holds_the_text_and_the_parameters(capsys: Capture, name: str) -> None:
    payload = in_json(capsys, "--explain", name)
    assert (payload["schema"], payload["name"]) == ("pamctl.merge-method/1", name)
    assert payload["explanation"] == explanation(name)
    assert len(payload["parameters"]) == len(method_named(name).parameters)


def test_an_unknown_method_is_a_wrong_call_that_names_the_choices(capsys: Capture, tmp_path: Path) -> None:
    first, second = (str(saved(random_adapter(seed), tmp_path / str(seed))) for seed in (1, 2))
    for arguments in (
        ["--explain", "tise"],
        [first, second, "-o", str(tmp_path / "out"), "--method", "tise"],
    ):
        refused_with_the_choices(capsys, *arguments)
    assert not (tmp_path / "out").exists()


def refused_with_the_choices(capsys: Capture, *arguments: str) -> None:
    assert run(*arguments) == 2
    out, err = capsys.readouterr()
    error, hint = err.splitlines()
    assert (out, error) == ("", "Error: method is 'tise'")
    assert all(name in hint for name in NAMES)


def test_listing_needs_no_adapters_and_no_output(capsys: Capture) -> None:
    assert printed(capsys, "a", "b", "--list-methods") == printed(capsys, "--list-methods")
    assert printed(capsys, "nowhere", "--explain", "ties") == printed(capsys, "--explain", "ties")
