"""Images are found in folders, zip and tar archives, none of them unpacked, and faults name their place."""

import errno
import io
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pamctl.refusal import Refusal, UsageRefusal
from pamctl.tasks.images import Images, open_source

NAME = "train2014/COCO_train2014_000000000001.png"


def png(colour: tuple[int, int, int]) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (3, 2), colour).save(file, "PNG")
    return file.getvalue()


def folder_of(place: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_bytes(content)
    return place


def zip_of(place: Path, files: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(place.with_suffix(".zip"), "w", method) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return place.with_suffix(".zip")


def tar_of(place: Path, files: dict[str, bytes]) -> Path:
    with tarfile.open(place.with_suffix(".tar"), "w") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(f"./{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return place.with_suffix(".tar")


Make = Callable[[Path, dict[str, bytes]], Path]
makers = pytest.mark.parametrize("make", [folder_of, zip_of, tar_of])


@pytest.mark.parametrize(
    ("make", "around"), [(folder_of, ""), (zip_of, ""), (tar_of, ""), (zip_of, "a/b/"), (tar_of, "a/b/")]
)
def test_an_image_is_found_under_its_name(tmp_path: Path, make: Make, around: str) -> None:
    files = {f"{around}{NAME}": png((1, 2, 3)), f"{around}other.png": png((9, 9, 9))}
    place = make(tmp_path / "images", files)
    picture = Images([place]).find(NAME, "record 1")
    assert picture is not None
    (image,) = picture()
    assert np.array_equal(np.asarray(image), np.full((2, 3, 3), (1, 2, 3)))
    assert str(place) in picture.place
    assert Images([place]).find("train2014/none.png", "record 1") is None


@makers
def test_leading_folders_of_a_name_may_be_missing(tmp_path: Path, make: Make) -> None:
    place = make(tmp_path / "images", {NAME.rpartition("/")[2]: png((1, 2, 3))})
    assert Images([place]).find(NAME, "") is not None


def test_the_same_file_name_in_several_folders_is_found_by_its_folder(tmp_path: Path) -> None:
    place = zip_of(tmp_path / "z", {"x/1/image.png": png((1, 1, 1)), "x/2/image.png": png((2, 2, 2))})
    images = Images([place])
    second = images.find("2/image.png", "")
    assert second is not None
    assert second()[0].getpixel((0, 0)) == (2, 2, 2)
    assert images.find("image.png", "") is None


def test_sources_are_asked_in_their_order(tmp_path: Path) -> None:
    first = folder_of(tmp_path / "f", {"a.png": png((1, 1, 1))})
    second = zip_of(tmp_path / "z", {"a.png": png((2, 2, 2)), "b.png": png((3, 3, 3))})
    images = Images([first, second])
    found = {name: images.find(name, "") for name in ("a.png", "b.png")}
    assert [picture()[0].getpixel((0, 0)) for picture in found.values() if picture] == [(1,) * 3, (3,) * 3]


@makers
def test_an_image_is_one_however_often_it_is_asked_for(tmp_path: Path, make: Make) -> None:
    images = Images([make(tmp_path / "images", {"a.png": png((1, 1, 1))})])
    assert images.find("a.png", "here") == images.find("a.png", "there")


def cut(place: Path) -> Path:
    place.write_bytes(place.read_bytes()[:-60])
    return place


@makers
def test_a_broken_image_is_named_with_its_record(tmp_path: Path, make: Make) -> None:
    place = make(tmp_path / "images", {"a.png": png((1, 1, 1))[:40]})
    picture = Images([place]).find("a.png", "file.json line 3 (7)")
    assert picture is not None
    with pytest.raises(Refusal, match=r"file\.json line 3 \(7\): image .*a\.png cannot be read"):
        picture()


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_damaged_member_is_named(tmp_path: Path, method: int) -> None:
    place = zip_of(tmp_path / "z", {"a.png": png((1, 1, 1))}, method)
    content = bytearray(place.read_bytes())
    content[50] ^= 0xFF
    place.write_bytes(content)
    picture = Images([place]).find("a.png", "record 7")
    assert picture is not None
    with pytest.raises(Refusal, match=r"record 7: image .*a\.png cannot be read"):
        picture()


def test_archives_that_cannot_be_read_are_refused(tmp_path: Path) -> None:
    broken = cut(zip_of(tmp_path / "z", {"a.png": png((1, 1, 1))}))
    with pytest.raises(Refusal, match=r"z\.zip cannot be read as a zip"):
        open_source(broken)
    (tmp_path / "no.tar").write_bytes(b"no" * 600)
    with pytest.raises(Refusal, match=r"no\.tar cannot be read as a tar"):
        open_source(tmp_path / "no.tar").find("a.png")
    with tarfile.open(tmp_path / "c.tar.gz", "w:gz"):
        pass
    with pytest.raises(Refusal, match=r"compressed as a whole") as refused:
        open_source(tmp_path / "c.tar.gz")
    assert "gunzip" in refused.value.way_on
    with pytest.raises(UsageRefusal, match="does not exist"):
        open_source(tmp_path / "nowhere")
    (tmp_path / "a.rar").write_bytes(b"")
    with pytest.raises(UsageRefusal, match=r"no folder, \.zip or \.tar"):
        open_source(tmp_path / "a.rar")


def test_a_link_to_itself_hides_nothing_beside_it(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "f", {"a.png": png((1, 1, 1))})
    (folder / "b.png").symlink_to(folder / "b.png")
    assert Images([folder]).find("a.png", "") is not None
    assert Images([folder]).find("b.png", "") is None


def test_a_folder_that_may_not_be_read_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def scandir(folder: str) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", folder)

    monkeypatch.setattr("pamctl.tasks.images.folder.os.scandir", scandir)
    with pytest.raises(Refusal, match=r"shut/x cannot be read: Permission denied"):
        Images([folder_of(tmp_path / "shut", {"x/a.png": b""})]).find("x/a.png", "")
