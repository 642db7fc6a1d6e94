"""What users of other tools complain about, by the numbers of the list that this merger was designed against.

Numbers that are not here, or only in part, are tested elsewhere:
  4   that peft itself loads what is written: parity/test_peft_adapters.py; here it is read by peft's rules
  9   fused projections: adapters/test_diffusers_format.py, parity/test_sdxl_layout.py; here ranks that change
  10  gigabytes under a bound, 11 seconds: bench/merge.py; here what the plan says and a small merge's peak
  14  the three generations of PaliGemma's paths: cli/test_merge_command.py, parity/test_peft_adapters.py
  15  what a server can load: serving/test_checking.py; the overlap that is printed: cli/test_merge_command.py
  19  resized embeddings at rest: parity/test_peft_adapters.py; 20: test_extras.py; here both from files
  23  hostile pickles in full: adapters/test_pickle_file.py
  24  merging into a quantised base is not done here; an adapter on one is like any other
  26  what an adapter was trained from: adapters/test_provenance.py, test_plan.py
  29  MLX and back: adapters/test_mlx_format.py; 30: the golden values in methods/
  31  compare deltas and never factors: every test here does
"""

import contextlib
import io
import itertools
import json
import pickle
import re
import tracemalloc
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from pamctl.adapters import Adapter, LoraFactors, open_adapter, write_adapter
from pamctl.adapters.formats.written import WriteOptions
from pamctl.cli.errors import exit_code_of
from pamctl.cli.merge import merge as merge_command
from pamctl.merging import Recipe, execute, merge, plan_merge
from pamctl.merging.methods import NAMES, method_named
from pamctl.refusal import Refusal
from tests.adapter_cases import KEY, PREFIX, Q_PROJ, random_adapter, saved, write_peft
from tests.merging.merge_cases import (
    AT_REST,
    CASES,
    NUMPY_DTYPES,
    PARTIAL,
    RANDOM,
    SCALES,
    SIZES,
    Case,
    Deltas,
    Float64,
    Input,
    assert_same,
    bits_of,
    case,
    deltas_of,
    flat,
    largest,
    opened,
    random_input,
)

EVERY = [*CASES, *PARTIAL, *RANDOM]
every_method = pytest.mark.parametrize("each", CASES, ids=str)
every_case = pytest.mark.parametrize("each", EVERY, ids=str)

MODULE = next(iter(SIZES))
A, B = f"{KEY}.lora_A.weight", f"{KEY}.lora_B.weight"


def run(*arguments: str) -> int:
    return exit_code_of(lambda: merge_command.main(list(arguments), standalone_mode=False))


def numbers(seed: int, *shape: int, dtype: Any = np.float32) -> Any:
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def pair(seed: int = 0, rank: int = 4, key: str = KEY, sides: tuple[int, int] = (16, 16)) -> dict[str, Any]:
    """The two tensors of one module of peft's; sides are (outputs, inputs)."""
    a, b = numbers(2 * seed, rank, sides[1]), numbers(2 * seed + 1, sides[0], rank)
    return {f"{key}.lora_A.weight": a, f"{key}.lora_B.weight": b}


def product(tensors: dict[str, Any], key: str = KEY) -> Float64:
    a, b = tensors[f"{key}.lora_A.weight"], tensors[f"{key}.lora_B.weight"]
    result: Float64 = b.astype(np.float64) @ a.astype(np.float64)
    return result


def only(adapter: Adapter) -> Float64:
    (found,) = deltas_of(adapter).values()
    return found


def close(found: Any, expected: Any) -> None:
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-5 * max(float(np.abs(expected).max()), 1e-30))


# --- 1-5: strength, sign and the files of peft ------------------------------------------------------------


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("each", [each for each in CASES if each.copies], ids=str)
def test_01_two_peft_folders_with_the_same_delta_merge_to_it_at_any_scale(
    each: Case, scale: float, tmp_path: Path
) -> None:
    """The scale counts once: alpha is not r, and the second folder has the same delta from other numbers."""
    tensors = pair(rank=3)
    halved = {A: tensors[A] / 2, B: tensors[B] * 8}
    one = write_peft(tmp_path / "one", tensors, r=3, lora_alpha=3 * scale)
    two = write_peft(tmp_path / "two", halved, r=3, lora_alpha=3 * scale / 4)
    weights = [0.5, 0.5] if each.copies == "share" else [1.0, 1.0]
    merged = each.merged(
        [open_adapter(one), open_adapter(two)], weights if each.weighted else None, space="delta"
    )
    close(only(merged), scale * product(tensors))


