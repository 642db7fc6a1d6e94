"""`pamctl run` as a program: the same as its commands, a part of it, refusals, what it would take."""

import json
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

import pamctl as pamctl_package
from pamctl.cli.main import pamctl
from pamctl.evaluation.predictions import Prediction, read_predictions
from pamctl.evaluation.results import Result, read_results
from tests.sequence_cases import TWO_ORDERS, WEIGHTS, adapters, based_on, predictions, results, write_sequence
from tests.warm_pamctl import Done, WarmPamctl


@pytest.fixture(scope="module")
def ran(warm: WarmPamctl, sequence: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Done]:
    folder = tmp_path_factory.mktemp("ran")
    return folder / "out", warm("run", sequence, "-o", "out", "--json", cwd=folder)


def place_of(one: Result | Prediction) -> tuple[object, ...]:
    """What a result and its predictions share."""
    labels = (one.method, one.order, one.run, one.seed)
    return (
        one.task,
        one.split,
        one.metric,
        one.stage,
        one.tasks,
        one.adapter,
        one.parents,
        one.base,
        *labels,
    )


def records(file: Path) -> list[str]:
    return sorted(file.read_text().splitlines())


def commands(script: str) -> Iterator[list[str]]:
    """The pamctl commands of a script, without the program's name."""
    for line in script.splitlines():
        match = re.search(r"(?<![-\w])pamctl (.*?)( \|\| leave \$\?)?$", line)
        if match and not line.startswith("#"):
            yield shlex.split(match[1])


def test_a_grid_leaves_adapters_scores_diagnostics_and_a_report(ran: tuple[Path, Done]) -> None:
    out, done = ran
    assert done.code == 0, done.stderr
    record = json.loads(done.stdout)
    assert record["schema"] == "pamctl.run/1"
    assert [(cell["order"], cell["seed"], cell["method"], cell["failed"]) for cell in record["cells"]] == [
        ("one", 0, "average", None),
        ("one", 0, "pam", None),
    ]
    told = {file.name for file in (out.parent / record["report"]).iterdir()}
    assert {"report.md", "index.html", "conflicts-by-layer.png", "training-curves.png"} <= told
    assert {*adapters(out)} == {
        f"one/seed-0/first/1-colours/trained/{WEIGHTS}",
        *(
            f"one/seed-0/{method}/2-shapes/{stage}/{WEIGHTS}"
            for method in ("average", "pam")
            for stage in ("trained", "pruned", "merged")
        ),
    }
    scored = [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]
    assert {result["order"] for result in scored if result["stage"] != "base"} == {"one"}
    metrics = json.loads((out / "report" / "metrics.json").read_text())
    (comparison,) = metrics["comparisons"]
    assert [of["system"] for of in comparison["systems"]] == ["average", "pam"]
    assert not any(of["missing"] for of in comparison["sequences"])


def test_the_first_predictions_of_each_state_are_kept(ran: tuple[Path, Done]) -> None:
    out, _ = ran
    scored, notes = read_results([out / "results.jsonl"])
    kept, torn = read_predictions(out / "predictions.jsonl")
    assert (notes, torn) == ([], [])
    of_state: dict[tuple[object, ...], list[Prediction]] = {}
    for one in kept:
        of_state.setdefault(place_of(one), []).append(one)
    assert {*of_state} == {*map(place_of, scored)}
    for some in of_state.values():
        assert [one.id for one in some] == [f"{some[0].task}-{number}" for number in range(8)]
    assert {one.order for one in kept if one.stage == "merged"} == {"one"}


