"""Outputs are complete or absent, whatever interrupts them."""

import errno
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

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


def test_kill_leaves_no_output_under_its_name(tmp_path: Path) -> None:
    script = textwrap.dedent(
        """
        import sys, time
        from pathlib import Path
        from pamctl.whole_output import whole_folder
        with whole_folder(Path(sys.argv[1])) as draft:
            (draft / "half").write_text("half")
            print("writing", flush=True)
            time.sleep(60)
        """
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path / "out")], stdout=subprocess.PIPE
    ) as writer:
        assert writer.stdout is not None
        writer.stdout.readline()
        writer.send_signal(signal.SIGKILL)
    assert not (tmp_path / "out").exists()
    with whole_folder(tmp_path / "out") as draft:
        (draft / "whole").write_text("whole")
    assert names(tmp_path / "out") == ["whole"]
