"""Clips: which frames of a video are seen, and how they are read from folders, arrays and video files."""

import sys
import wave
from collections import Counter
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from pamctl.refusal import Refusal, UsageRefusal
from pamctl.tasks import Example
from pamctl.tasks.videos import FrameSource, VideoClip, Videos
from pamctl.tasks.videos.frame_array import FrameArray
from pamctl.tasks.videos.frame_folder import FrameFolder
from pamctl.tasks.videos.video_file import VideoFile
from pamctl.tasks.visits import Clip, images_at
from tests.tasks.video_cases import frame, write_video

WHERE = "qa.json line 3 (2)"


def numbers(images: object) -> list[int]:
    """The numbers of frames, all of which are RGB."""
    found = []
    for image in images:  # type: ignore[attr-defined]
        assert (image.mode, image.size) == ("RGB", (16, 8))
        found.append(round(float(np.asarray(image).mean()) / 10))
    return found


def write_array(folder: Path, count: int) -> FrameArray:
    np.save(folder / "v.npy", np.stack([frame(number) for number in range(count)]))
    return FrameArray(folder / "v.npy", WHERE)


def write_folder(folder: Path, count: int) -> FrameFolder:
    (folder / "v").mkdir()
    for number in range(count):
        Image.fromarray(frame(number)).save(folder / "v" / f"v7_frame{number}.png")
    return FrameFolder(folder / "v", WHERE)


def write(kind: str, folder: Path, count: int) -> FrameSource:
    match kind:
        case "array":
            return write_array(folder, count)
        case "folder":
            return write_folder(folder, count)
        case "avi":
            return VideoFile(write_video(folder / "v.avi", count, "rawvideo"), WHERE)
        case _:
            return VideoFile(write_video(folder / "v.mkv", count, "ffv1"), WHERE)


KINDS = ("array", "folder", "avi", "mkv")


@pytest.mark.parametrize("kind", KINDS)
def test_frames_a_stride_apart_and_from_the_first_again_where_the_video_ends(
    kind: str, tmp_path: Path
) -> None:
    source = write(kind, tmp_path, 12)
    assert source.count() == 12
    assert numbers(VideoClip(source, 3, 4)()) == [0, 4, 8]
    assert numbers(VideoClip(source, 5, 4)()) == [0, 4, 8, 0, 4]
    assert numbers(VideoClip(source, 7, 5)()) == [0, 5, 10, 0, 5, 10, 0]
    assert numbers(VideoClip(source, 2, 50)()) == [0, 0]
    assert numbers(source.read(11, 1, 4)) == [11]


@pytest.mark.parametrize("kind", KINDS)
def test_a_start_is_one_of_those_after_which_a_whole_clip_follows(kind: str, tmp_path: Path) -> None:
    clip = VideoClip(write(kind, tmp_path, 12), 3, 4)
    starts = (0, 0.24, 0.25, 0.5, 0.75, 0.999)
    assert [numbers(clip.at(start)) for start in starts] == [
        [0, 4, 8],
        [0, 4, 8],
        [1, 5, 9],
        [2, 6, 10],
        [3, 7, 11],
        [3, 7, 11],
    ]
    assert numbers(VideoClip(clip.source, 4, 4).at(0.999)) == [0, 4, 8, 0]


def test_training_draws_a_start_at_each_visit_and_scores_are_taken_from_the_first_frame(
    tmp_path: Path,
) -> None:
    clip = VideoClip(write_array(tmp_path, 12), 3, 4)
    assert isinstance(clip, Clip)
    example = Example("7", "what runs?", ("cat",), clip)
    seen = Counter(numbers(images_at(example, 0, epoch))[0] for epoch in range(120))
    assert sorted(seen) == [0, 1, 2, 3]
    assert min(seen.values()) > 15
    assert [numbers(images_at(example, 0, 7)) for _ in range(2)] == [numbers(images_at(example, 0, 7))] * 2
    assert numbers(example.load_images()) == [0, 4, 8]


def test_equal_clips_are_one_key(tmp_path: Path) -> None:
    source = write_array(tmp_path, 2)
    same = VideoClip(FrameArray(source.path, "elsewhere"), 8, 26)
    assert {VideoClip(source, 8, 26): 1}[same] == 1
    assert VideoClip(source, 8, 25) != same


def test_frames_are_in_the_order_of_their_numbers_and_other_files_are_left_alone(tmp_path: Path) -> None:
    source = write_folder(tmp_path, 12)
    (tmp_path / "v" / "Thumbs.db").write_bytes(b"")
    (tmp_path / "v" / "v7_frame3.png").rename(tmp_path / "v" / "v7_frame0003.PNG")
    assert numbers(source.read(0, 1, 12)) == list(range(12))


def test_a_folder_without_frames_or_with_a_broken_one_is_named(tmp_path: Path) -> None:
    source = write_folder(tmp_path, 3)
    (tmp_path / "v" / "v7_frame2.png").write_bytes(b"no picture")
    assert numbers(source.read(0, 1, 2)) == [0, 1]
    with pytest.raises(Refusal, match=r"line 3 \(2\): image .*v7_frame2\.png cannot be read"):
        source.read(0, 1, 3)
    for file in (tmp_path / "v").iterdir():
        file.unlink()
    with pytest.raises(Refusal, match=r"line 3 \(2\): video .*v holds no frames"):
        source.read(0, 1, 3)
    (tmp_path / "v").rmdir()
    with pytest.raises(Refusal, match=r"line 3 \(2\): video .*v cannot be read: No such file"):
        source.count()