def test_diagnostics_of_each_stage(ran: tuple[Path, Done]) -> None:
    out, _ = ran
    lines = [json.loads(line) for line in (out / "diagnostics.jsonl").read_text().splitlines()]
    found = {line["system"]: line for line in lines if line["schema"] == "pamctl.diagnostics/1"}
    assert {*found} == {"average", "pam"}
    for line in found.values():
        assert (line["order"], line["seed"], line["task"]) == ("one", 0, "shapes")
        important, everything = line["conflicts"]["important"], line["conflicts"]["all"]
        assert everything["overall"]["conflicts"] == everything["overall"]["differ"]
        assert important["overall"]["important"] == important["overall"]["weights"] // 2
        sizes = {name: counts["weights"] for name, counts in important["factors"].items()}
        protected = sum(line["protected_percent"][name] * size for name, size in sizes.items())
        assert protected / sum(sizes.values()) == pytest.approx(50, rel=1e-4)
        assert line["distance"]["a"] > 0
        assert line["cross_term_error_percent"] > 0
        assert {line["score_before_merging"], line["score_pruned"], line["score_after"]} <= {
            10.0 * n for n in range(11)
        }
    conflicts = [found[name]["conflicts"]["important"]["overall"]["conflicts"] for name in ("average", "pam")]
    assert conflicts[0] > conflicts[1] == 0


def test_the_printed_commands_make_the_same(
    ran: tuple[Path, Done], warm: WarmPamctl, sequence: str, tmp_path: Path
) -> None:
    out, _ = ran
    printed = warm("run", sequence, "-o", "by hand", "--print-commands", cwd=tmp_path)
    assert printed.code == 0, printed.stderr
    assert not [*tmp_path.iterdir()]
    (tmp_path / "bin").mkdir()
    place = tmp_path / "by hand"
    subprocess.run(["sh", "-n"], input=printed.stdout, text=True, check=True)
    place.mkdir()
    for words in commands(printed.stdout):
        done = warm(*words, cwd=place)
        assert done.code == 0, done.stderr
    assert adapters(place) == adapters(out)
    assert results(place) == results(out)
    again = warm("run", sequence, "-o", str(place), cwd=tmp_path)
    assert again.code == 1
    assert "is no folder of a run" in again.stderr


def test_run_again_it_does_what_is_missing_and_no_more(
    ran: tuple[Path, Done], warm: WarmPamctl, sequence: str, tmp_path: Path
) -> None:
    out, _ = ran
    again = tmp_path / "out"
    shutil.copytree(out, again)
    shutil.rmtree(again / "one/seed-0/pam/2-shapes/merged")
    shutil.rmtree(again / "one/seed-0/average/2-shapes")
    for name in ("results.jsonl", "diagnostics.jsonl"):
        lines = (again / name).read_text().splitlines(keepends=True)
        (again / name).write_text("".join(lines[:-2]))
    lines = (again / "predictions.jsonl").read_text().splitlines(keepends=True)
    (again / "predictions.jsonl").write_text("".join(lines[:-13]))
    kept = (again / "one/seed-0/pam/2-shapes/trained" / WEIGHTS).stat().st_mtime_ns
    assert warm("run", sequence, "-o", "out", cwd=tmp_path).code == 0
    assert (again / "one/seed-0/pam/2-shapes/trained" / WEIGHTS).stat().st_mtime_ns == kept
    assert adapters(again) == adapters(out)
    assert results(again) == results(out)
    assert predictions(again) == predictions(out)
    assert records(again / "diagnostics.jsonl") == records(out / "diagnostics.jsonl")


def test_only_a_part_and_more_of_it_later(warm: WarmPamctl, inputs: Path, tmp_path: Path) -> None:
    file = write_sequence(tmp_path, '["finetune", { name = "pam", run = "p=20", top_p = 20 }]', TWO_ORDERS)
    based_on(inputs, file)
    given = ["run", str(file), "-o", "out", "--data", str(inputs), "--only", "order=two"]
    one = warm(*given, "--only", "method=pam", "--json", cwd=tmp_path)
    assert one.code == 0, one.stderr
    (cell,) = json.loads(one.stdout)["cells"]
    assert cell["folder"] == "out/two/seed-0/pam-p=20"
    assert not (tmp_path / "out" / "one").exists()
    assert warm(*given, "--only", "method=finetune,pam-p=20", cwd=tmp_path).code == 0
    assert (tmp_path / "out/two/seed-0/finetune/2-colours/trained").is_dir()
    labels = {json.loads(line)["run"] for line in results(tmp_path / "out")}
    assert labels == {None, "p=20"}
    absent = warm(*given, "--only", "method=lwf", cwd=tmp_path)
    assert (absent.code, absent.stderr.splitlines()[-2:]) == (
        2,
        [f"Error: --only method=lwf: {file} has no such method", "Hint: it has: finetune, pam, pam-p=20"],
    )


