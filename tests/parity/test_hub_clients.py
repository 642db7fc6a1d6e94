"""What `--push-to` put on a Hub is loaded from there by peft, and its card by huggingface_hub."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pamctl.adapters.card import FILE_NAME, card
from tests.adapter_cases import random_adapter, saved
from tests.hub_server import serve

pytest.importorskip("peft")

PUSHED = (
    "import pathlib, sys; from pamctl.hub import push\n"
    "push(pathlib.Path(sys.argv[1]), 'org/pushed', 'x', lambda there, new: ())"
)
LOADED_BY_PEFT = """
import json
from huggingface_hub import ModelCard
from peft import PeftConfig
from peft.utils import load_peft_weights

config = PeftConfig.from_pretrained("org/pushed")
weights = load_peft_weights("org/pushed", device="cpu")
card = ModelCard.load("org/pushed").data.to_dict()
print(json.dumps({"r": config.r, "base": config.base_model_name_or_path, "shapes": sorted(
    (name, list(tensor.shape)) for name, tensor in weights.items()), "card": card}))
"""


def test_peft_loads_what_was_pushed(tmp_path: Path) -> None:
    adapter = random_adapter(tasks=("a",))
    saved(adapter, tmp_path / "pushed")
    (tmp_path / "pushed" / FILE_NAME).write_text(card(adapter, "peft"), encoding="utf-8")
    with serve() as hub:
        settings = {"HF_ENDPOINT": hub.endpoint, "HF_HOME": str(tmp_path / "home"), "HF_TOKEN": hub.token}
        environment = {**os.environ, **settings, "HF_HUB_DISABLE_XET": "1"}
        subprocess.run([sys.executable, "-c", PUSHED, str(tmp_path / "pushed")], env=environment, check=True)
        ended = subprocess.run(
            [sys.executable, "-c", LOADED_BY_PEFT],
            env=environment,
            check=True,
            capture_output=True,
            text=True,
        )
    told = json.loads(ended.stdout)
    assert told["r"] == adapter.rank
    assert told["card"]["library_name"] == "peft"
    assert sum(shape[0] * shape[1] for _, shape in told["shapes"]) == adapter.parameters