@pytest.mark.parametrize(
    ("frames", "fault"),
    [
        (np.zeros((2, 4, 4, 3), np.float32), r"has shape \(2, 4, 4, 3\) of float32, not"),
        (np.zeros((2, 4, 4), np.uint8), r"has shape \(2, 4, 4\) of uint8, not"),
        (np.zeros((2, 3, 4, 4), np.uint8), r"has shape \(2, 3, 4, 4\) of uint8, not"),
        (np.zeros((0, 4, 4, 3), np.uint8), r"has shape \(0, 4, 4, 3\) of uint8, not"),
        (np.array([{}]), "cannot be read: Array can't be memory-mapped: Python objects"),
    ],
)
def test_an_array_that_is_no_video_is_named(tmp_path: Path, frames: np.ndarray, fault: str) -> None:
    np.save(tmp_path / "v.npy", frames, allow_pickle=True)
    with pytest.raises(Refusal, match=rf"line 3 \(2\): video .*v\.npy {fault}"):
        FrameArray(tmp_path / "v.npy", WHERE).read(0, 1, 2)


@pytest.mark.parametrize("shape", ["(1" + "0" * 29 + ", 4, 4, 3)", "(-1, 4, 4, 3)", "(" * 400])
def test_an_array_whose_header_is_nonsense_is_named(tmp_path: Path, shape: str) -> None:
    header = f"{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    content = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + b"\0" * 96
    (tmp_path / "v.npy").write_bytes(content)
    with pytest.raises(Refusal, match=r"v\.npy cannot be read: "):
        FrameArray(tmp_path / "v.npy", WHERE).count()


def test_an_array_that_is_cut_off_or_another_file_is_named(tmp_path: Path) -> None:
    source = write_array(tmp_path, 3)
    content = source.path.read_bytes()
    for broken in (content[:-9], b"", b"no array"):
        source.path.write_bytes(broken)
        with pytest.raises(Refusal, match=r"v\.npy cannot be read: "):
            source.count()
    with source.path.open("wb") as file:
        np.savez(file, frames=np.zeros((1, 4, 4, 3), np.uint8))
    with pytest.raises(Refusal, match=r"v\.npy is a zip archive of arrays"):
        source.count()


def test_a_video_is_decoded_no_further_than_the_last_frame_seen(tmp_path: Path) -> None:
    source = VideoFile(write_video(tmp_path / "v.avi", 12, "rawvideo"), WHERE)
    content = source.path.read_bytes()
    chunk = 8 + frame(0).size
    source.path.write_bytes(content[: content.index(b"movi") + 4 + 6 * chunk])
    assert numbers(source.read(1, 2, 2)) == [1, 3]
    with pytest.raises(
        Refusal, match=r"line 3 \(2\): video .*v\.avi ends after \d frames, and has 12 by its header"
    ):
        source.read(0, 4, 3)


def test_a_file_whose_length_is_not_in_its_header_is_counted(tmp_path: Path) -> None:
    source = VideoFile(write_video(tmp_path / "v.mkv", 12, "ffv1"), WHERE)
    with av.open(str(source.path)) as container:
        assert container.streams.video[0].frames == 0
    assert source.count() == 12
    with pytest.raises(Refusal, match=r"v\.mkv ends before frame 12"):
        source.read(12, 1, 1)


def test_what_is_no_video_is_named(tmp_path: Path) -> None:
    source = VideoFile(tmp_path / "v.mp4", WHERE)
    for content in (b"", b"no video", b"\x00\x00\x00\x18ftypmp42"):
        source.path.write_bytes(content)
        with pytest.raises(Refusal, match=r"line 3 \(2\): video .*v\.mp4 cannot be read: "):
            source.read(0, 1, 1)
    with wave.open(str(source.path), "wb") as sound:
        sound.setparams((1, 2, 8000, 0, "NONE", ""))
        sound.writeframes(b"\0" * 1600)
    with pytest.raises(Refusal, match=r"v\.mp4 has no pictures"):
        source.read(0, 1, 1)


def test_without_pyav_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = VideoFile(write_video(tmp_path / "v.avi", 2, "rawvideo"), WHERE)
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(Refusal) as refusal:
        source.read(0, 1, 1)
    assert refusal.value.what == f"{WHERE}: video {source.path} needs PyAV, which is not installed"
    assert 'pip install "pamctl[video]"' in refusal.value.way_on


def test_the_first_place_and_what_is_fastest_to_read_win(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    for place in (first, second):
        (place / "b").mkdir(parents=True)
    for file in (
        first / "b.mp4",
        first / "c.webm",
        second / "a.MP4",
        second / "b.npy",
        second / "c.npy",
        first / "d.txt",
    ):
        file.write_bytes(b"")
    videos = Videos([first, second])
    assert videos.find(["a"], WHERE) == VideoFile(second / "a.MP4", "")
    assert videos.find(["b"], WHERE) == FrameFolder(first / "b", "")
    assert videos.find(["c"], WHERE) == VideoFile(first / "c.webm", "")
    assert videos.find(["none", "a"], WHERE) == VideoFile(second / "a.MP4", "")
    assert videos.find(["d"], WHERE) is None
    assert Videos([second]).find(["b"], WHERE) == FrameArray(second / "b.npy", "")
    with pytest.raises(UsageRefusal, match="third cannot be read: No such file"):
        Videos([second, tmp_path / "third"]).find(["b"], WHERE)
    (tmp_path / "videos.zip").write_bytes(b"")
    (tmp_path / "third").mkdir()
    (tmp_path / "third" / "v.npy").symlink_to(tmp_path / "third" / "v.npy")
    with pytest.raises(UsageRefusal, match="third cannot be read: Too many levels"):
        Videos([tmp_path / "third"]).find(["v"], WHERE)
    with pytest.raises(UsageRefusal, match=r"videos\.zip is no folder"):
        Videos([tmp_path / "videos.zip"]).find(["a"], WHERE)