def test_02_rslora_is_alpha_by_the_root_of_the_rank_and_is_not_passed_on(tmp_path: Path) -> None:
    one, two = pair(0, rank=4), pair(1, rank=9)
    folders = [
        write_peft(tmp_path / "rs", one, r=4, lora_alpha=8, use_rslora=True),
        write_peft(tmp_path / "plain", two, r=9, lora_alpha=18),
    ]
    output = tmp_path / "merged"
    assert run(*map(str, folders), "-o", str(output), "--method", "linear") == 0
    config = json.loads((output / "adapter_config.json").read_text())
    assert not config.get("use_rslora")
    assert config["lora_alpha"] == config["r"] == 13
    expected = 8 / 2 * product(one) + 18 / 9 * product(two)
    close(only(open_adapter(output)), expected)
    close(product(load_file(output / "adapter_model.safetensors")), expected)


@pytest.mark.parametrize(
    ("config", "named"),
    [
        ({"use_dora": True}, "use_dora"),
        ({"kasa_config": {"beta": 1}}, "kasa_config"),
        ({"use_qalora": True}, "use_qalora"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights"),
        ({"a_field_of_tomorrow": 3}, "a_field_of_tomorrow"),
        ({"peft_type": "LOHA"}, "LOHA"),
        ({"peft_type": "LOKR"}, "LOKR"),
    ],
    ids=lambda part: str(part),
)
def test_03_what_is_no_plain_lora_is_refused_by_name_before_anything_is_written(
    config: dict[str, Any], named: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_peft(tmp_path / "plain", pair())
    write_peft(tmp_path / "other", pair(1), **config)
    assert run(str(tmp_path / "plain"), str(tmp_path / "other"), "-o", str(tmp_path / "merged")) == 1
    first, hint = capsys.readouterr().err.strip().splitlines()
    assert named in first
    assert hint.startswith("Hint: ")
    assert not (tmp_path / "merged").exists()


def test_03_a_dora_magnitude_in_the_file_is_refused(tmp_path: Path) -> None:
    with_magnitude = pair() | {f"{KEY}.lora_magnitude_vector": np.ones(16, np.float32)}
    with pytest.raises(Refusal, match="lora_magnitude_vector"):
        open_adapter(write_peft(tmp_path / "dora", with_magnitude))


@pytest.mark.parametrize("space", ["delta", "factor"])
def test_03_biases_of_lora_b_are_summed_with_weight_and_scale(space: Any, tmp_path: Path) -> None:
    biases, folders = [numbers(8, 16), numbers(9, 16)], []
    for i, bias in enumerate(biases):
        tensors = pair(i) | {f"{KEY}.lora_B.bias": bias}
        folders.append(write_peft(tmp_path / str(i), tensors, lora_alpha=4 * (i + 2), lora_bias=True))
    merged = merge([open_adapter(folder) for folder in folders], "linear", [0.5, -2.0], space)
    (extra,) = merged.extras.values()
    close(extra.read(), 0.5 * 2 * biases[0] - 2.0 * 3 * biases[1])


def _hit(patterns: dict[str, float] | None, path: str, default: float) -> float:
    return next(
        (value for key, value in (patterns or {}).items() if re.match(rf"(.*\.)?({key})$", path)), default
    )


def as_peft_reads(folder: Path) -> Deltas:
    """The deltas by peft's own rules, from the files alone."""
    config = json.loads((folder / "adapter_config.json").read_text())
    tensors, found = load_file(folder / "adapter_model.safetensors"), Deltas()
    for name, a in tensors.items():
        if not name.endswith(".lora_A.weight"):
            continue
        module = name.removesuffix(".lora_A.weight")
        path = module.removeprefix(PREFIX)
        rank = _hit(config.get("rank_pattern"), path, config["r"])
        alpha = _hit(config.get("alpha_pattern"), path, config["lora_alpha"])
        assert a.shape[0] == rank
        scale = alpha / (rank**0.5 if config.get("use_rslora") else rank)
        found[flat(path)] = scale * product(tensors, module)
    return found


@every_method
@pytest.mark.parametrize("compact", [False, True])
def test_04_mixed_ranks_are_written_so_that_peft_reads_what_was_merged(
    each: Case, compact: bool, tmp_path: Path
) -> None:
    made = [random_input(i, ranks=(1, 4, 6), scales=SCALES, format="peft") for i in range(each.most)]
    with opened(made) as adapters:
        merged = each.merged(adapters, space="delta")
        write_adapter(merged, tmp_path / "merged", options=WriteOptions(compact=compact))
        found, read = deltas_of(merged), deltas_of(open_adapter(tmp_path / "merged"))
    by_peft = as_peft_reads(tmp_path / "merged")
    for each_reading in (read, by_peft):
        assert_same(each_reading, found, largest([found]), 1e-12)
    patterns = json.loads((tmp_path / "merged" / "adapter_config.json").read_text()).get("rank_pattern")
    assert compact or not patterns


def test_05_the_first_adapter_alone_a_difference_of_equals_and_a_negation(tmp_path: Path) -> None:
    one, two = (open_adapter(write_peft(tmp_path / str(i), pair(i), lora_alpha=2 + i)) for i in range(2))

    def by_linear(those: Sequence[Adapter], weights: list[float]) -> Float64:
        return only(merge(those, "linear", weights))

    close(by_linear([one, two], [1, 0]), only(one))
    close(by_linear([one, two], [0, 1]), only(two))
    assert np.abs(by_linear([one, one], [1, -1])).max() < 1e-5
    close(by_linear([one, two], [-1, 0.5]), -by_linear([one, two], [1, -0.5]))
    close(by_linear([one, two], [-1, 0]), -only(one))


@pytest.mark.parametrize("method", [name for name in NAMES if "delta" in method_named(name).spaces])
def test_05_unrelated_adapters_are_merged_as_deltas_unless_factors_are_asked_for(method: str) -> None:
    adapters = [random_adapter(i) for i in range(2)]
    parameters = {"count": 1} if method == "running-average" else {}
    assert plan_merge(adapters, Recipe(method, parameters=parameters)).space == "delta"


# --- 6-9: ranks, alphas and order -------------------------------------------------------------------------


@pytest.mark.parametrize("weights", [[0.7, 0.4], [1.0, 1.0], [0.5, 0.5], [1.0, 0.0], [2.0, -0.5]])
@pytest.mark.parametrize("format", AT_REST)
def test_06_concatenation_is_the_weighted_sum_of_the_deltas(format: str, weights: list[float]) -> None:
    made = [
        random_input(0, ranks=(2, 5), scales=(0.25, 2.0), format=format),
        random_input(1, ranks=(6, 1), scales=(4.0, 1.0), format=format),
    ]
    deltas = [x.deltas() for x in made]
    with opened(made) as adapters:
        found = deltas_of(merge(adapters, "cat", weights))
    expected = {m: weights[0] * deltas[0][m] + weights[1] * deltas[1][m] for m in deltas[0]}
    assert_same(found, expected, largest(deltas, weights), 1e-6)


@every_case
def test_07_ranks_4_8_and_32_merge_in_every_method_and_no_rank_is_lost_unsaid(each: Case) -> None:
    """All that is cut is in the report, and what is not cut is what the same deltas at one rank give."""
    sides, key = (40, 48), "layers.0.q_proj"
    parts = [(numbers(10 + i, r, sides[1]), numbers(20 + i, sides[0], r)) for i, r in enumerate((4, 8, 32))]
    parts = parts[-each.most :]
    adapters = [Adapter({key: LoraFactors(a, b, 2.0)}) for a, b in parts]
    plan = plan_merge(adapters, _recipe(each))
    merged = execute(plan)
    found = only(merged.adapter)
    assert np.isfinite(found).all()
    assert plan.modules[key].ranks == tuple(len(a) for a, _ in parts)
    exact = only(each.merged(adapters, **each.lossless))
    lost, whole = float(((found - exact) ** 2).sum()), float((exact**2).sum())
    told = merged.report.retained_energy
    assert lost == pytest.approx(whole * (0.0 if told is None else 1 - told), abs=1e-4 * whole)


def _recipe(each: Case) -> Recipe:
    given = each.options
    return Recipe(given["method"], given["variant"], space="delta", parameters=given["parameters"])


@pytest.mark.parametrize("format", AT_REST)
def test_08_the_order_of_the_keys_in_a_file_changes_no_byte(format: str, tmp_path: Path) -> None:
    made = [random_input(i, ranks=(2, 5, 3), scales=SCALES, format=format) for i in range(2)]
    names = list(SIZES)
    outputs = []
    for number, order in enumerate(itertools.islice(itertools.permutations(names), 0, 6, 2)):
        shuffled = [Input({m: x.modules[m] for m in order}, format) for x in made]
        with opened(shuffled) as adapters:
            write_adapter(merge(adapters, "ties"), tmp_path / str(number))
        outputs.append(
            {
                file: (tmp_path / str(number) / file).read_bytes()
                for file in ("adapter_model.safetensors", "pamctl.json")
            }
        )
    assert outputs[0] == outputs[1] == outputs[2]


def test_08_without_any_alpha_the_scale_is_1_whatever_the_ranks(tmp_path: Path) -> None:
    files = []
    for i in range(2):
        tensors = dict[str, Any]()
        for rank, (module, (outputs, inputs)) in zip((2, 7, 4), SIZES.items(), strict=True):
            tensors |= pair(3 * i + rank, rank, f"unet.{module}", (outputs, inputs))
        save_file(tensors, tmp_path / f"{i}.safetensors")
        files.append(tensors)
    merged = deltas_of(merge([open_adapter(tmp_path / f"{i}.safetensors") for i in range(2)], "linear"))
    for module in SIZES:
        close(merged[flat(module)], sum(product(tensors, f"unet.{module}") for tensors in files))


@pytest.mark.parametrize("format", AT_REST)
@pytest.mark.parametrize("rank", [1, 3, "max", 30])
def test_09_a_rank_that_changes_does_not_change_the_strength(format: str, rank: Any, tmp_path: Path) -> None:
    """The alpha that is written goes with the rank that is written, also where ranks are padded to one."""
    made = [random_input(i, ranks=(2, 5, 3), scales=(4.0, 0.25), format=format) for i in range(2)]
    with opened(made) as adapters:
        merged = merge(adapters, "average", space="delta", rank=rank)
        expected = deltas_of(merged)
        write_adapter(merged, tmp_path / "merged", format)
    found = deltas_of(open_adapter(tmp_path / "merged"))
    assert_same(found, expected, largest([expected]), 1e-6)


# --- 10-13: memory, half precision, degenerate deltas -----------------------------------------------------


def test_10_a_merge_that_does_not_fit_is_refused_in_the_plan_with_what_it_takes() -> None:
    adapters = [Adapter({"q": LoraFactors(numbers(i, 64, 2000), numbers(i, 2000, 64))}) for i in range(8)]
    with pytest.raises(Refusal, match=r"more than the .* of --max-memory") as refusal:
        plan_merge(adapters, Recipe("core"), max_memory=4 << 20)
    assert "--max-memory" in refusal.value.way_on


SOME = [case("average"), case("ties", density=0.5), case("linear"), case("karcher")]


@pytest.mark.parametrize("each", SOME, ids=str)
def test_10_eight_adapters_take_no_more_memory_than_allowed(each: Case, tmp_path: Path) -> None:
    folders = []
    for i in range(8):
        modules = {f"layers.{n}": LoraFactors(numbers(i, 32, 256), numbers(n, 256, 32)) for n in range(6)}
        folders.append(saved(Adapter(modules), tmp_path / str(i)))
    adapters = [open_adapter(folder) for folder in folders]
    bound = 16 << 20
    plan = plan_merge(adapters, _recipe(each), max_memory=bound)
    tracemalloc.start()
    try:
        write_adapter(execute(plan).adapter, tmp_path / "merged")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < bound + (4 << 20)


WAYS = [(each, space) for each in CASES for space in each.method.spaces]


@pytest.mark.parametrize(("each", "space"), WAYS, ids=str)
@pytest.mark.parametrize("dtype", ["F16", "BF16"])
def test_12_half_precision_merges_as_the_same_numbers_in_float32(each: Case, dtype: str, space: Any) -> None:
    """To the bit: they are widened before anything is computed."""
    half = [
        random_input(i, ranks=(3,), scales=(2.0,), modules=(MODULE,), format="kohya", dtype=dtype)
        for i in range(each.most)
    ]
    wide = [
        Input(
            {m: (a.astype(np.float32), b.astype(np.float32), s) for m, (a, b, s) in x.modules.items()},
            x.format,
        )
        for x in half
    ]
    with opened(half) as one, opened(wide) as two:
        assert bits_of(each.merged(one, space=space)) == bits_of(each.merged(two, space=space))


@pytest.mark.parametrize("dtype", ["F16", "BF16"])
def test_12_what_is_written_in_half_precision_is_within_an_ulp_of_float32(dtype: str, tmp_path: Path) -> None:
    made = [random_input(i, format="peft", dtype=dtype) for i in range(2)]
    with opened(made) as adapters:
        for number, wanted in enumerate((dtype, "F32")):
            write_adapter(
                merge(adapters, "ties", rank=3), tmp_path / str(number), options=WriteOptions(dtype=wanted)
            )
    half, wide = (load_file(tmp_path / str(i) / "adapter_model.safetensors") for i in range(2))
    for name, values in wide.items():
        assert half[name].dtype == NUMPY_DTYPES[dtype]
        ulp = np.spacing(np.abs(values).astype(NUMPY_DTYPES[dtype])).astype(np.float64)
        assert (np.abs(half[name].astype(np.float64) - values) <= ulp).all()


@pytest.mark.parametrize("dtype", [ml_dtypes.float8_e4m3fn, ml_dtypes.float8_e5m2])
def test_12_eight_bits_are_widened_too(dtype: Any, tmp_path: Path) -> None:
    tensors = [{name: values.astype(dtype) for name, values in pair(i).items()} for i in range(2)]
    folders = [write_peft(tmp_path / str(i), each, lora_alpha=4) for i, each in enumerate(tensors)]
    merged = merge([open_adapter(folder) for folder in folders], "linear")
    close(only(merged), sum(map(product, tensors)))


def degenerate(kind: str) -> list[Input]:
    """Two or three adapters whose deltas are as bad as `kind` says."""
    made = [random_input(i, scales=(2.0, 0.25), modules=tuple(SIZES)[::2]) for i in range(3)]
    if kind == "all zero":
        return [_with(x, b=lambda b: 0 * b) for x in made]
    if kind == "one zero":
        return [_with(made[0], b=lambda b: 0 * b), *made[1:]]
    if kind == "first alone":
        return [made[0], *(_with(x, b=lambda b: 0 * b) for x in made[1:])]
    if kind == "duplicates":
        return [made[0]] * 3
    if kind == "opposites":
        return [made[0], made[0].times(-1.0), made[1]]
    if kind == "rank-deficient A":
        return [_with(x, a=lambda a: np.repeat(a[:1], len(a), axis=0)) for x in made]
    if kind == "one direction":
        return [made[0], made[0].times(0.25), made[0].times(4.0)]
    if kind == "tiny":
        return [_with(x, a=lambda a: a * np.float32(1e-18), b=lambda b: b * np.float32(1e-18)) for x in made]
    assert kind == "huge"
    return [_with(x, a=lambda a: a * np.float32(1e8), b=lambda b: b * np.float32(1e8)) for x in made]


def _with(
    given: Input, a: Callable[[Any], Any] = lambda a: a, b: Callable[[Any], Any] = lambda b: b
) -> Input:
    return Input({m: (a(x), b(y), s) for m, (x, y, s) in given.modules.items()}, given.format)


KINDS = (
    "all zero",
    "one zero",
    "first alone",
    "duplicates",
    "opposites",
    "rank-deficient A",
    "one direction",
    "tiny",
    "huge",
)


DEGENERATE = {kind: degenerate(kind) for kind in KINDS}


@every_case
def test_13_degenerate_deltas_merge_to_finite_numbers_without_a_warning(each: Case) -> None:
    spaces: list[Any] = [space for space in ("delta", "factor") if space in each.method.spaces]
    for (kind, made), space in itertools.product(DEGENERATE.items(), spaces):
        with opened(made[: each.most]) as adapters:
            # opposite directions have no mean on a sphere
            opposite = kind == "opposites" and each.name in ("multislerp", "karcher")
            with contextlib.suppress(Refusal) if opposite else contextlib.nullcontext():
                found = deltas_of(each.merged(adapters, space=space))
                assert all(np.isfinite(values).all() for values in found.values()), (kind, space)
                assert kind != "all zero" or not any(values.any() for values in found.values()), space


@pytest.mark.parametrize("each", [each for each in CASES if not each.method.exact_rank], ids=str)
def test_13_a_share_of_energy_of_degenerate_deltas_has_a_rank(each: Case) -> None:
    for kind in ("all zero", "duplicates", "rank-deficient A"):
        with opened(degenerate(kind)[: each.most]) as adapters:
            merged = each.merged(adapters, space="delta", energy=0.99)
            assert all(1 <= factors.rank <= 8 for factors in merged.modules.values()), kind


def test_13_the_rank_of_duplicates_by_energy_is_that_of_one() -> None:
    with opened(degenerate("rank-deficient A")) as adapters:
        merged = merge(adapters[:1] * 3, "linear", energy=0.999999)
        assert {factors.rank for factors in merged.modules.values()} == {1}


# --- 14-21: names, coverage, formats, what is no delta ----------------------------------------------------

GENERATIONS = (
    ("language_model.model.", "vision_tower.vision_model.", "multi_modal_projector."),
    ("model.language_model.", "model.vision_tower.vision_model.", "model.multi_modal_projector."),
    ("model.language_model.", "model.vision_tower.", "model.multi_modal_projector."),
)
LEAVES = ("layers.0.self_attn.q_proj", "encoder.layers.0.mlp.fc1", "linear")


def of_generation(folder: Path, seed: int, generation: Sequence[str]) -> tuple[Path, dict[str, Float64]]:
    """An adapter of a tower each of language, vision and projector, and its deltas by leaf."""
    tensors, deltas = dict[str, Any](), dict[str, Float64]()
    for i, (start, leaf) in enumerate(zip(generation, LEAVES, strict=True)):
        key = f"{PREFIX}{start}{leaf}"
        tensors |= pair(10 * seed + i, key=key)
        deltas[leaf] = 2 * product(tensors, key)
    return write_peft(folder, tensors, base_model_name_or_path="google/paligemma-3b-pt-224"), deltas


def test_14_and_21_towers_and_projector_of_three_generations_are_the_same_modules(tmp_path: Path) -> None:
    made = [of_generation(tmp_path / str(i), i, names) for i, names in enumerate(GENERATIONS)]
    plan = plan_merge([open_adapter(folder) for folder, _ in made], Recipe("linear"))
    assert {part["covered_percent"] for part in plan.coverage} == {100.0}
    found = deltas_of(execute(plan).adapter)
    assert len(found) == 3
    for leaf in LEAVES:
        (module,) = (name for name in found if name.endswith(flat(leaf)))
        close(found[module], sum(deltas[leaf] for _, deltas in made))


@pytest.mark.parametrize("spelling", ["4.51", "4.57", "5"])
def test_14_the_style_of_the_output_is_chosen(spelling: str, tmp_path: Path) -> None:
    folders = [str(of_generation(tmp_path / str(i), i, GENERATIONS[i])[0]) for i in range(2)]
    output = tmp_path / "merged"
    assert run(*folders, "-o", str(output), "--space", "delta", "--spelling", spelling) == 0
    keys = load_file(output / "adapter_model.safetensors").keys()
    generation = GENERATIONS[("4.51", "4.57", "5").index(spelling)]
    for start, leaf in zip(generation, LEAVES, strict=True):
        assert f"{PREFIX}{start}{leaf}.lora_A.weight" in keys


def test_15_no_module_in_common_is_an_error_and_writes_nothing(tmp_path: Path) -> None:
    write_peft(tmp_path / "one", pair(key=f"{PREFIX}down_blocks.0.proj_in"))
    write_peft(tmp_path / "two", pair(key=f"{PREFIX}down_blocks.1.proj_in"))
    assert run(str(tmp_path / "one"), str(tmp_path / "two"), "-o", str(tmp_path / "merged")) == 1
    assert not (tmp_path / "merged").exists()


@pytest.mark.parametrize("method", ["average", "ties", "cat", "core", "karcher"])
def test_16_every_tensor_is_merged_or_passed_on_and_the_coverage_says_so(method: str, tmp_path: Path) -> None:
    other = KEY.replace("layers.0", "layers.1")
    one = pair(0) | pair(1, key=other) | {f"{PREFIX}score.weight": numbers(5, 3, 4)}
    folders = [
        write_peft(tmp_path / "one", one, modules_to_save=["score"]),
        write_peft(tmp_path / "two", pair(2)),
    ]
    adapters = [open_adapter(folder) for folder in folders]
    plan = plan_merge(adapters, Recipe(method))
    assert [(part["modules"], part["used"], part["in_every_adapter"]) for part in plan.coverage] == [
        (2, 2, 1),
        (1, 1, 1),
    ]
    assert any("score.weight" in note for note in plan.notes)
    merged = execute(plan).adapter
    assert len(merged.modules) == 2
    assert all(values.any() for values in deltas_of(merged).values())
    np.testing.assert_array_equal(merged.extras["score.weight"].read(), one[f"{PREFIX}score.weight"])


@pytest.mark.parametrize("name", ["lora_A.bias", "lora_C.weight", "hada_w1_a"])
def test_16_a_tensor_that_is_not_understood_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(Refusal):
        open_adapter(write_peft(tmp_path / "odd", pair() | {f"{KEY}.{name}": np.ones((4, 16), np.float32)}))


@every_method
def test_17_kohya_peft_diffusers_and_mlx_files_of_one_model_merge(each: Case) -> None:
    """What they merge to is what the same numbers give in one format."""
    formats = ("kohya", "peft", "diffusers") if each.most == 3 else ("kohya", "diffusers")
    made = [
        random_input(i, ranks=(3,), scales=(2.0, 0.25), format=format) for i, format in enumerate(formats)
    ]
    alike = [Input(x.modules, "peft") for x in made]
    with opened(made) as mixed, opened(alike) as uniform:
        found, expected = (each.merged(those, space="delta") for those in (mixed, uniform))
        assert set(found.modules) == set(SIZES)
        assert_same(deltas_of(found), deltas_of(expected), largest([x.deltas() for x in made]))


@pytest.mark.parametrize("kind", ["hada_w1_a", "lokr_w1"])
def test_17_lycoris_other_kinds_are_refused_by_name(kind: str, tmp_path: Path) -> None:
    name = f"lora_unet_{flat(MODULE)}"
    file = tmp_path / "lycoris.safetensors"
    save_file({f"{name}.{kind}": numbers(0, 4, 4), f"{name}.alpha": np.asarray(4.0, np.float32)}, file)
    with pytest.raises(Refusal, match=f"{name}.{kind}") as refusal:
        open_adapter(file)
    assert "LoHa" in refusal.value.way_on or "LoKr" in refusal.value.way_on


def test_18_two_folders_and_an_output_suffice(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for i in range(2):
        write_peft(tmp_path / str(i), pair(i))
    assert run(str(tmp_path / "0"), str(tmp_path / "1"), "-o", str(tmp_path / "merged")) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'merged'}\n"
    close(only(open_adapter(tmp_path / "merged")), (2 * product(pair(0)) + 2 * product(pair(1))) / 2)


def with_embedding(folder: Path, seed: int, vocabulary: int) -> Adapter:
    key = "model.language_model.embed_tokens"
    tensors = pair(seed) | {f"{PREFIX}{key}.weight": numbers(seed, vocabulary, 16)}
    return open_adapter(write_peft(folder, tensors))


@pytest.mark.parametrize("sizes", [(10, 10), (10, 12)])
def test_19_saved_embeddings_that_differ_are_never_merged_unasked(
    sizes: tuple[int, int], tmp_path: Path
) -> None:
    adapters = [with_embedding(tmp_path / str(i), i, size) for i, size in enumerate(sizes)]
    with pytest.raises(Refusal, match="embed_tokens"):
        merge(adapters)
    (kept,) = merge(adapters, full_modules="first").extras.values()
    (first,) = adapters[0].extras.values()
    np.testing.assert_array_equal(kept.read(), first.read())
    if sizes[0] != sizes[1]:
        with pytest.raises(Refusal, match="embed_tokens"):
            merge(adapters, full_modules="mean")


@pytest.mark.parametrize("vocabularies", [(16, 20)])
def test_19_a_head_adapted_at_two_sizes_is_refused_with_both(
    vocabularies: tuple[int, int], tmp_path: Path
) -> None:
    key = f"{PREFIX}lm_head"
    adapters = [
        open_adapter(write_peft(tmp_path / str(i), pair(i, key=key, sides=(size, 16))))
        for i, size in enumerate(vocabularies)
    ]
    with pytest.raises(Refusal, match=r"lm_head") as refusal:
        merge(adapters)
    assert all(str(size) in refusal.value.what for size in vocabularies)


def test_20_the_same_module_saved_whole_twice_is_refused_until_its_fate_is_chosen(tmp_path: Path) -> None:
    heads = [numbers(i, 3, 4) for i in range(2)]
    adapters = [
        open_adapter(
            write_peft(
                tmp_path / str(i), pair(i) | {f"{PREFIX}score.weight": heads[i]}, modules_to_save=["score"]
            )
        )
        for i in range(2)
    ]
    for method in ("average", "ties", "core", "slerp"):
        with pytest.raises(Refusal, match=r"score\.weight"):
            merge(adapters, method)
    close(merge(adapters, full_modules="first").extras["score.weight"].read(), heads[0])
    close(merge(adapters, full_modules="mean").extras["score.weight"].read(), (heads[0] + heads[1]) / 2)


# --- 22-32: dtypes, safety, bases, configs, variants ------------------------------------------------------


@pytest.mark.parametrize(
    ("dtypes", "expected"),
    [(("BF16", "BF16"), "BF16"), (("BF16", "F32"), "F32"), (("F16", "BF16"), "F32"), (("F32", "F32"), "F32")],
)
def test_22_the_output_is_as_wide_as_the_widest_input(
    dtypes: tuple[str, str], expected: str, tmp_path: Path
) -> None:
    made = [random_input(i, format="peft", dtype=dtype) for i, dtype in enumerate(dtypes)]
    with opened(made) as adapters:
        write_adapter(merge(adapters), tmp_path / "merged")
    found = {x.dtype for x in load_file(tmp_path / "merged" / "adapter_model.safetensors").values()}
    assert found == {np.dtype(NUMPY_DTYPES[expected])}


def test_22_sums_are_in_float32_or_wider_whatever_the_inputs(tmp_path: Path) -> None:
    """In half precision the first adapter would swallow 0.001 of the second, which cancels what is left."""
    ones = {A: np.ones((4, 16), np.float16), B: np.ones((16, 4), np.float16)}
    little = {A: np.ones((4, 16), np.float16), B: np.full((16, 4), 2.0**-12, np.float16)}
    folders = [write_peft(tmp_path / str(i), each, lora_alpha=4) for i, each in enumerate((ones, little))]
    found = only(merge([open_adapter(folder) for folder in folders], "linear", [1.0, 1.0], "delta"))
    np.testing.assert_allclose(found, 4 * (1 + 2.0**-12), rtol=1e-6)


class Marked:
    """Unpickled, it would write a file."""

    def __init__(self, mark: str) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, tuple[str, str]]:
        return (open, (self.mark, "w"))


def test_23_a_pickled_adapter_is_refused_and_nothing_in_it_runs(tmp_path: Path) -> None:
    folder, mark = tmp_path / "evil", tmp_path / "mark"
    write_peft(folder, pair())
    (folder / "adapter_model.safetensors").unlink()
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({A: Marked(str(mark))}))
        archive.writestr("archive/version", "3\n")
    (folder / "adapter_model.bin").write_bytes(stream.getvalue())
    write_peft(tmp_path / "good", pair(1))
    for more in ([], ["--allow-pickle"]):
        output = tmp_path / "merged"
        assert run(str(folder), str(tmp_path / "good"), "-o", str(output), *more) == 1
        assert not output.exists()
    assert not mark.exists()


