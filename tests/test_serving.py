import json
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from pamctl.adapters import LoraFactors, open_adapter
from pamctl.cli.errors import exit_code_of
from pamctl.cli.main import pamctl
from pamctl.refusal import Refusal, UsageRefusal
from pamctl.serving import TARGETS, ServingReport, check_serving
from tests.adapter_cases import KEY, PREFIX, delta, random_factors, write_peft

Tensors = dict[str, Any]
Writer = Callable[[Path], Path]
LAYERS = f"{PREFIX}model.language_model.layers"
V_PROJ = KEY.replace("q_proj", "v_proj")
TOWER = f"{PREFIX}model.vision_tower.vision_model.encoder.layers.0.mlp.fc1"
TARGET_MODULES = ["q_proj", "v_proj"]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def pair(key: str, rank: int = 4, inputs: int = 16, outputs: int = 16) -> Tensors:
    factors = random_factors(len(key) + rank, inputs, outputs, rank)
    return {f"{key}.lora_A.weight": factors.a, f"{key}.lora_B.weight": factors.b}


def peft(tensors: Tensors | None = None, **config: Any) -> Writer:
    fields = {"target_modules": TARGET_MODULES, "base_model_name_or_path": "tiny", **config}
    return lambda folder: write_peft(folder, tensors or pair(KEY), **fields)


def without(field: str) -> Writer:
    def write(folder: Path) -> Path:
        config = json.loads((peft()(folder) / "adapter_config.json").read_text())
        del config[field]
        (folder / "adapter_config.json").write_text(json.dumps(config))
        return folder

    return write


def renamed(name: str) -> Writer:
    def write(folder: Path) -> Path:
        (peft()(folder) / "adapter_model.safetensors").rename(folder / name)
        return folder

    return write


def mlx(tensors: Tensors | None = None, **changes: Any) -> Writer:
    def write(folder: Path) -> Path:
        folder.mkdir()
        factors = random_factors(0, 16, 16)
        key = "model.layers.0.self_attn.q_proj"
        save_file(
            tensors or {f"{key}.lora_a": factors.a.T.copy(), f"{key}.lora_b": factors.b.T.copy()},
            folder / "adapters.safetensors",
        )
        parameters = {"rank": 4, "scale": 2.0, "dropout": 0.0, "keys": ["self_attn.q_proj"]}
        config = {
            "fine_tune_type": "lora",
            "num_layers": -1,
            "lora_parameters": parameters | changes.pop("lora", {}),
        }
        kept = {key: value for key, value in (config | changes).items() if value is not None}
        (folder / "adapter_config.json").write_text(json.dumps(kept))
        return folder

    return write


def single(tensors: Tensors, metadata: dict[str, str] | None = None) -> Writer:
    def write(folder: Path) -> Path:
        folder.mkdir()
        save_file(tensors, folder / "pytorch_lora_weights.safetensors", metadata)
        return folder

    return write


def unet(*ranks: int, prefix: str = "unet.") -> Tensors:
    tensors: Tensors = {}
    for at, rank in enumerate(ranks):
        tensors |= pair(f"{prefix}down_blocks.0.attentions.{at}.transformer_blocks.0.attn1.to_q", rank)
    return tensors


def kohya(**more: Any) -> Tensors:
    key = "lora_unet_down_blocks_0_resnets_0_conv1"
    factors = random_factors(0, 16, 16)
    return {
        f"{key}.lora_down.weight": factors.a.reshape(4, 16, 1, 1),
        f"{key}.lora_up.weight": factors.b.reshape(16, 4, 1, 1),
        f"{key}.alpha": np.array(4, np.float32),
        **{f"{key}.{name}": tensor for name, tensor in more.items()},
    }


TUCKER = kohya(**{"lora_mid.weight": np.ones((4, 4, 3, 3), np.float32)})
PLAIN = {
    "vllm": peft(),
    "peft": peft(),
    "lorax": peft(),
    "mlx": mlx(),
    "diffusers": single(unet(4, 4)),
}
TWO_RANKS = {**pair(KEY), **pair(V_PROJ, rank=2)}
OWN_RANK = {"rank_pattern": {"v_proj": 2}, "alpha_pattern": {"v_proj": 4}}
BARE = {name.removeprefix(PREFIX): tensor for name, tensor in pair(KEY).items()}
DUMPED = {name.replace(".weight", ".default.weight"): tensor for name, tensor in pair(KEY).items()}
WITH_BIAS = {**pair(KEY), f"{KEY}.lora_B.bias": np.ones(16, np.float32)}
WITH_HEAD = {**pair(KEY), f"{PREFIX}lm_head.weight": np.ones((10, 16), np.float32)}
CONV = {
    f"{KEY}.lora_A.weight": np.ones((4, 3, 2, 2), np.float32),
    f"{KEY}.lora_B.weight": np.ones((16, 4, 1, 1), np.float32),
}
EMBEDDING = {
    f"{PREFIX}model.language_model.embed_tokens.lora_embedding_A": np.ones((4, 100), np.float32),
    f"{PREFIX}model.language_model.embed_tokens.lora_embedding_B": np.ones((16, 4), np.float32),
}
FIFTH = pair(f"{PREFIX}model.vision_tower.encoder.layers.0.mlp.fc1")
OLD_PROJECTOR = pair(f"{PREFIX}multi_modal_projector.linear")
GAP = {
    **pair(f"{LAYERS}.0.mlp.up_proj"),
    **pair(f"{LAYERS}.1.mlp.up_proj"),
    **pair(f"{LAYERS}.1.mlp.down_proj"),
}
MLX_A = random_factors(0, 16, 16).a.T.copy()
MLX_B = random_factors(0, 16, 16).b.T.copy()