def test_another_sequence_is_refused_with_the_differences(
    ran: tuple[Path, Done], warm: WarmPamctl, inputs: Path, tmp_path: Path
) -> None:
    out, _ = ran
    shutil.copytree(out, tmp_path / "out")
    file = write_sequence(
        tmp_path,
        '["average", { name = "pam", top_p = 30 }, "finetune"]',
        'one = ["shapes", "colours"]',
        settings="steps = 7\nbatch_size = 4\nlr = 0.5\nalign_every = 2",
    )
    based_on(inputs, file)
    refused = warm("run", str(file), "-o", "out", "--data", str(inputs), cwd=tmp_path)
    assert refused.code == 1
    what = refused.stderr.splitlines()[-2]
    assert what.startswith("Error: out holds another sequence: one: tasks was ['colours', 'shapes'], is ")
    assert "steps was 6, is 7" in what
    assert "pam: top_p was None, is 30" in what
    assert "finetune" not in what


def test_a_dry_run_tells_steps_time_and_disk_and_writes_nothing(
    warm: WarmPamctl, sequence: str, tmp_path: Path
) -> None:
    done = warm("run", sequence, "-o", "out", "--dry-run", "--json", cwd=tmp_path)
    assert done.code == 0, done.stderr
    assert not [*tmp_path.iterdir()]
    plan = json.loads(done.stdout)
    assert plan["schema"] == "pamctl.run-plan/1"
    units = {unit["name"]: (unit["trainings"], unit["steps"], unit["adapters"]) for unit in plan["units"]}
    assert units == {
        "zero-shot": (0, 0, 0),
        "one/seed-0/first": (1, 6, 1),
        "one/seed-0/average": (1, 6, 3),
        "one/seed-0/pam": (1, 6, 3),
    }
    assert plan["steps"] == 18
    assert plan["disk_bytes"] == 7 * plan["adapter_bytes"] > 7 * 252 * 4
    assert "an estimate" in done.stderr


@pytest.mark.parametrize(
    ("given", "code", "told"),
    [
        (["embeded"], 2, "Error: embeded: No such file or directory"),
        (["coin-1"], 2, "Error: coin-1 does not tell where its tasks are, such as scienceqa"),
        (["embedded", "--only", "sed=1"], 2, "is not order, seed or method and values"),
        (["embedded", "--dry-run", "--print-commands"], 2, "exclude each other"),
    ],
)
def test_what_cannot_be_run_is_two_lines(
    given: list[str], code: int, told: str, warm: WarmPamctl, tmp_path: Path
) -> None:
    done = warm("run", *given, "-o", "out", cwd=tmp_path)
    assert done.code == code
    assert told in done.stderr
    assert len(done.stderr.splitlines()) == 2
    assert not [*tmp_path.iterdir()]


def test_its_help_names_every_shipped_sequence() -> None:
    told = CliRunner().invoke(pamctl, ["run", "--help"]).output.split("Shipped sequences:")[1]
    files = (Path(pamctl_package.__file__).parent / "assets" / "sequences").glob("*.toml")
    assert "".join(told.split()) == ",".join(sorted(file.stem for file in files)) + "."


def test_the_examples_of_its_help_are_command_lines() -> None:
    examples = re.findall(r"^ +pamctl (run .+?)(?: > .+)?$", pamctl.commands["run"].help or "", re.MULTILINE)
    assert len(examples) == 4
    for example in examples:
        name, *words = shlex.split(example)
        pamctl.commands[name].make_context(name, words)
