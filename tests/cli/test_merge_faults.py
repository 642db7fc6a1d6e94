"""A merge that is killed, stopped, raced or starved: output whole or absent, inputs as they were."""

import errno
import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from pamctl.adapters import Adapter, Parent, Provenance
from pamctl.cli.errors import exit_code_of
from pamctl.cli.merge import merge
from pamctl.whole_output import _DRAFT
from tests.adapter_cases import child_of, random_adapter, random_factors, saved
from tests.warm_pamctl import Done, WarmPamctl

WEIGHTS = "adapter_model.safetensors"
METHODS = {"average": "--method average", "ties": "--method ties --space factor"}
KILLS = 6  # of each method, with and without an older output: 24 together
Contents = dict[str, str]
Capture = pytest.CaptureFixture[str]


class Started:
    """A `pamctl` process with an interpreter of its own, which takes its time to start and to end."""

    def __init__(self, arguments: Sequence[str], folder: Path, **environment: str) -> None:
        self._began = time.monotonic()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "pamctl", *arguments],
            cwd=folder,
            env={**os.environ, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def signalled(self, at: float, signal_: signal.Signals) -> Done:
        """After so many seconds, or when it has ended before."""
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(at)
        self._process.send_signal(signal_)
        return self.ended()

    def ended(self) -> Done:
        stdout, stderr = self._process.communicate()
        return Done(self._process.returncode, stdout, stderr)

    def seconds(self) -> float:
        """How long it runs to its end."""
        assert self.ended().code == 0
        return time.monotonic() - self._began


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `first` and `second`, trained from it, of 10 MB each, and a small adapter, `older`."""
    folder = tmp_path_factory.mktemp("room")
    first = wide_adapter(1, Provenance("trained", "trained"))
    saved(first, folder / "first")
    parents = (Parent(first.fingerprint),)
    saved(wide_adapter(2, Provenance("trained", "trained", parents=parents)), folder / "second")
    saved(random_adapter(9), folder / "older")
    return folder


def wide_adapter(seed: int, record: Provenance) -> Adapter:
    modules = {
        f"language_model.layers.{layer}.self_attn.q_proj": random_factors(100 * seed + layer, 1024, 1024, 32)
        for layer in range(40)
    }
    return Adapter(modules, record, "tiny")


class Merging:
    """A merge that can be tried over and over.

    Args:
        warm: the program.
        room: where its inputs are.
        options: what is merged how.
    """

    def __init__(self, warm: WarmPamctl, room: Path, options: str = "") -> None:
        self.warm, self._room = warm, room
        self.command = ["merge", str(room / "first"), str(room / "second"), *options.split(), "-o", "out"]
        self._inputs = self._read_inputs()
        self.whole: Contents = {}
        self.seconds = 0.0

    def tried(self, folder: Path) -> "Merging":
        """Know what the output holds, and for how many seconds the process runs once its inputs were read."""
        for again in ([], ["--force"]):
            started = time.monotonic()
            done = self.done(folder, *again)
            assert done.code == 0, done.stderr
            self.seconds = time.monotonic() - started
        self.whole = contents(folder / "out")
        return self

    def start(self, folder: Path, *more: str) -> int:
        return self.warm.start(*self.command, *more, cwd=folder)

    def done(self, folder: Path, *more: str) -> Done:
        return self.warm.wait(self.start(folder, *more))

    def check_inputs(self) -> None:
        assert self._read_inputs() == self._inputs

    def _read_inputs(self) -> list[Contents]:
        return [contents(self._room / name) for name in ("first", "second")]


@pytest.fixture(scope="module", params=METHODS)
def merging(
    request: pytest.FixtureRequest, warm: WarmPamctl, room: Path, tmp_path_factory: pytest.TempPathFactory
) -> Merging:
    return Merging(warm, room, METHODS[request.param]).tried(tmp_path_factory.mktemp("whole"))


def contents(folder: Path) -> Contents:
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in folder.iterdir()}


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def prepare(folder: Path, room: Path, *, older: bool) -> Contents | None:
    """A place without an output, or one with an older output, whose contents it gives."""
    folder.mkdir(exist_ok=True)
    shutil.rmtree(folder / "out", ignore_errors=True)
    return contents(shutil.copytree(room / "older", folder / "out")) if older else None


def whole_or_as_before(folder: Path, merging: Merging, older: Contents | None) -> bool:
    """Check the output, and say whether it is the new one."""
    found = contents(folder / "out") if (folder / "out").exists() else None
    assert found in (older, merging.whole)
    return found == merging.whole


def rerun_succeeds(folder: Path, merging: Merging, run: Callable[..., int]) -> None:
    """And takes away whatever a process left that was killed a while ago."""
    for left in folder.glob(f".out.*{_DRAFT}"):
        os.utime(left, (0, 0))
    assert run(folder, *merging.command, "--force") == 0
    assert names(folder) == ["out"]
    assert contents(folder / "out") == merging.whole


def refused(done: Done, told: str, *, code: int = 1) -> None:
    """In two lines, after those that say what is being done."""
    assert (done.code, done.stdout) == (code, ""), done.stderr
    *_, error, hint = done.stderr.splitlines()
    assert error.startswith("Error: ")
    assert told in error
    assert hint.startswith("Hint: ")
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("older", [False, True], ids=["new", "force"])
def test_killed_at_random_moments(merging: Merging, older: bool, room: Path, tmp_path: Path) -> None:
    moments = random.Random(f"{merging.command} {older}")
    folder = tmp_path / "here"
    for turn in range(KILLS):
        before = prepare(folder, room, older=older)
        started = merging.start(folder, *(["--force"] if older else []))
        time.sleep(moments.uniform(0, merging.seconds))
        os.kill(started, signal.SIGKILL)
        done = merging.warm.wait(started)
        assert done.code in (0, -signal.SIGKILL), done.stderr
        is_new = whole_or_as_before(folder, merging, before)
        assert is_new or done.code != 0
        if turn % 4 == 0:
            merging.check_inputs()
            rerun_succeeds(folder, merging, lambda folder, *command: merging.warm(*command, cwd=folder).code)


NEVER = 1 << 60
KILLED_BEFORE_A_STEP = """
import os, signal, sys
from pamctl.cli.main import run
import pamctl.adapters.formats.written, pamctl.merging, tomli_w

def is_step(event, arguments):
    if event == "open":
        return isinstance(arguments[0], str) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
    return event in ("os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.chmod", "os.link")

def kill_before(step):
    def hook(event, arguments):
        nonlocal step
        if is_step(event, arguments):
            step -= 1
            if step < 0:
                os.kill(os.getpid(), signal.SIGKILL)
    sys.addaudithook(hook)

for line in sys.stdin:
    folder, step, *arguments = line.split()
    if (pid := os.fork()) == 0:
        os.chdir(folder)
        sys.stdout = sys.stderr = open(os.devnull, "w")
        sys.argv = ["pamctl", *arguments]
        kill_before(int(step))
        run()
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
"""


@pytest.fixture(scope="module")
def killed_before() -> Iterator[Callable[..., int]]:
    """Runs a command that is killed before its n-th change to the file system; gives its exit code."""
    with subprocess.Popen(
        [sys.executable, "-c", KILLED_BEFORE_A_STEP], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as forker:
        assert forker.stdin
        assert forker.stdout

        def run(folder: Path, *arguments: str, step: int = NEVER) -> int:
            assert forker.stdin
            assert forker.stdout
            forker.stdin.write(" ".join([str(folder), str(step), *arguments]) + "\n")
            forker.stdin.flush()
            return int(forker.stdout.readline())

        yield run


@pytest.mark.parametrize("older", [False, True], ids=["new", "force"])
def test_killed_before_each_change_to_the_disk(
    killed_before: Callable[..., int], older: bool, warm: WarmPamctl, room: Path, tmp_path: Path
) -> None:
    small = tmp_path / "room"
    first = random_adapter(tasks=("a",))
    saved(first, small / "first")
    saved(child_of(first, seed=1, tasks=("a", "b")), small / "second")
    (tmp_path / "whole").mkdir()
    merging = Merging(warm, small).tried(tmp_path / "whole")
    folder = tmp_path / "here"
    for step in count():
        before = prepare(folder, room, older=older)
        code = killed_before(folder, *merging.command, *(["--force"] if older else []), step=step)
        assert code in (0, -signal.SIGKILL)
        whole_or_as_before(folder, merging, before)
        rerun_succeeds(folder, merging, killed_before)
        if code == 0:
            break
    assert step > 5, "a draft, its files, their modes, its name"
    merging.check_inputs()


@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGINT])
def test_stopped_at_random_moments(
    stop: signal.Signals, merging: Merging, room: Path, tmp_path: Path
) -> None:
    moments, folder = random.Random(f"{merging.command} {stop}"), tmp_path / "here"
    prepare(folder, room, older=False)
    seconds = Started(merging.command, folder).seconds()
    for older in (False, True):
        before = prepare(folder, room, older=older)
        started = Started([*merging.command, *(["--force"] if older else [])], folder)
        # the first third is the program being loaded
        done = started.signalled(moments.uniform(seconds / 3, seconds), stop)
        # while the interpreter itself starts and ends, a signal ends it as it does any process
        assert done.code in (0, 143 if stop == signal.SIGTERM else 130, -stop), done.stderr
        assert "Traceback" not in done.stderr
        assert "Traceback" not in done.stderr
        is_new = whole_or_as_before(folder, merging, before)
        assert is_new or done.code != 0
        assert names(folder) == (["out"] if is_new or before else [])
    merging.check_inputs()


@pytest.mark.parametrize("older", [False, True], ids=["new", "force"])
def test_two_merges_to_one_output_at_once(older: bool, merging: Merging, room: Path, tmp_path: Path) -> None:
    """Without --force one wins and the other is refused; with it the last one wins; each time whole."""
    for _ in range(2):
        folder = tmp_path / "here"
        before = prepare(folder, room, older=older)
        force = ["--force"] if before else []
        both = [merging.start(folder, *force) for _ in range(2)]
        ended = [merging.warm.wait(started) for started in both]
        assert 0 in [done.code for done in ended], ended
        for done in ended:
            if done.code:
                refused(done, "out already exists")
        assert older or sorted(done.code for done in ended) == [0, 1]
        assert names(folder) == ["out"]
        assert contents(folder / "out") == merging.whole
    merging.check_inputs()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 6 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", str(folder)], capture_output=True
    )
    if done.returncode:
        pytest.skip("a disk of its own can be mounted by root alone")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.parametrize("older", [False, True], ids=["new", "force"])
def test_a_full_disk(merging: Merging, older: bool, room: Path, small_disk: Path) -> None:
    before = prepare(small_disk / "here", room, older=older)
    done = merging.done(small_disk / "here", *(["--force"] if older else []))
    refused(done, "no space left to write out")
    assert "free some disk space" in done.stderr
    assert not whole_or_as_before(small_disk / "here", merging, before)
    assert names(small_disk / "here") == (["out"] if older else [])
    merging.check_inputs()


def test_a_full_disk_for_what_is_kept_until_ranks_are_known(
    room: Path, small_disk: Path, tmp_path: Path
) -> None:
    """--energy computes all modules before the first is written."""
    command = ["merge", str(room / "first"), str(room / "second"), "-o", "out"]
    started = Started([*command, "--space", "delta", "--energy", "0.99"], tmp_path, TMPDIR=str(small_disk))
    refused(started.ended(), "o space left")
    assert names(tmp_path) == ["disk"]
    assert names(small_disk) == []


@pytest.fixture
def pair(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with two small adapters in line and an older output."""
    first = random_adapter(tasks=("a",))
    saved(first, tmp_path / "first")
    saved(child_of(first, seed=1, tasks=("a", "b")), tmp_path / "second")
    saved(random_adapter(9), tmp_path / "out")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def at_read(number: int, happens: Callable[[], object], monkeypatch: pytest.MonkeyPatch) -> None:
    """Let something happen just before the n-th read of numbers from a file, and what fails fail again."""
    read, reads = os.preadv, count()

    def preadv(*arguments: Any) -> int:
        if (turn := next(reads)) == number or (turn > number and happens is failed_read):
            happens()
        return read(*arguments)

    monkeypatch.setattr(os, "preadv", preadv)


def failed_read() -> None:
    raise OSError(errno.EIO, os.strerror(errno.EIO))


def truncated() -> None:
    os.truncate("second/" + WEIGHTS, 1000)


def replaced() -> None:
    shutil.copy("out/" + WEIGHTS, "written")
    Path("written").replace("second/" + WEIGHTS)


def removed() -> None:
    Path("second", WEIGHTS).unlink()


FAULTS = {
    "Input/output error": failed_read,
    "has changed since it was opened|ends after": truncated,
    "has changed since it was opened": replaced,
    "No such file": removed,
}


@pytest.mark.parametrize("number", [0, 3, 9])
@pytest.mark.parametrize("options", ["--space factor", "--method ties --space delta"])
@pytest.mark.parametrize(("told", "fault"), FAULTS.items(), ids=[fault.__name__ for fault in FAULTS.values()])
def test_an_input_that_fails_while_it_is_read(
    pair: Path,
    capsys: Capture,
    monkeypatch: pytest.MonkeyPatch,
    told: str,
    fault: Callable[[], None],
    number: int,
    options: str,
) -> None:
    before = contents(pair / "out")
    at_read(number, fault, monkeypatch)
    command = ["first", "second", *options.split(), "-o", "out", "--force"]
    code = exit_code_of(lambda: merge.main(command, standalone_mode=False))
    out, err = capsys.readouterr()
    done = Done(code, out, err)
    assert any(part in err for part in told.split("|")), err
    refused(done, "")
    assert "second" in err.splitlines()[-2] or fault is failed_read
    assert contents(pair / "out") == before
    assert names(pair) == ["first", "out", "second"]
