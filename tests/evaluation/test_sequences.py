"""Which results become one matrix: by lineage where fingerprints tell it, else by labels."""

from dataclasses import replace

import numpy as np
import pytest

from pamctl.evaluation.matrix import AccuracyMatrix, matrices_of
from pamctl.evaluation.results import Result

TASKS = ("a", "b", "c")


def scored(stage: str, learned: str, scores: dict[str, float], **fields: object) -> list[Result]:
    """One result a task of the state after `learned`, such as "ab"."""
    return [
        Result(task, stage, tuple(learned), "exact", score, 4, **fields)  # type: ignore[arg-type]
        for task, score in scores.items()
    ]


def trained(name: str, learned: str, diagonal: float, *parents: str, **fields: object) -> list[Result]:
    return scored("trained", learned, {learned[-1]: diagonal}, adapter=name, parents=parents, **fields)


def merged(name: str, learned: str, diagonal: float, *parents: str, **fields: object) -> list[Result]:
    return scored("merged", learned, {learned[-1]: diagonal}, adapter=name, parents=parents, **fields)


def told(matrices: list[AccuracyMatrix]) -> list[tuple[object, ...]]:
    return [
        (m.method, m.seed, "".join(m.tasks), m.trained.tolist(), np.diag(m.after).tolist()) for m in matrices
    ]


def test_labels_alone_make_a_matrix_and_merged_comes_before_trained() -> None:
    results = [
        *scored("base", "", {"a": 1.0, "b": 2.0}),
        *scored("trained", "a", {"a": 60.0, "b": 10.0}, method="x", seed=1),
        *scored("trained", "ab", {"b": 80.0}, method="x", seed=1),
        *scored("merged", "ab", {"a": 50.0, "b": 70.0}, method="x", seed=1),
    ]
    [matrix], notes = matrices_of(results)
    assert notes == []
    assert (matrix.method, matrix.seed, matrix.tasks, matrix.missing) == ("x", 1, ("a", "b"), ())
    assert matrix.after.tolist() == [[60.0, 10.0], [50.0, 70.0]]
    assert matrix.trained.tolist() == [60.0, 80.0]
    assert matrix.metrics == {"ACC": 60.0, "BWT": -10.0, "FWT": 8.0, "A_t": 70.0, "A_m": 65.0}


def test_without_merging_the_trained_adapter_is_the_state() -> None:
    results = [
        *scored("trained", "a", {"a": 60.0}, method="finetune"),
        *scored("trained", "ab", {"a": 20.0, "b": 80.0}, method="finetune"),
    ]
    [matrix], _ = matrices_of(results)
    assert matrix.metrics["A_t"] == matrix.metrics["A_m"] == 70.0
    assert matrix.metrics["BWT"] == -40.0


def test_lineage_names_a_merged_sequence_after_how_it_was_trained() -> None:
    """As the commands leave it: merge tells its own method and no seed, training tells both."""
    pam = {"method": "pam", "seed": 3}
    average = {"method": "average"}
    results = [
        *trained("t1", "a", 60.0, **pam),
        *trained("t2", "ab", 80.0, "t1", **pam),
        *merged("m2", "ab", 70.0, "t1", "t2", **average),
        *trained("t3", "abc", 81.0, "m2", **pam),
        *merged("m3", "abc", 71.0, "m2", "t3", **average),
    ]
    expected = [("pam", 3, "abc", [60.0, 80.0, 81.0], [60.0, 70.0, 71.0])]
    assert told(matrices_of(results)[0]) == expected
    assert told(matrices_of(results[::-1])[0]) == expected


