"""The folder of compiled programs: ours by default, the user's if said, none if it cannot be had."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import jax
import pytest

from pamctl.compile_cache import keep_compiled_programs


@pytest.fixture(autouse=True)
def _as_before(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    before = jax.config.jax_compilation_cache_dir
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    jax.config.update("jax_compilation_cache_dir", None)
    yield
    jax.config.update("jax_compilation_cache_dir", before)


def test_it_lies_in_the_cache_home_and_is_nobody_else_s(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    keep_compiled_programs()
    folder = tmp_path / "pamctl" / "jax"
    assert jax.config.jax_compilation_cache_dir == str(folder)
    assert folder.stat().st_mode & 0o077 == 0


def test_the_user_s_choice_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path / "mine"))
    keep_compiled_programs()
    assert jax.config.jax_compilation_cache_dir is None
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_made_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    keep_compiled_programs()
    assert jax.config.jax_compilation_cache_dir is None


def test_a_folder_that_cannot_be_written_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(os, "access", lambda *_: False)
    keep_compiled_programs()
    assert jax.config.jax_compilation_cache_dir is None


def test_what_was_written_while_a_killed_run_lived_is_dropped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    folder = tmp_path / "pamctl" / "jax"
    folder.mkdir(parents=True)
    (folder / "old-program").write_text("whole")
    os.utime(folder / "old-program", (1e9, 1e9))
    script = (
        "import os, signal; from pathlib import Path\n"
        "from pamctl.compile_cache import keep_compiled_programs\n"
        f"keep_compiled_programs(); Path({str(folder / 'half-program')!r}).write_text('half')\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
    keep_compiled_programs()
    assert (folder / "half-program").exists(), "a run that ended well leaves whole programs"
    killed = subprocess.run([sys.executable, "-c", script + "os.kill(os.getpid(), signal.SIGKILL)"])
    assert killed.returncode == -signal.SIGKILL
    keep_compiled_programs()
    assert {path.name for path in folder.iterdir() if path.suffix != ".run"} == {"old-program"}
