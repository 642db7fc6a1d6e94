"""Adapters against the peft library: what it saves is read to the same delta, what is written loads whole."""

import functools
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pamctl.adapters import Adapter, LoraFactors, open_adapter, save_adapter
from pamctl.adapters.formats.written import WriteOptions
from pamctl.adapters.module_names import SPELLINGS, canonical_ids, tower
from pamctl.merging import merge, plan_merge
from pamctl.refusal import Refusal
from tests.adapter_cases import delta, same_deltas

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
peft = pytest.importorskip("peft")

# peft 0.21 asks transformers 5 for a property that is on its way out.
pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")

OPTIONS = {
    "default": WriteOptions(),
    "compact": WriteOptions(compact=True),
    "f16": WriteOptions(dtype="F16"),
    "bf16, compact": WriteOptions(dtype="BF16", compact=True),
    "transformers 5": WriteOptions(spelling="5"),
    "transformers 5, compact": WriteOptions(spelling="5", compact=True),
}
TOLERANCE = {None: 1e-5, "F16": 2e-3, "BF16": 2e-2}


class Head(torch.nn.Module):  # type: ignore[misc, name-defined]
    """A module with a parameter of its own beside a module."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = torch.nn.Parameter(torch.ones(7))
        self.inner = torch.nn.Linear(7, 3)

    def forward(self, x: Any) -> Any:
        return self.inner(self.gain * x)


class Mixed(torch.nn.Module):  # type: ignore[misc, name-defined]
    """One layer of every kind that a LoRA adapts, square and not."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = torch.nn.Embedding(11, 8)
        self.conv1 = torch.nn.Conv1d(8, 6, 3, padding=1)
        self.conv2 = torch.nn.Conv2d(6, 5, (3, 1))
        self.conv3 = torch.nn.Conv3d(5, 4, (1, 2, 2))
        self.square = torch.nn.Linear(12, 12)
        self.hidden = torch.nn.Linear(12, 7)
        self.norm = torch.nn.LayerNorm(7)
        self.head = Head()

    def forward(self, ids: Any) -> Any:
        x = self.conv1(self.embed(ids).transpose(1, 2))
        x = self.conv2(x.reshape(len(ids), 6, 4, 4))
        x = self.conv3(x[:, :, None]).flatten(1)
        return self.head(self.norm(self.hidden(torch.tanh(self.square(x)))))


def mixed() -> Any:
    torch.manual_seed(0)
    return Mixed()


def of_mixed(model: Any) -> Any:
    torch.manual_seed(1)
    return model(torch.randint(11, (2, 16)))


@functools.cache
def _paligemma_config() -> Any:
    text = {
        "model_type": "gemma",
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 16,
        "vocab_size": 100,
    }
    vision = {
        "model_type": "siglip_vision_model",
        "hidden_size": 24,
        "intermediate_size": 40,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": 28,
        "patch_size": 14,
    }
    return transformers.PaliGemmaConfig(
        text_config=text, vision_config=vision, projection_dim=32, image_token_index=99, vocab_size=100
    )


def paligemma() -> Any:
    torch.manual_seed(0)
    return transformers.PaliGemmaForConditionalGeneration(_paligemma_config()).eval()


def of_paligemma(model: Any) -> Any:
    torch.manual_seed(1)
    ids = torch.tensor([[99, 99, 99, 99, 2, 5, 6, 7]])
    with torch.no_grad():
        return model(
            input_ids=ids,
            pixel_values=torch.randn(1, 3, 28, 28),
            attention_mask=torch.ones_like(ids),
            token_type_ids=torch.zeros_like(ids),
        ).logits


def gpt2() -> Any:
    torch.manual_seed(0)
    config = transformers.GPT2Config(n_embd=16, n_layer=2, n_head=2, vocab_size=50, n_positions=16)
    return transformers.GPT2LMHeadModel(config).eval()


def llama(**config: Any) -> Any:
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
    return transformers.LlamaForCausalLM(
        transformers.LlamaConfig(vocab_size=40, num_key_value_heads=1, **sizes, **config)
    ).eval()


def of_text(model: Any) -> Any:
    with torch.no_grad():
        return model(input_ids=torch.tensor([[3, 1, 4, 1, 5, 9, 2, 6]])).logits


