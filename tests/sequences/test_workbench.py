"""The workbench makes and scores what the single commands make and score, whatever the adapter adapts."""

from pathlib import Path

import pytest

from pamctl.adapters import open_adapter
from pamctl.evaluation.score import score_adapter
from pamctl.models.base import load_base
from pamctl.sequences.workbench import Workbench
from pamctl.tasks import open_task
from pamctl.training import train_task
from pamctl.training.configuration import Settings
from tests.training_cases import SETTINGS, write_base, write_task

VISION_TOO = r"(language_model|vision_tower\.encoder)\.layers\.\d+\.self_attn\.q_proj"


@pytest.mark.parametrize("targets", [VISION_TOO, r"multi_modal_projector\.linear"])
def test_an_adapted_vision_tower_is_trained_and_scored_with_its_own_features(
    targets: str, tmp_path: Path
) -> None:
    base = str(write_base(tmp_path / "base"))
    file = write_task(tmp_path)
    settings: Settings = {**SETTINGS, "steps": 2, "targets": targets}
    alone = open_adapter(train_task(file, tmp_path / "alone", base=base, **settings))
    bench = Workbench(load_base(base), {"colours": open_task(file)})
    frozen: Settings = {**SETTINGS, "steps": 2}  # leaves a split encoded for a frozen tower behind
    bench.trained(["colours"], frozen, tmp_path / "frozen")
    shared = bench.trained(["colours"], settings, tmp_path / "shared")
    assert shared.fingerprint == alone.fingerprint
    for adapter, reference in ((None, None), (shared, str(tmp_path / "alone"))):
        (by_command,) = score_adapter(reference, [file], base=base)
        assert bench.evaluated(adapter, "colours")[0] == by_command
