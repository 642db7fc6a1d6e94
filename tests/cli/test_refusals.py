"""What cannot be done is told in two lines with the right exit code, and nothing is written."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file, save_file

import pamctl
from pamctl.adapters import Adapter, LoraFactors, open_adapter, save_adapter
from tests.warm_pamctl import Done, WarmPamctl

WEIGHTS = "adapter_model.safetensors"
EXAMPLE: dict[str, Any] = {"image": "red.png", "question": "what is it ?", "answer": "red"}
SMALL = 1 << 16  # bytes: less than an adapter or a checkpoint of the embedded base takes
PROGRAM = [sys.executable, "-m", "pamctl"]


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory, warm: WarmPamctl) -> Path:
    """A folder with two adapters in line, what is wrong with others, and tasks sound and unsound."""
    folder = tmp_path_factory.mktemp("room")
    write_tasks(folder)
    write_other_base(folder / "other-base")
    for command in (
        "train-task tiny-gqa --steps 2 -o first",
        "train-task tiny-gqa --steps 2 --base other-base -o foreign",
        "train-task tiny-gqa --steps 2 --global first -o second",
        "merge first second --space delta --rank 4 -o narrow",
    ):
        done = warm(*command.split(), cwd=folder)
        assert done.code == 0, done.stderr
    write_damaged(folder)
    return folder


def write_tasks(folder: Path) -> None:
    Image.new("RGB", (32, 32), "red").save(folder / "red.png")
    (folder / "broken.png").write_bytes(b"no picture")
    whole = (folder / "red.png").read_bytes()
    (folder / "cut.png").write_bytes(whole[: len(whole) // 2])
    for name, second in {
        "sound": {},
        "no-picture": {"image": "nowhere.png"},
        "broken": {"image": "broken.png"},
        "cut": {"image": "cut.png"},
        "no-answer": {"answer": ""},
        "number": {"answer": 3},
        "long": {"question": "what is it ? " * 200},
    }.items():
        lines = [json.dumps(EXAMPLE), json.dumps({**EXAMPLE, **second})]
        (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n")
    (folder / "empty.jsonl").write_text("\n\n")
    (folder / "half-line.jsonl").write_text(json.dumps(EXAMPLE) + '\n{"image": "red.png",\n')
    (folder / "list.jsonl").write_text(json.dumps(EXAMPLE) + "\n[1]\n")
    (folder / "latin.jsonl").write_bytes('{"answer": "Größe"}\n'.encode("latin-1"))
    greek = json.dumps({**EXAMPLE, "answer": "μέγεθος 42 🟥"}, ensure_ascii=False)
    (folder / "windows.jsonl").write_bytes(b"\xef\xbb\xbf" + f"{greek}\r\n\r\n{greek}\r\n".encode())
    (folder / "no-task").mkdir()


def write_other_base(folder: Path) -> None:
    shutil.copytree(Path(pamctl.__file__).parent / "assets" / "tiny-paligemma", folder)
    tensors = load_file(folder / "model.safetensors")
    name = min(tensors)
    tensors[name] = tensors[name] + np.ones(1, tensors[name].dtype)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def write_damaged(folder: Path) -> None:
    """Copies of `first`, each with one thing changed."""

    def changed(name: str, change: Callable[[dict[str, Any]], object]) -> None:
        tensors = load_file(copied(name) / WEIGHTS)
        change(tensors)
        save_file(tensors, folder / name / WEIGHTS, metadata={"format": "pt"})

    def copied(name: str) -> Path:
        return shutil.copytree(folder / "first", folder / name)

    some = sorted(load_file(folder / "first" / WEIGHTS))[3]
    changed("nan", lambda all_: all_.update({some: np.full_like(all_[some], np.nan)}))
    changed("bf16", lambda all_: all_.update({k: v.astype(ml_dtypes.bfloat16) for k, v in all_.items()}))
    (folder / "bf16" / "pamctl.json").unlink()
    changed("changed", lambda all_: all_.update({some: all_[some] + 1}))
    changed("hollow", dict.clear)
    changed("one-sided", lambda all_: all_.pop(some))
    file = copied("truncated") / WEIGHTS
    file.write_bytes(file.read_bytes()[:1000])
    (copied("half-record") / "pamctl.json").write_text('{"schema"')
    (copied("pickle") / WEIGHTS).rename(folder / "pickle" / "adapter_model.bin")
    first = open_adapter(folder / "first")
    module = min(first.modules)
    wide = first.modules[module]
    shape = {module: LoraFactors(wide.a[:, :-1], wide.b, wide.scale)}
    (folder / "other-shape").mkdir()
    save_adapter(Adapter(dict(first.modules) | shape, None, None), folder / "other-shape")


def tree(folder: Path) -> dict[str, tuple[int, int]]:
    """Every path under a folder, hidden ones as well, with its size and time of change."""
    found = {path: path.lstat() for path in folder.rglob("*")}
    return {
        str(path.relative_to(folder)): (stat.st_size, stat.st_mtime_ns)
        for path, stat in found.items()
        if not path.is_dir()
    } | {str(path.relative_to(folder)): (0, 0) for path in found if path.is_dir()}


def refused(done: Done, code: int, told: str, *, before: str = "$^") -> None:
    """Two lines, the first of which tells `told`; what comes before them matches `before`."""
    *earlier, error, hint = done.stderr.splitlines() or ["", ""]
    assert (done.code, done.stdout) == (code, ""), done.stderr
    assert error.startswith("Error: "), done.stderr
    assert re.search(told, error)
    assert re.fullmatch("Hint: .{3,}", hint)
    assert all(re.match(before, line) for line in earlier), done.stderr


TRAIN, EVAL = "train-task tiny-gqa --steps 2 -o out", "eval first --task tiny-gqa --limit 4"
MERGE, ALIGN = "merge first second -o out", "align second --to first -o out"
MISSING = [
    ("train-task nowhere.jsonl -o out", 2, "nowhere.jsonl, and no such path exists"),
    ("train-task tiny-gpa -o out", 2, "no task is named tiny-gpa"),
    (f"{TRAIN} --global nowhere", 1, "no adapter at nowhere"),
    (f"{TRAIN} --base nowhere", 1, "no base model at nowhere"),
    ("merge first nowhere -o out", 1, "no adapter at nowhere"),
    ("align first --to nowhere -o out", 1, "no adapter at nowhere"),
    ("align no-task --to first -o out", 1, "no-task holds no adapter"),
    ("eval nowhere --task tiny-gqa", 1, "no adapter at nowhere"),
    ("eval first --task nowhere.jsonl --results out", 2, "nowhere.jsonl, and no such path exists"),
    (f"{EVAL} --base nowhere", 1, "no base model at nowhere"),
    (f"{EVAL} --split nowhere --results out", 2, "tiny-gqa has no split 'nowhere'"),
    ("inspect nowhere", 1, "no adapter at nowhere"),
    ("report nowhere.jsonl -o out", 2, "no such file or folder: nowhere.jsonl"),
]
UNSOUND_TASKS = [
    ("empty.jsonl", 1, "empty.jsonl holds no examples"),
    ("no-task", 2, "no-task holds no task.toml, no task.jsonl"),
    ("red.png", 2, "red.png is no .jsonl and no .toml file"),
    ("no-picture.jsonl", 1, r"line 2 \(id 2\): image nowhere.png does not exist"),
    ("broken.jsonl", 1, "broken.jsonl line 2 .*image broken.png cannot be read"),
    ("cut.jsonl", 1, "cut.jsonl line 2 .*image cut.png cannot be read"),
    ("no-answer.jsonl", 1, "line 2: the answer is empty"),
    ("number.jsonl", 1, "line 2: `answer` is a number"),
    ("half-line.jsonl", 1, "half-line.jsonl line 2 is not JSON"),
    ("list.jsonl", 1, "list.jsonl line 2 is a list, not an object"),
    ("latin.jsonl", 1, "latin.jsonl line 1 is not UTF-8"),
]
UNSOUND_ADAPTERS = [
    ("nan", "nan/adapter_model.safetensors: base_model.* holds NaN or Inf"),
    ("truncated", "truncated/adapter_model.safetensors: "),
    ("hollow", "hollow/adapter_model.safetensors holds no tensors"),
    ("one-sided", "one-sided/adapter_model.safetensors: of .* there is only lora_"),
    ("half-record", "half-record/pamctl.json"),
    ("pickle", "pickle/adapter_model.bin is a pickle"),
    ("changed", "changed: its weights are not those that its record describes"),
]
TAKING_AN_ADAPTER = [
    f"{TRAIN} --global",
    "merge first -o out",
    "align second -o out --to",
    "eval --task tiny-gqa --limit 4 --results out",
]
NOT_TOGETHER = [
    (f"{TRAIN} --global narrow --rank 16", "--rank is 16, narrow has rank 4"),
    (f"{TRAIN} --global first --base other-base", r"trained on tiny-paligemma .* the base is other-base"),
    (f"{TRAIN} --global foreign --base tiny", r"trained on other-base .* the base is tiny-paligemma"),
    (f"{TRAIN} --global other-shape", "other-shape adapts .* this base has"),
    ("merge first narrow --space factor -o out", "rank 16 in first and 4 in narrow"),
    ("merge first foreign -o out", "foreign|other-base"),
    ("merge first other-shape -o out", "other-shape"),
    ("align first --to narrow -o out", "rank 4 in narrow and 16 in first"),
    ("align first --to foreign -o out", "foreign belongs to other-base"),
    ("align other-shape --to first -o out", "other-shape"),
    ("eval foreign --base tiny --task tiny-gqa --results out", "foreign was made for base other-base"),
    ("eval first --base other-base --task tiny-gqa --results out", "not for other-base"),
    ("eval other-shape --task tiny-gqa --results out", "other-shape adapts .* this base has"),
]
TAKEN = [
    ("train-task tiny-gqa --steps 2 -o first", 1, "first already exists"),
    ("merge first second -o narrow", 1, "narrow already exists"),
    ("align second --to first -o narrow", 1, "narrow already exists"),
    (f"{EVAL} --predictions red.png", 1, "red.png already exists"),
    (f"{EVAL} --results no-task", 2, "no-task"),
    ("train-task tiny-gqa --steps 2 -o red.png/out", 1, "red.png is a file"),
    ("merge first second -o red.png/out", 1, "red.png is a file"),
    ("align second --to first -o red.png/out", 1, "red.png is a file"),
    (f"{EVAL} --predictions red.png/out", 1, "red.png is a file"),
    (f"{EVAL} --results red.png/out", 1, "red.png"),
]
OPTIONS = [
    *(
        (f"{TRAIN} {option}", told)
        for option, told in (
            ("--method ewc", "'ewc' is not one of"),
            ("--scope layer", "'layer' is not one of"),
            ("--steps x", "'x' is not a valid integer"),
            ("--steps 0", "--steps is 0"),
            ("--top-p 101", "--top-p is 101"),
            ("--top-p nan", "--top-p is nan"),
            ("--lr nan", "--lr is nan"),
            ("--rank 0", "--rank is 0"),
            ("--seed -1", "--seed is -1"),
            ("--checkpoint-every 0", "--checkpoint-every is 0"),
            ("--no-such-option", "--no-such-option"),
        )
    ),
    ("train-task tiny-gqa", "'-o' / '--output'"),
    (f"{MERGE} --space layer", "'layer' is not one of"),
    (f"{MERGE} --weights 1", "1 weights? for 2 adapters"),
    (f"{MERGE} --weights a,b", "'a,b' is not numbers"),
    (f"{MERGE} --weights 1,-1", "weights 1,-1"),
    (f"{MERGE} --weights nan,1", "weights nan,1"),
    (f"{MERGE} --rank 0", "0 is not in the range"),
    ("merge first -o out", "1 adapter to merge"),
    (f"{ALIGN} --top-p 101", "top_p is 101"),
    (f"{ALIGN} --scope layer", "'layer' is not one of"),
    (f"{ALIGN} --fail-above nan", "--fail-above is nan"),
    (f"{ALIGN} --fail-above 101", "--fail-above is 101"),
    (f"{EVAL} --limit 0 --results out", "0 is not in the range"),
    (f"{EVAL} --stage base --results out", "'base' is not one of"),
    ("eval first", "'--task'"),
    ("no-such-command", "no-such-command"),
]
CASES = [
    *MISSING,
    *((f"train-task {task} --steps 2 -o out", code, told) for task, code, told in UNSOUND_TASKS),
    ("train-task long.jsonl --steps 2 -o out", 1, "803 prompt .* more than the task's text length"),
    *((f"eval first --results out --task {task}", code, told) for task, code, told in UNSOUND_TASKS),
    *(
        (f"{command} {adapter}", 1, told)
        for command in TAKING_AN_ADAPTER
        for adapter, told in UNSOUND_ADAPTERS
    ),
    *((command, 1, told) for command, told in NOT_TOGETHER),
    *TAKEN,
    *((command, 2, told) for command, told in OPTIONS),
]


@pytest.mark.parametrize(("command", "code", "told"), CASES, ids=[case[0] for case in CASES])
def test_refused_in_two_lines_and_nothing_is_written(
    warm: WarmPamctl, room: Path, command: str, code: int, told: str
) -> None:
    before = tree(room)
    done = warm(*command.split(), cwd=room)
    refused(
        done,
        code,
        told,
        before="Warning: (task .* names no splits|.* has no pamctl.json)"
        if command.startswith("eval")
        else SAID  # what a record claims is believed until the weights are read
        if command.startswith("merge") and re.search("nan|changed", command)
        else "$^",
    )
    assert tree(room) == before


def test_a_task_that_does_not_exist_suggests_the_nearest(warm: WarmPamctl, room: Path) -> None:
    assert "Hint: did you mean tiny-gqa?" in warm("train-task", "tiny-gpa", "-o", "out", cwd=room).stderr


SAID = "Warning: |Training |average of|factor space|uses |eval: | +weights|[AB] |all "
WRITING = [
    f"{TRAIN} --global {{room}}/first",
    f"{TRAIN} --checkpoint-every 1 --global {{room}}/first",
    "merge {room}/first {room}/second -o out",
    "align {room}/second --to {room}/first -o out",
    "eval {room}/first --task tiny-gqa --limit 2 --results out",
    "eval {room}/first --task tiny-gqa --limit 2 --predictions out",
]


def mounted(folder: Path, *options: str) -> None:
    done = subprocess.run(["mount", "-t", "tmpfs", *options, "tmpfs", str(folder)], capture_output=True)
    if done.returncode:
        pytest.skip("a disk of its own can be mounted by root alone")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    mounted(tmp_path, "-o", "size=64k")
    yield tmp_path
    subprocess.run(["umount", "-l", str(tmp_path)], check=True)


@pytest.mark.parametrize("command", WRITING)
def test_a_full_disk(warm: WarmPamctl, room: Path, disk: Path, command: str) -> None:
    (disk / "others").write_bytes(b"0" * (SMALL if command.startswith("eval") else SMALL // 2))
    before = tree(disk)
    done = warm(*command.format(room=room).split(), cwd=disk)
    refused(done, 1, r"\bout(\.checkpoints)?\b.*|.*\bout\b", before=SAID)
    assert re.search("no space left|No space left", done.stderr)
    assert tree(disk) == before


@pytest.mark.parametrize("command", WRITING)
def test_a_limit_on_the_size_of_files(warm: WarmPamctl, room: Path, tmp_path: Path, command: str) -> None:
    limit = 4096 if command.startswith("eval") else SMALL
    if "--results" in command:
        (tmp_path / "out").write_text("\n" * (limit - 1))
    if "--predictions" in command:
        command = command.replace("--limit 2", "--limit 100")
    before = {name: size for name, (size, _) in tree(tmp_path).items()}
    done = warm(*command.format(room=room).split(), cwd=tmp_path, file_size=limit)
    refused(done, 1, r"\bout\b.*File too large", before=SAID)
    assert {name: size for name, (size, _) in tree(tmp_path).items()} == before


@pytest.mark.parametrize("command", WRITING)
def test_a_read_only_folder(warm: WarmPamctl, room: Path, tmp_path: Path, command: str) -> None:
    if os.geteuid() == 0:
        mounted(tmp_path, "-o", "ro")
    else:
        tmp_path.chmod(0o555)
    try:
        done = warm(*command.format(room=room).split(), cwd=tmp_path)
        refused(done, 1, rf"{tmp_path.name}|\bout\b")
        assert not list(tmp_path.iterdir())
    finally:
        if os.geteuid() == 0:
            subprocess.run(["umount", "-l", str(tmp_path)], check=True)


def test_two_processes_into_one_output(warm: WarmPamctl, room: Path, tmp_path: Path) -> None:
    command = f"train-task tiny-gqa --global {room}/first --steps 4 -o out".split()
    both = [warm.wait(pid) for pid in [warm.start(*command, cwd=tmp_path) for _ in range(2)]]
    done, other = sorted(both, key=lambda done: done.code)
    assert (done.code, done.stdout) == (0, "out\n")
    refused(other, 1, "another process is training into out|out already exists", before=SAID)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert open_adapter(tmp_path / "out").modules


def test_two_merges_into_one_output_leave_one_of_them(room: Path, tmp_path: Path) -> None:
    command = [*PROGRAM, "merge", "first", "second", "-o", str(tmp_path / "out")]
    started = [
        subprocess.Popen(
            [*command, "--weights", weights],
            cwd=room,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for weights in ("1,1", "3,1")
    ]
    ended = [Done(process.wait(), *process.communicate()) for process in started]
    assert min(done.code for done in ended) == 0
    for done in ended:
        if done.code:
            refused(done, 1, "out already exists", before=SAID)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert open_adapter(tmp_path / "out").modules


def test_a_merge_stopped_by_sigterm_while_it_writes_leaves_nothing(room: Path, tmp_path: Path) -> None:
    stopped = (
        "import os, signal, pamctl.adapters.formats, pamctl.cli.main\n"
        "write = pamctl.adapters.formats.write_provenance\n"
        "def stopped(*given):\n    write(*given)\n    os.kill(os.getpid(), signal.SIGTERM)\n"
        "pamctl.adapters.formats.write_provenance = stopped\n"
        "pamctl.cli.main.run()\n"
    )
    command = ["-c", stopped, "merge", str(room / "first"), str(room / "second"), "-o", str(tmp_path / "out")]
    done = subprocess.run([sys.executable, *command], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (143, "")
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("command", ["inspect first --tensors", "align second --to first --json"])
def test_a_closed_pipe_exits_141(room: Path, command: str) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run([*PROGRAM, *command.split()], cwd=room, stdout=writer, stderr=subprocess.PIPE)
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, b"")


def test_a_result_that_cannot_be_printed_is_told(room: Path) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [*PROGRAM, "inspect", "first"], cwd=room, stdout=full, stderr=subprocess.PIPE, text=True
        )
    refused(Done(done.returncode, "", done.stderr), 1, "No space left on device")


ACCEPTED = [
    "merge first bf16 -o {out}",
    "align bf16 --to first -o {out}",
    "eval bf16 --task tiny-gqa --limit 2 --results {out}",
    "train-task windows.jsonl --steps 2 --global first -o {out}",
    "eval first --task windows.jsonl --results {out}",
    "merge first narrow -o {out}",
]


@pytest.mark.parametrize("command", ACCEPTED)
def test_what_only_looks_wrong_is_accepted(
    warm: WarmPamctl, room: Path, tmp_path: Path, command: str
) -> None:
    out = str(tmp_path / "out")
    done = warm(*command.format(out=out).split(), cwd=room)
    assert (done.code, done.stdout) == (0, f"{out}\n"), done.stderr
