"""A base is hashed once, and again as soon as a file of it is not the one that was hashed."""

import os
import shutil

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from pamctl.models import digest_cache, reading
from pamctl.models.weights import read_weights


@pytest.fixture
def base(tmp_path, checkpoint, monkeypatch):
    """A copy that counts as old enough, and a cache of its own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(digest_cache, "_SECONDS_TO_SETTLE", -10)
    return shutil.copytree(checkpoint, tmp_path / "base")


def test_a_second_reading_gives_the_same_without_hashing(base, config, monkeypatch):
    read, submitted = reading._read, []
    monkeypatch.setattr(reading, "_read", lambda *given: submitted.append(given[-1]) or read(*given))
    first, second = (read_weights(base, config) for _ in range(2))
    assert submitted == [True] * (len(submitted) // 2) + [False] * (len(submitted) // 2)
    assert first[1] == second[1]
    jax.tree.map(np.testing.assert_array_equal, first[0], second[0])


@pytest.mark.parametrize("keep_times", [False, True])
def test_numbers_changed_in_place_are_hashed_again(base, config, keep_times):
    file = base / "model.safetensors"
    before, found = read_weights(base, config)[1], file.stat()
    tensors = load_file(file)
    save_file({**tensors, "language_model.model.norm.weight": np.ones(16, np.float32) / 3}, base / "new")
    file.write_bytes((base / "new").read_bytes())
    if keep_times:
        os.utime(file, ns=(found.st_atime_ns, found.st_mtime_ns))
        assert file.stat().st_mtime_ns == found.st_mtime_ns
    assert file.stat().st_ino == found.st_ino
    assert read_weights(base, config)[1] != before


def test_a_young_file_is_not_kept(base, config, monkeypatch):
    monkeypatch.setattr(digest_cache, "_SECONDS_TO_SETTLE", 10)
    read_weights(base, config)
    assert not (base.parent / "cache").exists()


def test_a_spoilt_or_unwritable_cache_is_none(base, config, monkeypatch):
    digest = read_weights(base, config)[1]
    (kept,) = (base.parent / "cache" / "pamctl" / "digests").iterdir()
    assert kept.read_text() == digest
    kept.write_text("nonsense")
    assert read_weights(base, config)[1] == digest
    assert kept.read_text() == digest
    (base.parent / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(base.parent / "file"))
    assert read_weights(base, config)[1] == digest
