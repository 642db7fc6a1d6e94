"""The rules of `inspect --target` against the loaders themselves: what is said to be served whole is."""

import json
import shlex
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pamctl.adapters import open_adapter
from pamctl.cli.main import pamctl
from pamctl.serving import check_serving
from tests.adapter_cases import delta
from tests.serving_cases import BROKEN, DUMPED, PLAIN, Writer, peft

PEFT_RULES = (
    "config-fits",
    "targets",
    "keys",
    "file-name",
    "config",
)  # spelling: of other releases than this
CASES = [(rule, write) for target, rule, write, _ in BROKEN if target == "peft" and rule in PEFT_RULES]
MLX_CASES = [(rule, write) for target, rule, write, _ in BROKEN if target == "mlx" and rule != "format"]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def peft_loads_whole(adapter: Path) -> bool:
    """Whether peft gives each module of a small model the delta that the file holds for it."""
    torch = pytest.importorskip("torch")
    library = pytest.importorskip("peft")

    def tree(**children: Any) -> Any:
        module = torch.nn.Module()
        for name, child in children.items():
            module.add_module(name, child)
        return module

    layers = torch.nn.ModuleList(
        tree(self_attn=tree(**{name: torch.nn.Linear(16, 16) for name in ("q_proj", "v_proj", "o_proj")}))
        for _ in range(2)
    )
    base = tree(model=tree(language_model=tree(layers=layers)))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            loaded = library.PeftModel.from_pretrained(base, str(adapter)).base_model.model
    except Exception:
        return False
    held = {
        f"language_model.{name.split('language_model.')[1]}": module.get_delta_weight("default").numpy()
        for name, module in loaded.named_modules()
        if isinstance(module, library.tuners.lora.Linear)
    }
    return all(
        name in held and np.allclose(held[name], delta(factors), atol=1e-4)
        for name, factors in open_adapter(adapter).modules.items()
    )


def mlx_loads_whole(adapter: Path) -> bool:
    """Whether mlx-lm takes up each tensor of the file in a small Llama."""
    mx = pytest.importorskip("mlx.core")
    pytest.importorskip("mlx_lm")
    from mlx.utils import tree_flatten
    from mlx_lm.models import llama
    from mlx_lm.tuner.utils import load_adapters

    arguments = llama.ModelArgs(
        model_type="llama",
        hidden_size=16,
        num_hidden_layers=5,
        intermediate_size=24,
        num_attention_heads=2,
        num_key_value_heads=2,
        rms_norm_eps=1e-5,
        vocab_size=16,
        tie_word_embeddings=False,
    )
    try:
        model = load_adapters(llama.Model(arguments), str(adapter))
    except Exception:
        return False
    held = dict(tree_flatten(model.parameters()))
    stored = mx.load(str(adapter / "adapters.safetensors"))
    return all(name in held and mx.array_equal(held[name], values) for name, values in stored.items())


def mended(target: str) -> Path | None:
    """What the first command mends it to, if any does."""
    commands = [finding.mend for finding in check_serving("adapter", target).findings]
    command = next((shlex.split(mend) for mend in commands if mend.startswith("pamctl ")), None)
    if command is None:
        return None
    pamctl.main(command[1:], standalone_mode=False)
    return Path(command[command.index("-o") + 1])


@pytest.mark.parametrize(("rule", "write"), [("", PLAIN["peft"]), ("", peft(DUMPED)), *CASES])
def test_peft_agrees(rule: str, write: Writer, tmp_path: Path) -> None:
    adapter = write(tmp_path / "adapter")
    assert check_serving("adapter", "peft").served is (not rule)
    assert peft_loads_whole(adapter) is (not rule)
    if (written := mended("peft")) is not None:
        assert check_serving(str(written), "peft").served
        assert peft_loads_whole(written)


@pytest.mark.parametrize(("rule", "write"), [("", PLAIN["mlx"]), *MLX_CASES])
def test_mlx_agrees(rule: str, write: Writer, tmp_path: Path) -> None:
    adapter = write(tmp_path / "adapter")
    assert check_serving("adapter", "mlx").served is (not rule)
    assert mlx_loads_whole(adapter) is (not rule)
    if (written := mended("mlx")) is not None:
        assert check_serving(str(written), "mlx").served
        assert mlx_loads_whole(written)
        assert json.loads((written / "adapter_config.json").read_text())["fine_tune_type"] == "lora"