def mlx_module(path: str, a: str = "lora_a", b: str = "lora_b", rank: int = 4) -> Tensors:
    return {f"{path}.{a}": MLX_A[:, :rank].copy(), f"{path}.{b}": MLX_B[:rank].copy()}


TWO_MLX_RANKS = {
    **mlx_module("model.layers.0.self_attn.q_proj"),
    **mlx_module("model.layers.1.self_attn.q_proj", rank=2),
}
TWO_MLX_LAYERS = {
    **mlx_module("model.layers.0.self_attn.q_proj"),
    **mlx_module("model.layers.4.self_attn.q_proj"),
}

# What breaks each rule of each target, and whether a command mends it.
BROKEN: list[tuple[str, str, Writer, bool]] = [
    *((target, "format", mlx(), True) for target in ("vllm", "peft", "lorax")),
    ("mlx", "format", peft(pair(f"{PREFIX}model.layers.0.self_attn.q_proj")), True),
    ("diffusers", "format", peft(unet(4, prefix=PREFIX)), True),
    *((target, "file-name", renamed("weights.safetensors"), True) for target in ("vllm", "peft", "lorax")),
    ("vllm", "config", without("lora_alpha"), True),
    ("vllm", "config", without("target_modules"), True),
    ("peft", "config", without("peft_type"), False),
    ("lorax", "config", without("peft_type"), False),
    *((target, "plain-lora", peft(use_dora=True), False) for target in ("vllm", "lorax")),
    *((target, "plain-lora", peft(init_lora_weights="pissa"), False) for target in ("vllm", "lorax")),
    *((target, "config-fits", peft(pair(KEY, rank=2)), False) for target in ("vllm", "peft", "lorax")),
    *((target, "one-scale", peft(alpha_pattern={"q_proj": 16}), True) for target in ("vllm", "lorax")),
    *((target, "one-scale", peft(TWO_RANKS, **OWN_RANK), True) for target in ("vllm", "lorax")),
    ("lorax", "one-rank", peft(TWO_RANKS, **OWN_RANK), True),
    *(
        (target, "full-modules", peft(WITH_HEAD, modules_to_save=["lm_head"]), False)
        for target in ("vllm", "lorax")
    ),
    *((target, "full-modules", peft(modules_to_save=["lm_head"]), True) for target in ("vllm", "lorax")),
    *((target, "bias", peft(WITH_BIAS, lora_bias=True), False) for target in ("vllm", "lorax")),
    *((target, "bias", peft(bias="all"), True) for target in ("vllm", "lorax")),
    *((target, "keys", peft(DUMPED), True) for target in ("vllm", "peft", "lorax")),
    *((target, "keys", peft(BARE), True) for target in ("vllm", "peft", "lorax")),
    ("peft", "spelling", peft(FIFTH, target_modules=["fc1"]), True),
    ("vllm", "spelling", peft(FIFTH, target_modules=["fc1"]), True),
    ("peft", "spelling", peft(OLD_PROJECTOR, target_modules=["linear"]), True),
    *((target, "linear-only", peft(CONV), False) for target in ("vllm", "lorax")),
    ("lorax", "embeddings", peft(EMBEDDING, target_modules=["embed_tokens"]), False),
    ("vllm", "rank", peft(pair(KEY, rank=513), r=513, lora_alpha=513), True),
    ("vllm", "rank", peft(pair(KEY, rank=17), r=17, lora_alpha=17), False),
    ("vllm", "towers", peft(pair(TOWER), target_modules=["fc1"]), False),
    ("peft", "targets", peft(TWO_RANKS | pair(V_PROJ), target_modules=["q_proj"]), True),
    ("peft", "targets", peft(target_modules=r".*\.v_proj"), True),
    ("peft", "targets", without("target_modules"), True),
    ("lorax", "every-layer", peft(GAP, target_modules=["up_proj", "down_proj"]), False),
    ("mlx", "config", mlx(num_layers=None), True),
    ("mlx", "keys", mlx(mlx_module("model.layers.0.self_attn.q_proj", "A", "B")), True),
    ("mlx", "one-rank", mlx(TWO_MLX_RANKS), False),
    ("mlx", "modules", mlx(mlx_module("lm_head"), lora={"keys": None}), True),
    ("mlx", "modules", mlx(TWO_MLX_LAYERS, num_layers=3), True),
    ("mlx", "modules", mlx(lora={"keys": ["self_attn.v_proj"]}), True),
    ("diffusers", "prefix", single(unet(4, prefix="diffusion_model.")), True),
    ("diffusers", "scale", single(unet(4, 2)), True),
    ("diffusers", "products", single(TUCKER), True),
]


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