def test_25_other_bases_are_refused_with_both_names_until_allowed(tmp_path: Path) -> None:
    names = ("stabilityai/sdxl", "runwayml/sd15")
    adapters = [
        open_adapter(write_peft(tmp_path / str(i), pair(i), base_model_name_or_path=name))
        for i, name in enumerate(names)
    ]
    with pytest.raises(Refusal) as refusal:
        merge(adapters)
    assert all(name in refusal.value.what for name in names)
    assert merge(adapters, allow_base_mismatch=True).rank
    other = open_adapter(write_peft(tmp_path / "wide", pair(2, sides=(16, 24))))
    with pytest.raises(Refusal, match="24"):
        merge([adapters[0], other], allow_base_mismatch=True)


def test_26_the_record_names_what_was_merged(tmp_path: Path) -> None:
    parents = [random_adapter(i, tasks=(name,)) for i, name in enumerate("ab")]
    write_adapter(merge(parents), tmp_path / "merged")
    record = json.loads((tmp_path / "merged" / "pamctl.json").read_text())
    assert [each["fingerprint"] for each in record["parents"]] == [each.fingerprint for each in parents]


def test_27_a_minimal_config_means_rank_8_alpha_8(tmp_path: Path) -> None:
    for i in range(2):
        folder = write_peft(tmp_path / str(i), pair(i, rank=8))
        fields = {"peft_type": "LORA", "target_modules": ["q_proj"]}
        (folder / "adapter_config.json").write_text(json.dumps(fields))
    merged = merge([open_adapter(tmp_path / str(i)) for i in range(2)], "linear")
    close(only(merged), product(pair(0, rank=8)) + product(pair(1, rank=8)))


