"""MSVD-QA, MSRVTT-QA and ActivityNet-QA as they are released: questions by split, clips of their videos."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pamctl.refusal import Refusal, UsageRefusal
from pamctl.tasks import Example, open_task
from pamctl.tasks.videos import VideoClip
from pamctl.tasks.visits import images_at
from tests.tasks.release_cases import (
    RELEASES,
    copied,
    drawn,
    edit_json,
    faults,
    near,
    score,
    script,
    texts,
    with_toml,
)
from tests.tasks.video_cases import frame as video_frame
from tests.tasks.video_cases import write_video

NAMES = ("msvd-qa", "msrvtt-qa", "activitynet-qa")
PLACES = {"msvd-qa": "YouTubeClips", "msrvtt-qa": "videos", "activitynet-qa": "videos"}
FILES = {"msvd-qa": "val_qa.json", "msrvtt-qa": "val_qa.json", "activitynet-qa": "val_a.json"}

for_each = pytest.mark.parametrize("name", NAMES)


def frames(example: Example) -> list[np.ndarray]:
    """Those that scores are taken with."""
    return [np.asarray(image) for image in example.load_images()]


@for_each
def test_every_split_has_its_four_questions(name: str) -> None:
    task = open_task(RELEASES / name)
    assert {split: len(task.split(split)) for split in task.splits} == {"train": 4, "val": 4, "test": 4}
    assert (task.metric, task.text_length, task.max_new_tokens) == ("exact", 64, 64)


@pytest.mark.parametrize(
    ("name", "frames", "stride", "decay"),
    [("msvd-qa", 8, 26, 3e-7), ("msrvtt-qa", 16, 9, 0), ("activitynet-qa", 16, 70, 1e-6)],
)
def test_clips_and_recipes_are_those_of_the_paper(name: str, frames: int, stride: int, decay: float) -> None:
    task = open_task(RELEASES / name)
    clip = task.split("train")[0].load_images
    assert isinstance(clip, VideoClip)
    assert (task.frames, clip.frames, clip.stride) == (frames, frames, stride)
    assert (task.recipe.epochs, task.recipe.batch_size, task.recipe.weight_decay) == (1, 128, decay)
    assert len(clip()) == frames


def test_msvd_finds_a_video_by_its_name_on_youtube() -> None:
    task = open_task(RELEASES / "msvd-qa")
    assert texts(task.split("val"))[3] == ("7", "answer en who eats?", ("naïve dog",))
    assert [example.type for example in task.split("train")] == ["what", "who", "how", "other"]
    assert [example.type for example in task.split("val")] == ["where", "when", "what", "who"]
    onion, _, _, kitten = task.split("test")
    assert all(np.array_equal(frame, drawn(300)) for frame in frames(onion))
    assert np.array_equal(frames(kitten)[0], drawn(200))
    assert (score(task, " Onion", onion), score(task, "onions", onion)) == (1, 0)


def test_frames_and_stride_are_the_tomls_to_change(tmp_path: Path) -> None:
    folder = with_toml(copied("msvd-qa", tmp_path), 'reader = "msvd-qa"\nframes = 4\nstride = 2\n')
    task = open_task(folder)
    kitten = task.split("test")[3]
    assert task.frames == 4
    assert [np.array_equal(image, drawn(200 + 2 * place)) for place, image in enumerate(frames(kitten))] == [
        True
    ] * 4
    starts = {
        seed
        for epoch in range(40)
        for seed in range(12)
        if np.array_equal(images_at(kitten, 0, epoch)[0], drawn(200 + seed))
    }
    assert starts == set(range(6))


def test_msrvtt_reads_arrays_of_frames() -> None:
    task = open_task(RELEASES / "msrvtt-qa")
    assert texts(task.split("test"))[1] == ("9", "answer en who cooks?", ("señora",))
    assert [example.type for example in task.split("val")] == ["what", "who", "where", "other"]
    for place, example in enumerate(task.split("train")):
        assert example.load_images == task.split("train")[0].load_images, place
    picture = np.asarray(script("drawing").picture(0, (8, 6)))
    assert all(np.array_equal(frame, picture) for frame in frames(task.split("train")[0]))


def test_activitynet_joins_questions_and_answers_that_are_in_another_order() -> None:
    task = open_task(RELEASES / "activitynet-qa")
    assert texts(task.split("val"))[1] == ("v_1QIUV7WYKXg_3", "answer en where is it", ("café",))
    assert [example.type for example in task.split("train")] == [
        "temporal relationship",
        "spatial relationship",
        "motion",
        "yes/no",
    ]
    assert [example.type for example in task.split("val")] == ["number", "location", "object", "color"]
    assert {example.type for example in task.split("test")} == {"motion", "color", "yes/no", "other"}
    seen = frames(task.split("test")[0])
    assert len(seen) == 16
    assert all(near(frame, 20) for frame in seen)


@for_each
def test_a_video_that_is_nowhere_is_named_with_its_record(name: str, tmp_path: Path) -> None:
    folder = copied(name, tmp_path)
    shutil.rmtree(folder / PLACES[name])
    told = faults(folder, "val")
    assert len(told) == 4
    assert all(
        fault.startswith(f"{FILES[name]} line ") and fault.endswith(" is not in any folder") for fault in told
    )
    skipping = open_task(with_toml(folder, f'reader = "{name}"\nmissing = "skip"\n'))
    with pytest.raises(UsageRefusal, match="is empty"):
        skipping.split("val")


@for_each
def test_videos_may_lie_elsewhere(name: str, tmp_path: Path) -> None:
    folder = copied(name, tmp_path)
    before = frames(open_task(folder).split("val")[0])
    (tmp_path / "disk").mkdir()
    shutil.move(folder / PLACES[name], tmp_path / "disk" / "v1")
    with_toml(folder, f'reader = "{name}"\nimages = ["../disk/v1"]\n')
    assert np.array_equal(frames(open_task(folder).split("val")[0]), before)


@for_each
def test_a_file_that_is_cut_off_is_named_by_line(name: str, tmp_path: Path) -> None:
    file = copied(name, tmp_path) / FILES[name]
    edit_json(file, lambda content: None)
    lines = file.read_text().split("\n")
    file.write_text("\r\n".join(lines[:-3]))
    with pytest.raises(Refusal) as refusal:
        open_task(tmp_path / name).split("val")
    assert refusal.value.what == f"{file} line {len(lines) - 3} is not JSON: it is cut off"


@for_each
def test_a_missing_file_is_named(name: str, tmp_path: Path) -> None:
    folder = copied(name, tmp_path)
    (folder / FILES[name]).unlink()
    with pytest.raises(UsageRefusal) as refusal:
        open_task(folder).split("val")
    assert refusal.value.what == f"{folder} has no {FILES[name]}"


@pytest.mark.parametrize(
    ("name", "change", "fault"),
    [
        ("msvd-qa", {"video_id": "vid1"}, "has a text as `video_id`, not a whole number"),
        ("msvd-qa", {"video_id": 9}, "is on vid9, which youtube_mapping.txt does not have"),
        ("msvd-qa", {"question": None}, "has null as `question`, not a text"),
        ("msrvtt-qa", {"answer": " "}, "has no answer"),
        ("msrvtt-qa", {"id": True}, "has true or false as `id`, not a name or number"),
        ("activitynet-qa", {"type": 9}, "has 9 as `type`, not 0 to 8"),
        ("activitynet-qa", {"type": "3"}, "has a text as `type`, not a whole number"),
        ("activitynet-qa", {"question_id": "v_x"}, "answers question v_x, which val_q.json does not have"),
    ],
)
def test_a_record_at_fault_is_named_by_file_line_and_place(
    name: str, change: dict[str, Any], fault: str, tmp_path: Path
) -> None:
    folder = copied(name, tmp_path)
    edit_json(folder / FILES[name], lambda content: content[1].update(change))
    told, *_ = faults(folder, "val")
    assert told.startswith(f"{FILES[name]} line ")
    assert told.endswith(f" (1) {fault}")


def test_a_question_of_activitynet_at_fault_leaves_its_answer_without_one(tmp_path: Path) -> None:
    folder = copied("activitynet-qa", tmp_path)
    edit_json(folder / "val_q.json", lambda content: content[0].update(video_name=3))
    question, answer = faults(folder, "val")
    assert question.startswith("val_q.json line ")
    assert question.endswith(" (0) has a number as `video_name`, not a text")
    assert answer.endswith(" (3) answers question v_1QIUV7WYKXg_1, which val_q.json does not have")


def test_the_mapping_of_msvd_is_needed_and_read_line_by_line(tmp_path: Path) -> None:
    folder = copied("msvd-qa", tmp_path)
    mapping = folder / "youtube_mapping.txt"
    mapping.write_bytes(b"\xef\xbb\xbf" + mapping.read_bytes().replace(b"\n", b"\r\n") + b"\r\n")
    assert len(open_task(folder).split("test")) == 4
    mapping.write_text("mv89psg6zh4_33_46 vid1\n\nvid2\n")
    with pytest.raises(Refusal, match=r"youtube_mapping\.txt line 3 is not a video's name and its number"):
        open_task(folder).split("test")
    mapping.write_bytes(b"\xff")
    with pytest.raises(Refusal, match=r"youtube_mapping\.txt is not UTF-8"):
        open_task(folder).split("test")
    mapping.unlink()
    with pytest.raises(UsageRefusal) as refusal:
        open_task(folder).split("test")
    assert refusal.value.what == f"{folder} has no youtube_mapping.txt"


def test_videos_may_be_files(tmp_path: Path) -> None:
    folder = copied("msvd-qa", tmp_path)
    shutil.rmtree(folder / "YouTubeClips" / "_O9kWD8nuRU_0_9")
    write_video(folder / "YouTubeClips" / "_O9kWD8nuRU_0_9.avi", 20, "rawvideo")
    with_toml(folder, 'reader = "msvd-qa"\nframes = 4\nstride = 6\n')
    seen = frames(open_task(folder).split("test")[0])
    assert np.array_equal(seen, [video_frame(number) for number in (0, 6, 12, 18)])


def test_videos_of_msvd_may_be_named_by_their_number(tmp_path: Path) -> None:
    folder = copied("msvd-qa", tmp_path)
    (folder / "YouTubeClips" / "_O9kWD8nuRU_0_9").rename(folder / "YouTubeClips" / "vid3")
    assert np.array_equal(frames(open_task(folder).split("test")[0])[0], drawn(300))
