import pytest

from pamctl.adapters.module_names import canonical_id, kind, target_name, tower, written_path

GENERATIONS = [
    ("language_model.model.layers.3.mlp.up_proj", "language_model.layers.3.mlp.up_proj"),
    ("model.language_model.layers.3.mlp.up_proj", "language_model.layers.3.mlp.up_proj"),
    ("vision_tower.vision_model.encoder.layers.0.mlp.fc1", "vision_tower.encoder.layers.0.mlp.fc1"),
    ("model.vision_tower.vision_model.encoder.layers.0.mlp.fc1", "vision_tower.encoder.layers.0.mlp.fc1"),
    ("model.vision_tower.encoder.layers.0.mlp.fc1", "vision_tower.encoder.layers.0.mlp.fc1"),
    ("model.vision_tower.vision_model.head.mlp.fc1", "vision_tower.head.mlp.fc1"),
    ("multi_modal_projector.linear", "multi_modal_projector.linear"),
    ("model.multi_modal_projector.linear", "multi_modal_projector.linear"),
    ("language_model.lm_head", "lm_head"),
    ("lm_head", "lm_head"),
]


@pytest.mark.parametrize(("path", "module"), GENERATIONS)
def test_every_generation_of_a_path_gives_one_id(path: str, module: str) -> None:
    assert canonical_id(path) == module
    assert canonical_id(module) == module
    assert canonical_id(written_path(module)) == module


@pytest.mark.parametrize(("path", "_"), GENERATIONS)
def test_the_target_name_is_an_ending_of_the_path_from_transformers_4_52_on(path: str, _: str) -> None:
    module = canonical_id(path)
    newest = "model." + module if tower(module) != "other" else module
    for spelling in (written_path(module), newest):
        assert spelling == target_name(module) or spelling.endswith("." + target_name(module))


@pytest.mark.parametrize(
    "path", ["model.layers.0.mlp.up_proj", "../../etc/passwd", "model.visual.blocks.0.attn.qkv"]
)
def test_other_paths_are_their_own_id_and_are_written_as_they_are(path: str) -> None:
    assert canonical_id(path) == path == written_path(path) == target_name(path)


def test_tower_and_kind() -> None:
    assert tower("vision_tower.encoder.layers.0.mlp.fc1") == "vision_tower"
    assert kind("vision_tower.encoder.layers.0.mlp.fc1") == "fc1"
    assert tower("lm_head") == "other"