@pytest.mark.parametrize(
    ("alpha", "scale"), [(None, 1.0), (0.0, 1.0), (3.0, 0.75), (0.5, 0.125), (-4.0, -1.0)]
)
def test_28_every_alpha_of_kohyas_has_a_meaning(alpha: float | None, scale: float, tmp_path: Path) -> None:
    name = f"lora_unet_{flat(MODULE)}"
    tensors = {f"{name}.lora_down.weight": numbers(0, 4, 9), f"{name}.lora_up.weight": numbers(1, 6, 4)}
    if alpha is not None:
        tensors[f"{name}.alpha"] = np.asarray(alpha, np.float32)
    save_file(tensors, tmp_path / "a.safetensors")
    adapter = open_adapter(tmp_path / "a.safetensors")
    expected = (
        scale * tensors[f"{name}.lora_up.weight"].astype(np.float64) @ tensors[f"{name}.lora_down.weight"]
    )
    close(only(merge([adapter, adapter])), expected)
    close(only(merge([adapter, adapter], "cat", [1.0, 0.0])), expected)


def test_29_a_square_module_of_mlx_and_one_of_peft_merge_untransposed(tmp_path: Path) -> None:
    module = "mid_block.attentions.0.proj_in"
    made = [
        random_input(i, modules=(module,), scales=(4.0,), format=format)
        for i, format in enumerate(("mlx", "peft"))
    ]
    expected = sum(x.deltas()[flat(module)] for x in made)
    with opened(made) as adapters:
        merged = merge(adapters, "linear")
        close(only(merged), expected)
        write_adapter(merged, tmp_path / "mlx", "mlx")
    close(only(open_adapter(tmp_path / "mlx")), expected)


