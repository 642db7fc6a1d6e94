import json
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pamctl.adapters import LoraFactors, open_adapter
from pamctl.cli.errors import exit_code_of
from pamctl.cli.main import pamctl
from pamctl.refusal import Refusal, UsageRefusal
from pamctl.serving import TARGETS, ServingReport, check_serving
from tests.adapter_cases import KEY, delta
from tests.serving_cases import (
    ATTENTION,
    BROKEN,
    LAYERS,
    PLAIN,
    TOWER,
    Writer,
    kohya,
    kohya_named,
    mlx,
    pair,
    peft,
    single,
)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("target", TARGETS)
def test_a_plain_adapter_is_served_whole(target: str, tmp_path: Path) -> None:
    report = check_serving(str(PLAIN[target](tmp_path / "plain")), target)
    assert report.findings == ()
    assert report.served


@pytest.mark.parametrize(("target", "rule", "write", "mended"), BROKEN, ids=lambda each: str(each)[:20])
def test_what_breaks_a_rule_is_found_and_the_command_mends_it(
    target: str, rule: str, write: Writer, mended: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    adapter = write(tmp_path / "broken")
    report = check_serving("broken", target)
    found = [finding for finding in report.findings if finding.rule == rule]
    assert found, report.findings
    assert not report.served
    assert all((found[0].where, found[0].why, found[0].mend))
    assert found[0].mend.startswith("pamctl convert") is mended
    if not mended:
        return
    command = shlex.split(found[0].mend)
    assert exit_code_of(lambda: pamctl.main(command[1:], standalone_mode=False)) == 0, capsys.readouterr().err
    written = command[command.index("-o") + 1]
    after = check_serving(written, target)
    assert [finding for finding in after.findings if finding.rule == rule] == [] or rule == "rank"
    if "--rank" not in command:
        assert_same_deltas(adapter, Path(written))


def assert_same_deltas(adapter: Path, written: Path) -> None:
    before, after = open_adapter(adapter).modules, open_adapter(written).modules
    assert len(before) == len(after)
    for one, two in zip(before.values(), after.values(), strict=True):
        assert isinstance(one, LoraFactors)
        np.testing.assert_allclose(delta(two), delta(one), rtol=1e-5, atol=1e-5)


def test_every_rule_is_broken_by_some_case() -> None:
    covered = {(target, rule) for target, rule, _, _ in BROKEN}
    # the file's name is mlx's own mark only together with its settings
    rules = {(target, rule) for target, (_, rules) in TARGETS.items() for rule in rules}
    assert rules - covered == {("mlx", "file-name")}


def test_the_servers_options_are_taken_into_account(tmp_path: Path) -> None:
    tensors = {**pair(KEY, rank=24), **pair(TOWER, rank=24)}
    peft(tensors, r=24, lora_alpha=24, target_modules=["q_proj", "fc1"])(tmp_path / "wide")
    report = check_serving("wide", "vllm")
    assert [finding.mend for finding in report.findings] == [
        "start vLLM with --max-lora-rank 32",
        "start vLLM with --enable-tower-connector-lora, for the models that support it",
    ]
    options = ["--max-lora-rank", "32", "--enable-tower-connector-lora"]
    assert check_serving("wide", "vllm", options=options).served
    assert not check_serving("wide", "vllm", options=["--max-lora-rank=16", options[2]]).served
    assert check_serving("wide", "vllm", options=["--max-lora-rank=32", options[2]]).served


def test_mlx_looks_for_its_own_file_name(tmp_path: Path) -> None:
    folder = mlx()(tmp_path / "broken")
    (folder / "adapters.safetensors").rename(folder / "weights.safetensors")
    assert [finding.rule for finding in check_serving("broken", "mlx").findings] == ["file-name"]


@pytest.mark.parametrize(
    "modules",
    [
        (f"lora_te_{ATTENTION}_q_proj", f"lora_te_{ATTENTION}_out_proj"),
        ("lora_te1_text_model_encoder_layers_1_mlp_fc1",),
        (f"lora_te1_{ATTENTION}_q_proj", "lora_unet_double_blocks_0_img_attn_qkv"),
        ("lora_unet_time_embedding_linear_1",),
    ],
)
def test_names_of_kohyas_that_diffusers_reads_are_served(modules: tuple[str, ...], tmp_path: Path) -> None:
    single(kohya_named(*modules))(tmp_path / "kohya")
    assert check_serving("kohya", "diffusers").served


def test_what_cannot_be_converted_is_said_and_why(tmp_path: Path) -> None:
    single({**kohya(), "lora_unet_mid.hada_w1_a": np.ones((4, 4), np.float32)})(tmp_path / "loha")
    report = check_serving("loha", "peft")
    assert report.findings[0].rule == "format"
    assert report.findings[0].mend.startswith("it cannot be converted (")


def test_a_report_is_json(tmp_path: Path) -> None:
    peft(bias="all")(tmp_path / "broken")
    report = check_serving("broken", "lorax")
    record = json.loads(json.dumps(report.to_json(), allow_nan=False))
    assert (record["served"], record["target"], record["format"]) == (False, "lorax", "peft")
    assert [sorted(finding) for finding in record["findings"]] == [["mend", "rule", "where", "why"]]
    assert isinstance(report, ServingReport)


def test_what_is_not_there_or_unknown_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Refusal, match="no adapter at"):
        check_serving("./nothing", "vllm")
    peft()(tmp_path / "plain")
    with pytest.raises(UsageRefusal, match="target is 'tgi'"):
        check_serving("plain", "tgi")


@pytest.mark.parametrize(
    ("target_modules", "said"),
    [("(", "no pattern that can be matched"), (5, "target_modules is 5"), ([5], "target_modules is")],
)
def test_target_modules_that_cannot_be_matched_are_refused(
    target_modules: Any, said: str, tmp_path: Path
) -> None:
    peft(target_modules=target_modules)(tmp_path / "broken")
    with pytest.raises(Refusal, match=said):
        check_serving("broken", "peft")


def test_layers_far_apart_cost_no_time(tmp_path: Path) -> None:
    tensors = {**pair(f"{LAYERS}.0.mlp.up_proj"), **pair(f"{LAYERS}.{10**15}.mlp.up_proj")}
    peft(tensors, target_modules=["up_proj"])(tmp_path / "far")
    assert check_serving("far", "lorax").served