MIXED = ["embed", "conv1", "conv2", "conv3", "square", "hidden"]
BIASED = ["conv1", "conv2", "conv3", "square", "hidden"]
TOWERS = (
    r".*(language_model.*(q_proj|gate_proj|down_proj)|vision_tower.*(q_proj|out_proj|fc1)|projector\.linear)"
)
PATCHES = r".*(patch_embedding|embed_tokens|position_embedding|k_proj)"
Case = tuple[Callable[[], Any], Callable[[Any], Any], dict[str, Any]]
SAVED_BY_PEFT: dict[str, Case] = {
    "every kind": (mixed, of_mixed, {"target_modules": MIXED, "r": 4, "lora_alpha": 4}),
    "every kind, alpha != r": (mixed, of_mixed, {"target_modules": MIXED, "r": 3, "lora_alpha": 8}),
    "every kind, rsLoRA": (
        mixed,
        of_mixed,
        {"target_modules": MIXED, "r": 4, "lora_alpha": 8, "use_rslora": True},
    ),
    "every kind, patterns": (
        mixed,
        of_mixed,
        {
            "target_modules": MIXED,
            "r": 4,
            "lora_alpha": 8,
            "rank_pattern": {"conv[12]": 2, "^hidden": 6, "embed": 3},
            "alpha_pattern": {"conv[23]": 1, "e.*": 5, "square": 3},
        },
    ),
    "biases of lora_B": (
        mixed,
        of_mixed,
        {"target_modules": BIASED, "r": 2, "lora_alpha": 8, "lora_bias": True},
    ),
    "biases of lora_B, patterns, rsLoRA": (
        mixed,
        of_mixed,
        {
            "target_modules": BIASED,
            "r": 2,
            "lora_bias": True,
            "use_rslora": True,
            "alpha_pattern": {"conv.": 3},
            "rank_pattern": {"square": 5},
        },
    ),
    "all biases": (mixed, of_mixed, {"target_modules": BIASED, "bias": "all"}),
    "adapted modules' biases": (mixed, of_mixed, {"target_modules": BIASED, "bias": "lora_only"}),
    "modules saved whole": (
        mixed,
        of_mixed,
        {"target_modules": MIXED, "modules_to_save": ["norm", "head"], "r": 2},
    ),
    "PaliGemma": (paligemma, of_paligemma, {"target_modules": TOWERS, "r": 4, "lora_alpha": 4}),
    "PaliGemma, rsLoRA": (
        paligemma,
        of_paligemma,
        {"target_modules": TOWERS, "r": 4, "lora_alpha": 8, "use_rslora": True},
    ),
    "PaliGemma, patterns": (
        paligemma,
        of_paligemma,
        {
            "target_modules": TOWERS,
            "r": 3,
            "lora_alpha": 5,
            "rank_pattern": {"q_proj": 2, r"layers\.1\.mlp\.fc1": 6, "gate_proj": 5},
            "alpha_pattern": {".*q_proj": 1, r"self_attn\..*": 3, "linear": 2},
        },
    ),
    "PaliGemma, patches and embeddings": (
        paligemma,
        of_paligemma,
        {"target_modules": PATCHES, "r": 4, "lora_alpha": 8, "rank_pattern": {"patch_embedding": 2}},
    ),
    "PaliGemma, the projector saved whole": (
        paligemma,
        of_paligemma,
        {"target_modules": r".*q_proj", "modules_to_save": ["multi_modal_projector"]},
    ),
    "GPT-2": (
        gpt2,
        of_text,
        {"target_modules": ["c_attn", "c_proj"], "lora_alpha": 16, "fan_in_fan_out": True},
    ),
    "GPT-2, biases": (
        gpt2,
        of_text,
        {"target_modules": ["c_attn", "wte"], "fan_in_fan_out": True, "bias": "all", "r": 2},
    ),
    "Llama": (
        llama,
        of_text,
        {"target_modules": "all-linear", "r": 4, "lora_alpha": 8, "rank_pattern": {"v_proj": 1, "0.mlp": 2}},
    ),
}


def with_random_adapter(base: Any, seed: int = 1, **config: Any) -> Any:
    """A peft model all of whose trainable numbers are random."""
    model = peft.get_peft_model(base, peft.LoraConfig(**config)).eval()
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.normal_()
    return model


