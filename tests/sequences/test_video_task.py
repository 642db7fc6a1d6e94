"""Videos from their release to a score: frames at starts drawn anew are trained on, fixed ones are scored."""

from pathlib import Path

import numpy as np
import pytest

from pamctl.models.base import Base, load_base
from pamctl.sequences.workbench import Workbench
from pamctl.tasks import Task, open_task
from pamctl.tasks.visits import images_at
from pamctl.training import batches
from pamctl.training.batches import load_pixels, train_split
from pamctl.training.configuration import Settings
from pamctl.training.epochs import Visits
from tests.tasks.release_cases import copied, with_toml
from tests.training_cases import CONFIG, SETTINGS, write_base

FRAMES = 3


@pytest.fixture
def base(tmp_path: Path) -> Base:
    return load_base(str(write_base(tmp_path / "base")))


@pytest.fixture
def task(tmp_path: Path) -> Task:
    toml = f'reader = "msvd-qa"\nframes = {FRAMES}\nstride = 2\n[splits]\ntrain = "val"\ntest = "val"\n'
    return open_task(with_toml(copied("msvd-qa", tmp_path), toml))


def test_each_visit_of_an_example_sees_a_clip_of_its_own(base: Base, task: Task) -> None:
    split = train_split(base, task)
    examples = task.split("train")
    visits = Visits(7, np.array([0, 0, 3]), np.array([0, 1, 5]))
    assert not split.features_given
    seen = split.batch(visits).images
    assert seen.shape == (3, FRAMES, 8, 8, 3)
    for row, (index, epoch) in enumerate(zip(visits.examples, visits.epochs, strict=True)):
        for frame, image in enumerate(images_at(examples[index], 7, int(epoch))):
            np.testing.assert_array_equal(seen[row, frame], base.images.pixels(image))
    first = load_pixels(base, examples)[0]
    assert not np.array_equal(seen[0], first) or not np.array_equal(seen[1], first)


def test_a_task_of_videos_is_trained_and_scored_without_all_its_features_in_memory(
    base: Base, task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Workbench(base, {"msvd-qa": task})
    settings: Settings = {**SETTINGS, "steps": 2}
    adapter = bench.trained(["msvd-qa"], settings, tmp_path / "trained")
    assert adapter.provenance is not None
    assert adapter.provenance.tasks == ("msvd-qa",)
    one_frame_less = 4 * FRAMES * 4 * 4 * CONFIG.text.hidden_size - 1
    monkeypatch.setattr(batches, "MEMORY_FOR_FEATURES", one_frame_less)
    result, predictions = bench.evaluated(adapter, "msvd-qa")
    assert not bench._features
    assert (result.n, result.metric) == (4, "exact")
    assert sorted(result.types or {}) == ["what", "when", "where", "who"]
    assert [prediction.id for prediction in predictions] == ["4", "5", "6", "7"]