@pytest.mark.parametrize(
    ("how", "merge", "name"),
    [
        ("finetune", "ties", "ties"),
        ("finetune", "average", "average"),
        ("pam", "average", "pam"),
        ("average", "average", "average"),
        ("lwf+pam", "average", "lwf+pam"),
        ("er+pam", "average", "er+pam"),
        ("ties", "ties", "ties"),
        ("tall", "tall", "tall"),
        ("tall+pam", "tall", "tall+pam"),
        ("magmax", "magmax", "magmax"),
        ("tall+pam", "average", "tall+pam+average"),
        ("pam", "tall", "pam+tall"),
        ("lwf", "average", "lwf+average"),
        ("mine", "mine", "mine"),
    ],
)
def test_a_method_is_how_it_was_trained_and_merged(how: str, merge: str, name: str) -> None:
    results = [
        *trained("t1", "a", 60.0, method=how),
        *trained("t2", "ab", 80.0, "t1", method=how),
        *merged("m2", "ab", 70.0, "t1", "t2", method=merge),
    ]
    assert name in [matrix.method for matrix in matrices_of(results)[0]]


def test_two_methods_share_their_first_task() -> None:
    results = [
        *trained("t1", "a", 60.0, method="finetune", seed=0),
        *trained("p2", "ab", 80.0, "t1", method="pam", seed=0),
        *merged("pm2", "ab", 70.0, "t1", "p2", method="average"),
        *trained("f2", "ab", 85.0, "t1", method="finetune", seed=0),
        *merged("fm2", "ab", 75.0, "t1", "f2", method="ties"),
    ]
    assert told(matrices_of(results)[0]) == [
        ("finetune", 0, "ab", [60.0, 85.0], [60.0, 85.0]),
        ("pam", 0, "ab", [60.0, 80.0], [60.0, 70.0]),
        ("ties", 0, "ab", [60.0, 85.0], [60.0, 75.0]),
    ]


def test_magmax_merges_the_chain_of_sequential_fine_tuning() -> None:
    tune, magmax = {"method": "finetune"}, {"method": "magmax"}
    results = [
        *trained("t1", "a", 60.0, **tune),
        *trained("t2", "ab", 80.0, "t1", **tune),
        *trained("t3", "abc", 90.0, "t2", **tune),
        *merged("m2", "ab", 50.0, "t1", "t2", **magmax),
        *merged("m3", "abc", 40.0, "m2", "t3", **magmax),
    ]
    assert told(matrices_of(results)[0]) == [
        ("finetune", None, "abc", [60.0, 80.0, 90.0], [60.0, 80.0, 90.0]),
        ("magmax", None, "abc", [60.0, 80.0, 90.0], [60.0, 50.0, 40.0]),
    ]


@pytest.mark.parametrize("parents_of_the_third", [("t2",), ("t2", "m2")])
def test_magmax_of_its_own_chain_is_one_sequence(parents_of_the_third: tuple[str, ...]) -> None:
    """The chain goes on from the trained adapter, with or without the merged one among the parents."""
    chain, magmax = {"method": "magmax", "seed": 2, "order": "o"}, {"method": "magmax"}
    results = [
        *trained("t1", "a", 60.0, **{**chain, "method": "finetune"}),
        *trained("t2", "ab", 80.0, "t1", **chain),
        *trained("t3", "abc", 90.0, *parents_of_the_third, **chain),
        *merged("m2", "ab", 50.0, "t1", "t2", **magmax),
        *merged("m3", "abc", 40.0, "m2", "t3", **magmax),
    ]
    expected = [("magmax", 2, "abc", [60.0, 80.0, 90.0], [60.0, 50.0, 40.0])]
    assert told(matrices_of(results)[0]) == expected
    assert told(matrices_of(results[::-1])[0]) == expected