def peft_deltas(model: Any) -> dict[str, Any]:
    """The deltas that peft computes, (out, in[, *kernel]), by canonical id."""
    found = {}
    for name, module in model.named_modules():
        if hasattr(module, "get_delta_weight"):
            dense = module.get_delta_weight("default").detach().float().numpy()
            turned = getattr(module, "fan_in_fan_out", False) or isinstance(
                module, peft.tuners.lora.Embedding
            )
            found[name.removeprefix("base_model.model.")] = dense.T if turned else dense
    ids = canonical_ids(found)
    return {ids[name]: dense for name, dense in found.items()}


def peft_ranks(model: Any) -> dict[str, int]:
    layers = {
        name.removeprefix("base_model.model."): module.r["default"]
        for name, module in model.named_modules()
        if hasattr(module, "get_delta_weight")
    }
    ids = canonical_ids(layers)
    return {ids[name]: rank for name, rank in layers.items()}


def our_deltas(adapter: Adapter) -> dict[str, Any]:
    return {module: _dense(factors) for module, factors in adapter.modules.items()}


def _dense(factors: LoraFactors) -> Any:
    kernel = factors.layer.kernel
    return delta(factors).reshape(len(factors.b), -1, *kernel) if kernel else delta(factors)


def assert_same(ours: dict[str, Any], theirs: dict[str, Any], tolerance: float = 1e-5) -> None:
    assert ours.keys() == theirs.keys()
    for module, expected in theirs.items():
        largest = np.abs(expected).max()
        np.testing.assert_allclose(ours[module], expected, atol=tolerance * largest, err_msg=module)