@pytest.mark.parametrize("name", NAMES)
def test_30_a_method_is_explained_by_its_formula_and_its_variants(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("--explain", name) == 0
    told = capsys.readouterr().out
    assert "=" in told
    assert "Source" in told
    assert all(variant in told for variant in method_named(name).variants)


@pytest.mark.parametrize("variant", ["paper", "peft", "mergekit"])
def test_30_which_ties_it_is_decides_what_halves_mean(variant: str) -> None:
    adapter = random_adapter()
    merged = merge(
        [adapter, adapter], "ties", [0.5, 0.5], "delta", variant=variant, parameters={"density": 1.0}
    )
    strength = 0.5 if variant == "peft" else 1.0
    close(deltas_of(merged)[flat(Q_PROJ)], strength * deltas_of(adapter)[flat(Q_PROJ)])


@pytest.mark.parametrize("name", NAMES)
def test_32_every_method_has_a_command(name: str, tmp_path: Path) -> None:
    folders = [write_peft(tmp_path / str(i), pair(i), base_model_name_or_path="tiny") for i in range(2)]
    more = ["--set", "count=1"] if name == "running-average" else []
    output = tmp_path / "merged"
    assert run(*map(str, folders), "-o", str(output), "--method", name, *more) == 0
    assert np.isfinite(only(open_adapter(output))).all()
    assert (
        run("--from-lock", str(output / "pamctl.json"), *map(str, folders), "-o", str(tmp_path / "again"))
        == 0
    )
    for file in ("adapter_model.safetensors", "pamctl.json"):
        assert (tmp_path / "again" / file).read_bytes() == (output / file).read_bytes()