def test_two_methods_share_a_whole_chain_of_adapters() -> None:
    """MagMax trains what fine-tuning trains, bit for bit: each scores it under its own name."""
    place = {"seed": 0, "order": "o"}
    results = [*trained("t1", "a", 60.0, method="finetune", **place)]
    for method in ("finetune", "magmax"):
        results += trained("t2", "ab", 80.0, "t1", method=method, **place)
        results += trained("t3", "abc", 90.0, "t2", method=method, **place)
    results += merged("m2", "ab", 50.0, "t1", "t2", method="magmax", **place)
    results += merged("m3", "abc", 40.0, "m2", "t3", method="magmax", **place)
    expected = [
        ("finetune", 0, "abc", [60.0, 80.0, 90.0], [60.0, 80.0, 90.0]),
        ("magmax", 0, "abc", [60.0, 80.0, 90.0], [60.0, 50.0, 40.0]),
    ]
    assert told(matrices_of(results)[0]) == expected
    assert told(matrices_of(results[::-1])[0]) == expected


def test_what_a_method_trains_to_be_merged_is_no_sequence_of_its_own() -> None:
    results = [
        *trained("t1", "a", 60.0, method="finetune"),
        *trained("t2", "ab", 80.0, "t1", method="pam"),
        *merged("m2", "ab", 70.0, "t1", "t2", method="tall"),
    ]
    assert [matrix.method for matrix in matrices_of(results)[0]] == ["pam+tall"]


@pytest.mark.parametrize("run", [None, "p=30"])
def test_a_plain_first_task_begins_the_sequences_of_other_methods(run: str | None) -> None:
    """By labels alone, where no fingerprint tells that the first task is theirs."""
    place = {"seed": 1, "order": "o"}
    results = [
        *scored("trained", "a", {"a": 60.0}, method="finetune", **place),
        *scored("trained", "a", {"a": 1.0}, method="finetune", seed=2, order="o"),
        *scored("trained", "ab", {"a": 50.0, "b": 80.0}, method="lwf", run=run, **place),
        *scored("trained", "ab", {"a": 30.0, "b": 90.0}, method="er", run=run, **place),
    ]
    found = {matrix.method: np.diag(matrix.after)[0] for matrix in matrices_of(results)[0][:2]}
    assert found["lwf"] == 60.0
    assert np.isnan(found["er"]), "replay keeps what later tasks need, so its first task is its own"


def test_orders_seeds_and_runs_are_kept_apart() -> None:
    results = [
        result
        for order in ("ab", "ba")
        for seed in (0, 1)
        for run in (None, "p=30")
        for learned in (order[:1], order)
        for result in scored("trained", learned, {"a": 50.0, "b": 50.0}, method="x", seed=seed, run=run)
    ]
    matrices, notes = matrices_of(results)
    assert notes == []
    assert {(m.tasks, m.seed, m.system) for m in matrices} == {
        (tuple(order), seed, system)
        for order in ("ab", "ba")
        for seed in (0, 1)
        for system in ("x", "x (p=30)")
    }
    assert all(matrix.metrics["ACC"] == 50.0 for matrix in matrices)


def test_missing_cells_come_with_the_command_that_fills_them() -> None:
    results = [
        *scored("base", "", {"a": 1.0}, base="b"),
        *scored("trained", "a", {"a": 60.0}, adapter="t1", base="b", method="pam"),
        *scored("merged", "ab", {"b": 70.0}, adapter="m2", base="b", parents=("t1", "t2"), method="pam"),
    ]
    [matrix], _ = matrices_of(results)
    assert matrix.metrics == {"ACC": None, "BWT": None, "FWT": None, "A_t": None, "A_m": 65.0}
    assert [missing.command("r.jsonl") for missing in matrix.missing] == [
        "pamctl eval --task b --results r.jsonl",
        "pamctl eval ADAPTER --task b --results r.jsonl  # ADAPTER: pam after a (t1)",
        "pamctl eval ADAPTER --task a --results r.jsonl  # ADAPTER: pam after a, b (m2)",
        "pamctl eval ADAPTER --task b --results r.jsonl  # ADAPTER: pam trained on b, before merging",
    ]