def loaded_whole(base: Any, folder: Path) -> Any:
    """Load in peft, where a missing or unexpected key, of which it only warns, fails the test."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        warnings.filterwarnings("ignore", message=".*tie_word_embeddings")
        model = peft.PeftModel.from_pretrained(base, folder).eval()
    report = peft.set_peft_model_state_dict(model, peft.utils.load_peft_weights(str(folder)))
    assert not report.unexpected_keys
    assert not [key for key in report.missing_keys if "lora_" in key or "modules_to_save" in key]
    return model


def written(adapter: Adapter, folder: Path, options: WriteOptions | None = None) -> Path:
    folder.mkdir()
    save_adapter(adapter, folder, "peft", options)
    return folder


@pytest.fixture(scope="module", params=SAVED_BY_PEFT)
def saved_by_peft(request: Any, tmp_path_factory: Any) -> tuple[Case, Path, dict[str, Any], Any]:
    """A case, the folder that peft saved, its deltas, and what the model gives with it."""
    base, forward, config = SAVED_BY_PEFT[request.param]
    folder = tmp_path_factory.mktemp("peft")
    with warnings.catch_warnings():
        # that embeddings are saved too, and that biases of lora_B cannot be merged
        warnings.simplefilter("ignore")
        model = with_random_adapter(base(), **config)
        model.save_pretrained(folder)
    return SAVED_BY_PEFT[request.param], folder, peft_deltas(model), forward(model).detach()


def test_what_peft_saves_is_read_with_the_delta_peft_computes(saved_by_peft: Any) -> None:
    _, folder, theirs, _ = saved_by_peft
    assert theirs
    assert_same(our_deltas(open_adapter(folder)), theirs)


@pytest.mark.parametrize("how", OPTIONS)
def test_what_we_write_peft_loads_whole_with_the_same_forward(
    how: str, saved_by_peft: Any, tmp_path: Path
) -> None:
    (base, forward, _), folder, theirs, expected = saved_by_peft
    options = OPTIONS[how]
    adapter = open_adapter(folder)
    model = loaded_whole(base(), written(adapter, tmp_path / "ours", options))
    if options.compact:
        assert peft_ranks(model) == {module: shape.rank for module, shape in adapter.shapes.items()}
    tolerance = TOLERANCE[options.dtype]
    assert_same(peft_deltas(model), theirs, tolerance)
    off = (forward(model).detach() - expected).abs().max() / expected.abs().max()
    assert off < 30 * tolerance  # the random deltas are large, and layers multiply


@pytest.fixture(scope="module")
def saved_by_transformers(tmp_path_factory: Any) -> tuple[Path, dict[str, Any], Any]:
    """A folder that transformers itself saved, the deltas, and what the model gives with it."""
    model = paligemma()
    model.add_adapter(peft.LoraConfig(**SAVED_BY_PEFT["PaliGemma, patterns"][2]))
    torch.manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.normal_()
    folder = tmp_path_factory.mktemp("transformers")
    model.save_pretrained(folder)
    return folder, peft_deltas(model), of_paligemma(model)


@pytest.mark.parametrize("how", OPTIONS)
def test_transformers_by_itself_saves_what_we_read_and_loads_what_we_write(
    how: str, saved_by_transformers: Any, tmp_path: Path
) -> None:
    folder, theirs, expected = saved_by_transformers
    adapter, model = open_adapter(folder), paligemma()
    assert_same(our_deltas(adapter), theirs)
    report = model.load_adapter(str(written(adapter, tmp_path / "ours", OPTIONS[how])))
    assert [report.missing_keys, report.unexpected_keys, report.mismatched_keys] == [set()] * 3
    tolerance = TOLERANCE[OPTIONS[how].dtype]
    assert_same(peft_deltas(model), theirs, tolerance)
    assert (of_paligemma(model) - expected).abs().max() / expected.abs().max() < 30 * tolerance


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("case", ["every kind, patterns", "biases of lora_B", "PaliGemma, patterns", "GPT-2"])
def test_half_precision_is_read_as_it_is(dtype: str, case: str, tmp_path: Path) -> None:
    base, _, config = SAVED_BY_PEFT[case]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = with_random_adapter(base(), **config).to(getattr(torch, dtype))
        model.save_pretrained(tmp_path)
    adapter = open_adapter(tmp_path)
    at_rest = {"bfloat16": "BF16", "float16": "F16"}[dtype]
    assert {shape.dtype for shape in adapter.shapes.values()} == {at_rest}
    assert_same(our_deltas(adapter), peft_deltas(model.float()))


def test_a_resized_embedding_is_carried_along(tmp_path: Path) -> None:
    def resized() -> Any:
        model = llama(tie_word_embeddings=False)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model.resize_token_embeddings(44, mean_resizing=False)
        return model

    model = with_random_adapter(resized(), target_modules=["q_proj"])
    with torch.no_grad():
        model.get_input_embeddings().weight.normal_()
        model.get_output_embeddings().weight.normal_()
    model.save_pretrained(tmp_path / "theirs", save_embedding_layers=True)
    adapter = open_adapter(tmp_path / "theirs")
    assert [extra.role for extra in adapter.extras.values()] == ["embedding", "embedding"]
    ours = loaded_whole(resized(), written(adapter, tmp_path / "ours"))
    torch.testing.assert_close(of_text(ours), of_text(model))


def test_an_adapted_embedding_comes_with_its_base_as_peft_saves_it(tmp_path: Path) -> None:
    model = with_random_adapter(llama(tie_word_embeddings=False), target_modules=["embed_tokens", "q_proj"])
    with pytest.warns(UserWarning, match="save_embedding_layers"):
        model.save_pretrained(tmp_path / "theirs")
    adapter = open_adapter(tmp_path / "theirs")
    assert_same(our_deltas(adapter), peft_deltas(model))
    assert len(adapter.extras) == 1
    ours = loaded_whole(llama(tie_word_embeddings=False), written(adapter, tmp_path / "ours"))
    torch.testing.assert_close(of_text(ours), of_text(model))


REFUSED: dict[str, tuple[Callable[[], Any], Any, str]] = {
    "DoRA": (mixed, peft.LoraConfig(target_modules=["hidden"], use_dora=True), "use_dora"),
    "LoHa": (mixed, peft.LoHaConfig(target_modules=["hidden"]), "LOHA"),
    "LoKr": (mixed, peft.LoKrConfig(target_modules=["hidden"]), "LOKR"),
    "AdaLoRA": (mixed, peft.AdaLoraConfig(target_modules=["hidden"], total_step=9), "ADALORA"),
    "KaSA": (mixed, peft.LoraConfig(target_modules=["square"], kasa_config=peft.KasaConfig()), "kasa_config"),
    "PiSSA": (mixed, peft.LoraConfig(target_modules=["hidden"], init_lora_weights="pissa", r=4), "pissa"),
    "OLoRA": (mixed, peft.LoraConfig(target_modules=["hidden"], init_lora_weights="olora", r=4), "olora"),
    "trainable tokens": (
        llama,
        peft.LoraConfig(target_modules=["q_proj"], trainable_token_indices=[1, 2]),
        "trainable_token_indices",
    ),
    "whole parameters": (
        llama,
        peft.LoraConfig(target_parameters=["q_proj.weight"], target_modules=[]),
        "target_parameters",
    ),
    "a grouped convolution": (
        lambda: torch.nn.Sequential(torch.nn.Conv2d(8, 8, 3, groups=2)),
        peft.LoraConfig(target_modules=["0"], r=4),
        "2 groups",
    ),
}


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_no_plain_lora_is_refused_by_name(kind: str, tmp_path: Path) -> None:
    base, config, told = REFUSED[kind]
    peft.get_peft_model(base(), config).save_pretrained(tmp_path)
    with pytest.raises(Refusal) as refusal:
        open_adapter(tmp_path)
    assert told in refusal.value.what
    assert refusal.value.way_on


@pytest.fixture(scope="module")
def two_of_paligemma(tmp_path_factory: Any) -> tuple[Path, Path, dict[str, Any], dict[str, Any]]:
    """Two adapters that peft saved, of different ranks and scales, and their deltas."""
    folders = tmp_path_factory.mktemp("one"), tmp_path_factory.mktemp("two")
    configs = [{"r": 4, "lora_alpha": 8}, {"r": 3, "lora_alpha": 5, "use_rslora": True}]
    deltas = []
    for seed, (folder, config) in enumerate(zip(folders, configs, strict=True)):
        model = with_random_adapter(paligemma(), seed, target_modules=TOWERS, **config)
        model.save_pretrained(folder)
        deltas.append(peft_deltas(model))
    return *folders, *deltas


@pytest.mark.parametrize("compact", [False, True])
def test_adapters_of_peft_merge_to_the_mean_of_the_deltas_it_computes(
    compact: bool, two_of_paligemma: Any, tmp_path: Path
) -> None:
    one, two, first, second = two_of_paligemma
    merged = merge([open_adapter(one), open_adapter(two)])
    folder = written(merged, tmp_path / "merged", WriteOptions(compact=compact))
    mean = {module: (first[module] + second[module]) / 2 for module in first}
    assert {tower(module) for module in mean} == {"language_model", "vision_tower", "multi_modal_projector"}
    assert_same(peft_deltas(loaded_whole(paligemma(), folder)), mean)


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize("other", SPELLINGS)
def test_adapters_of_every_generation_merge_whole(
    spelling: str, other: str, two_of_paligemma: Any, tmp_path: Path
) -> None:
    """peft saved them as transformers 5 spells; they are rewritten as each generation does."""
    one, two, first, second = two_of_paligemma
    opened = [
        open_adapter(written(open_adapter(folder), tmp_path / name, WriteOptions(spelling=spelled)))
        for name, folder, spelled in (("one", one, spelling), ("two", two, other))
    ]
    same_deltas(opened[0], open_adapter(one))
    plan = plan_merge(opened)
    assert set(plan.shapes) == set(first)
    assert not any("not in every adapter" in note for note in plan.notes)
    assert_same(our_deltas(merge(opened)), {module: (first[module] + second[module]) / 2 for module in first})


def test_adapters_that_share_nothing_are_refused(two_of_paligemma: Any) -> None:
    adapter = open_adapter(two_of_paligemma[0])
    text, sight = (
        Adapter(
            {module: adapter.modules[module] for module in adapter.shapes if tower(module) == part}, name=part
        )
        for part in ("language_model", "vision_tower")
    )
    with pytest.raises(Refusal, match="language_model and vision_tower have no module in common"):
        merge([text, sight])


@pytest.mark.parametrize("how", OPTIONS)
def test_a_text_only_adapter_adapts_no_other_tower_in_peft(
    how: str, two_of_paligemma: Any, tmp_path: Path
) -> None:
    adapter = open_adapter(two_of_paligemma[0])
    text = Adapter({m: adapter.modules[m] for m in adapter.shapes if m.startswith("language_model")})
    loaded = peft_deltas(loaded_whole(paligemma(), written(text, tmp_path / "b", OPTIONS[how])))
    assert loaded.keys() == text.shapes.keys()
    assert any("q_proj" in module for module in loaded)
