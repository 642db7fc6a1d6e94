"""Outputs are complete or absent, whatever interrupts them."""

import errno
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from pamctl import whole_output
from pamctl.refusal import Refusal
from pamctl.whole_output import refuse_existing, whole_file, whole_folder


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_folder_appears_when_the_block_ends(tmp_path: Path) -> None:
    with whole_folder(tmp_path / "out") as draft:
        (draft / "a").write_text("1")
        assert not (tmp_path / "out").exists()
    assert (tmp_path / "out" / "a").read_text() == "1"
    assert names(tmp_path) == ["out"]


def test_a_file_appears_when_the_block_ends(tmp_path: Path) -> None:
    with whole_file(tmp_path / "deep" / "out.json") as draft:
        draft.write_text("{}")
    assert (tmp_path / "deep" / "out.json").read_text() == "{}"
    assert names(tmp_path / "deep") == ["out.json"]


@pytest.mark.parametrize("output", [whole_folder, whole_file])
def test_an_error_leaves_nothing(tmp_path: Path, output: object) -> None:
    with pytest.raises(ZeroDivisionError), output(tmp_path / "out"):  # type: ignore[operator]
        raise ZeroDivisionError
    assert names(tmp_path) == []


@pytest.mark.parametrize("output", [whole_folder, whole_file])
def test_an_existing_output_is_refused_before_the_block(tmp_path: Path, output: object) -> None:
    (tmp_path / "out").write_text("precious")
    with pytest.raises(Refusal, match="already exists") as refused, output(tmp_path / "out"):  # type: ignore[operator]
        raise AssertionError("the block must not start")
    assert "--force" in refused.value.way_on
    assert (tmp_path / "out").read_text() == "precious"


def test_force_replaces_a_folder_whole(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "old").write_text("old")
    with whole_folder(tmp_path / "out", force=True) as draft:
        (draft / "new").write_text("new")
    assert names(tmp_path) == ["out"]
    assert names(tmp_path / "out") == ["new"]


@pytest.mark.parametrize("output", [whole_folder, whole_file])
@pytest.mark.parametrize("linked", [False, True])
def test_force_does_not_replace_a_device(tmp_path: Path, output: object, linked: bool) -> None:
    """Else -o /dev/null --force, typed by root, takes /dev/null from everybody."""
    os.mkfifo(tmp_path / "pipe")
    if linked:
        (tmp_path / "link").symlink_to("pipe")
    path = tmp_path / ("link" if linked else "pipe")
    with pytest.raises(Refusal, match="is neither a file nor a folder"), output(path, force=True):  # type: ignore[operator]
        raise AssertionError("the block must not start")
    assert (tmp_path / "pipe").is_fifo()


def test_force_does_not_replace_the_folder_one_is_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here" / "deep").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "here" / "deep")
    for path in (Path("."), Path(".."), tmp_path / "here"):
        with pytest.raises(Refusal, match="holds the folder you are in"):
            refuse_existing(path, force=True)
    refuse_existing(Path("new"), force=True)


def test_a_folder_in_the_place_of_a_file_is_refused_before_the_block(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with pytest.raises(Refusal, match="is a folder"), whole_file(tmp_path / "out", force=True):
        raise AssertionError("the block must not start")
    assert names(tmp_path) == ["out"]


def test_a_file_in_the_place_of_a_folder_is_refused_before_the_block(tmp_path: Path) -> None:
    file = tmp_path / "notes.txt"
    file.write_text("mine")
    with pytest.raises(Refusal, match="is a file"), whole_folder(file, force=True):
        pytest.fail("the block should not be entered")
    assert file.read_text() == "mine"


def test_force_does_not_delete_what_is_no_part_of_such_an_output(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "ours").touch()
    with whole_folder(tmp_path / "out", force=True, known={"ours"}.__contains__) as draft:
        (draft / "ours").write_text("new")
    assert (tmp_path / "out" / "ours").read_text() == "new"
    (tmp_path / "out" / "thesis.tex").write_text("mine")
    with pytest.raises(Refusal, match=r"holds thesis\.tex"):
        refuse_existing(tmp_path / "out", force=True, known={"ours"}.__contains__)
    with (
        pytest.raises(Refusal, match=r"holds thesis\.tex"),
        whole_folder(tmp_path / "out", force=True, known={"ours"}.__contains__),
    ):
        pytest.fail("the block should not be entered")
    assert (tmp_path / "out" / "thesis.tex").read_text() == "mine"


def test_a_folder_that_another_process_wrote_meanwhile_is_not_replaced(tmp_path: Path) -> None:
    def write() -> None:
        with whole_folder(tmp_path / "out") as draft:
            (draft / "x").write_text("late")
            (tmp_path / "out").mkdir()
            (tmp_path / "out" / "x").write_text("early")

    with pytest.raises(Refusal, match="already exists: another process"):
        write()
    assert names(tmp_path) == ["out"]
    assert (tmp_path / "out" / "x").read_text() == "early"


def test_a_file_that_another_process_wrote_meanwhile_is_not_replaced(tmp_path: Path) -> None:
    def write() -> None:
        with whole_file(tmp_path / "out") as draft:
            draft.write_text("late")
            (tmp_path / "out").write_text("early")

    with pytest.raises(Refusal, match="already exists: another process"):
        write()
    assert names(tmp_path) == ["out"]
    assert (tmp_path / "out").read_text() == "early"


def test_a_file_in_the_place_of_the_parent_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(Refusal, match="is a file"):
        refuse_existing(tmp_path / "file" / "out")


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_named_and_nothing_stays(tmp_path: Path, code: int) -> None:
    def fill() -> None:
        with whole_folder(tmp_path / "out") as draft:
            (draft / "half").write_text("half")
            raise OSError(code, os.strerror(code))

    with pytest.raises(Refusal, match="no space left to write"):
        fill()
    assert names(tmp_path) == []


def test_permissions_follow_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        with whole_folder(tmp_path / "out"):
            pass
    finally:
        os.umask(before)
    assert (tmp_path / "out").stat().st_mode & 0o777 == 0o750


SLOW_WRITER = textwrap.dedent(
    """
    import sys, time
    from pathlib import Path
    from pamctl import whole_output
    with getattr(whole_output, sys.argv[1])(Path(sys.argv[2])) as draft:
        (draft / "half" if draft.is_dir() else draft).write_text("half")
        print("writing", flush=True)
        time.sleep(60)
    """
)


@pytest.mark.parametrize("output", [whole_folder, whole_file])
def test_what_a_killed_writer_left_is_taken_away_and_what_is_being_written_is_not(
    tmp_path: Path, output: Callable[..., AbstractContextManager[Path]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(whole_output, "_SECONDS_TO_LOCK", -1)
    command = [sys.executable, "-c", SLOW_WRITER, output.__name__, str(tmp_path / "out")]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        writer.stdout.readline()
        with pytest.raises(ZeroDivisionError), output(tmp_path / "out"):
            raise ZeroDivisionError
        assert len(names(tmp_path)) == 1, "the draft under way is still there"
        writer.send_signal(signal.SIGKILL)
    assert not (tmp_path / "out").exists()
    with pytest.raises(ZeroDivisionError), output(tmp_path / "out"):
        raise ZeroDivisionError
    assert names(tmp_path) == []