@pytest.mark.parametrize(
    ("fwt", "first", "second"),
    [
        ("lopez-paz", "--task b", "--task c"),
        ("paper", "--task b", None),
        ("all-unseen", "--task b --task c", "--task c"),
    ],
)
def test_each_variant_of_fwt_misses_the_cells_that_it_needs(fwt: str, first: str, second: str | None) -> None:
    results = [
        *scored("base", "", dict.fromkeys(TASKS, 1.0)),
        *scored("trained", "a", {"a": 60.0}, adapter="t1", method="x"),
        *scored("trained", "ab", {"a": 60.0, "b": 60.0}, adapter="t2", method="x"),
        *scored("trained", "abc", dict.fromkeys(TASKS, 60.0), adapter="t3", method="x"),
    ]
    [matrix], _ = matrices_of(results, fwt)
    told = [(missing.fingerprint, missing.command()) for missing in matrix.missing]
    expected = [("t1", first), *([("t2", second)] if second else [])]
    assert [fingerprint for fingerprint, _ in told] == [fingerprint for fingerprint, _ in expected]
    for (_, command), (_, tasks) in zip(told, expected, strict=True):
        assert command.startswith(f"pamctl eval ADAPTER {tasks} --results")
    cells = scored("trained", "a", {"b": 20.0, "c": 20.0}, adapter="t1", method="x")
    cells += scored("trained", "ab", {"c": 20.0}, adapter="t2", method="x")
    needed = [
        cell
        for cell in cells
        if (cell.adapter, cell.task)
        in {(missing.fingerprint, task) for missing in matrix.missing for task in missing.tasks}
    ]
    [filled], _ = matrices_of([*results, *needed], fwt)
    assert filled.missing == ()
    assert filled.forward_transfers[fwt] is not None


def test_a_state_that_was_never_evaluated_is_missing_whole() -> None:
    [matrix], _ = matrices_of(scored("merged", "ab", {"a": 50.0, "b": 70.0}, method="x"))
    assert np.isnan(matrix.after[0]).all()
    assert matrix.metrics["ACC"] == 60.0


def test_zero_shot_of_another_base_is_not_taken() -> None:
    results = [
        *scored("base", "", {"a": 1.0}, base="other"),
        *scored("trained", "a", {"a": 60.0}, base="mine", method="x"),
    ]
    [matrix], _ = matrices_of(results)
    assert np.isnan(matrix.zero_shot).all()


def test_scores_that_do_not_compare_are_noted() -> None:
    few = Result("a", "trained", ("a",), "exact", 10.0, 2, adapter="t")
    many = Result("a", "trained", ("a",), "exact", 30.0, 9, adapter="t")
    for results in ([few, many], [many, few]):
        [matrix], notes = matrices_of(results)
        assert matrix.after.tolist() == [[30.0]]
        assert any("not scored on the same examples" in note for note in notes)
        assert any("two scores" in note for note in notes)
    assert matrices_of([few, few])[1] == []
    again = replace(few, score=20.0)
    for results, counts in (([few, again], 20.0), ([again, few], 10.0)):
        [matrix], notes = matrices_of(results)
        assert (matrix.after.tolist(), len(notes)) == ([[counts]], 1)


def test_one_adapter_under_the_names_of_several_methods_makes_no_sequence_of_its_own() -> None:
    """In the second task finetune, average and magmax train the very same adapter, and each may score it."""
    same = {"order": "o"}
    finetune, average, magmax = (
        {"method": name, "seed": 0, **same} for name in ("finetune", "average", "magmax")
    )
    results = [
        *trained("t1", "a", 60.0, **finetune),
        *trained("t2", "ab", 80.0, "t1", **finetune),
        *trained("t2", "ab", 80.0, "t1", **average),
        *merged("m2", "ab", 70.0, "t1", "t2", method="average", **same),
        *trained("t3", "abc", 81.0, "m2", **average),
        *merged("m3", "abc", 71.0, "m2", "t3", method="average", **same),
        *trained("t2", "ab", 80.0, "t1", **magmax),
        *merged("x2", "ab", 72.0, "t1", "t2", method="magmax", **same),
        *trained("u3", "abc", 82.0, "t2", **magmax),
        *merged("x3", "abc", 73.0, "x2", "u3", method="magmax", **same),
        *trained("u3", "abc", 82.0, "t2", **finetune),
    ]
    found, _ = matrices_of(results)
    assert {(matrix.method, matrix.tasks) for matrix in found} == {
        (method, TASKS) for method in ("finetune", "average", "magmax")
    }
    assert len(found) == 3


@pytest.mark.parametrize("merge_tells_its_seed", [True, False])
def test_methods_that_train_the_same_adapters_have_a_sequence_each(merge_tells_its_seed: bool) -> None:
    """PAM that never aligns is `average`, bit for bit: the merged adapter is one, and tells of no method."""
    place = {"seed": 0, "order": "o"}
    average = {**(place if merge_tells_its_seed else {"order": "o"}), "method": "average"}
    results = trained("t1", "a", 60.0, method="finetune", **place)
    for method in ("average", "pam", "er+pam", "magmax"):
        results += trained("t2", "ab", 80.0, "t1", method=method, **place)
        results += trained("t3", "abc", 90.0, "m2", method=method, **place) if method != "magmax" else []
    results += merged("m2", "ab", 70.0, "t1", "t2", **average)
    results += merged("m3", "abc", 75.0, "m2", "t3", **average)
    numbers = (0, "abc", [60.0, 80.0, 90.0], [60.0, 70.0, 75.0])
    expected = [(method, *numbers) for method in ("average", "er+pam", "pam")]
    assert told(matrices_of(results)[0]) == expected
    assert told(matrices_of(results[::-1])[0]) == expected


def test_methods_of_the_same_adapters_have_a_sequence_each_before_any_merge_is_scored() -> None:
    results = trained("t1", "a", 60.0, method="finetune")
    for method in ("average", "pam"):
        results += trained("t2", "ab", 80.0, "t1", method=method)
    assert [matrix.method for matrix in matrices_of(results)[0]] == ["average", "pam"]


def test_a_plainly_trained_adapter_is_named_by_its_merging_once() -> None:
    """Methods that do not ask for this merging, though they train the same, did not ask for it."""
    results = trained("t1", "a", 60.0, method="finetune")
    for method in ("lwf", "finetune", "ties"):
        results += trained("t2", "ab", 80.0, "t1", method=method)
    results += merged("m2", "ab", 70.0, "t1", "t2", method="average")
    names = [matrix.method for matrix in matrices_of(results)[0]]
    assert [name for name in names if "average" in name] == ["average"]


@pytest.mark.parametrize(
    "others", [{"method": "er"}, {"run": "b0"}, {"seed": 1}], ids=["method", "run", "seed"]
)
def test_trained_adapters_that_are_the_same_have_a_sequence_for_each_of_their_labels(
    others: dict[str, object],
) -> None:
    """Replay from an empty buffer is `finetune`, bit for bit."""
    plain = {"method": "finetune", "seed": 0}
    results = [
        result
        for labels in (plain, {**plain, **others})
        for learned, name, parents in (("a", "t1", ()), ("ab", "t2", ("t1",)))
        for result in trained(name, learned, 70.0, *parents, **labels)
    ]
    found = {(matrix.method, matrix.run, matrix.seed, matrix.tasks) for matrix in matrices_of(results)[0]}
    assert found == {
        (labels["method"], labels.get("run"), labels["seed"], ("a", "b"))
        for labels in (plain, {**plain, **others})
    }


@pytest.mark.parametrize(("names", "counted"), [("t", "1 adapter"), ("tu", "2 adapters")])
def test_adapters_that_tell_no_tasks_are_counted(names: str, counted: str) -> None:
    results = [Result("a", "trained", (), "exact", 10.0, 4, adapter=name) for name in names]
    assert matrices_of(results) == ([], [f"in no sequence: {counted} that no learned tasks are told of"])
