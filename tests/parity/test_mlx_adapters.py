"""Adapters against mlx-lm on a tiny random Llama: what it trains we read, what we write it loads."""

import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pamctl.adapters import Adapter, open_adapter, save_adapter
from pamctl.adapters.factors import EMBEDDING, LoraFactors
from pamctl.refusal import Refusal
from tests.adapter_cases import delta, random_factors

mx = pytest.importorskip("mlx.core")
mlx_utils = pytest.importorskip("mlx.utils")
pytest.importorskip("mlx_lm")

from mlx_lm import lora  # noqa: E402
from mlx_lm.models import llama  # noqa: E402
from mlx_lm.tuner.utils import load_adapters  # noqa: E402

HIDDEN, FEED_FORWARD, VOCABULARY, LAYERS = 16, 24, 40, 3
TOKENS = [1, 5, 9, 2]


class Examples(list):
    """What mlx-lm's training takes for a data set: (tokens, where the answer begins)."""

    def process(self, example: tuple[list[int], int]) -> tuple[list[int], int]:
        return example


def random_base() -> Any:
    mx.random.seed(0)
    return llama.Model(
        llama.ModelArgs(
            model_type="llama",
            hidden_size=HIDDEN,
            num_hidden_layers=LAYERS,
            intermediate_size=FEED_FORWARD,
            num_attention_heads=2,
            num_key_value_heads=1,
            rms_norm_eps=1e-5,
            vocab_size=VOCABULARY,
            tie_word_embeddings=False,
        )
    )


@pytest.fixture(autouse=True)
def _nothing_compiled() -> Iterator[None]:
    """On a CPU mlx compiles each fused step with the system's compiler, for many times what it computes."""
    mx.disable_compile()
    yield
    mx.enable_compile()


def weights(model: Any) -> dict[str, np.ndarray]:
    return {
        name.removesuffix(".weight"): np.array(values)
        for name, values in mlx_utils.tree_flatten(model.parameters())
        if name.endswith(".weight")
    }


def fused(model: Any) -> Any:
    """The model with mlx-lm's own sum of base and delta in each adapted module."""
    layers = [(name, module.fuse()) for name, module in model.named_modules() if hasattr(module, "fuse")]
    model.update_modules(mlx_utils.tree_unflatten(layers))
    return model


def weight_deltas(adapter: Adapter) -> dict[str, np.ndarray]:
    return {
        module: delta(factors).T if factors.layer == EMBEDDING else delta(factors)
        for module, factors in adapter.modules.items()
    }


def assert_moves_by(base: dict[str, np.ndarray], moved: dict[str, np.ndarray], adapter: Adapter) -> None:
    deltas = weight_deltas(adapter)
    assert base.keys() == moved.keys() >= deltas.keys()
    for module in base:
        expected = deltas.get(module, np.zeros_like(base[module]))
        np.testing.assert_allclose(moved[module] - base[module], expected, atol=1e-5, err_msg=module)


def uneven_adapter() -> Adapter:
    """Other modules in each layer, square and not, several ranks, an embedding and the head."""
    table = random_factors(7, VOCABULARY, HIDDEN, 2, 0.5)
    return Adapter(
        {
            "model.layers.0.self_attn.q_proj": random_factors(1, HIDDEN, HIDDEN, 4, 0.25),
            "model.layers.2.mlp.down_proj": random_factors(2, FEED_FORWARD, HIDDEN, 3, 2.0),
            "model.layers.2.self_attn.k_proj": random_factors(3, HIDDEN, 8, 1),
            "model.embed_tokens": LoraFactors(table.a, table.b, table.scale, EMBEDDING),
            "lm_head": random_factors(4, HIDDEN, VOCABULARY, 2, 4.0),
        }
    )


def trained_by_mlx_lm(folder: Path, **settings: Any) -> Any:
    """The model after two steps of mlx-lm's own training, which saved its adapter into the folder."""
    model = random_base()
    data = Examples([(TOKENS, 0)] * 4)
    arguments = {
        **lora.CONFIG_DEFAULTS,
        "adapter_path": str(folder),
        "batch_size": 2,
        "iters": 2,
        "val_batches": 1,
        "learning_rate": 0.1,
        "num_layers": 2,
        "model": "org/tiny-llama",
        **settings,
    }
    lora.train_model(types.SimpleNamespace(**arguments), model, data, data)
    return model


def test_mlx_lm_loads_ours_with_the_same_deltas_and_makes_no_module_more(tmp_path: Path) -> None:
    adapter = uneven_adapter()
    save_adapter(adapter, tmp_path, "mlx")
    model = load_adapters(random_base(), str(tmp_path))
    adapted = {name for name, module in model.named_modules() if hasattr(module, "lora_a")}
    assert adapted == set(adapter.shapes)
    before, after = random_base()(mx.array([TOKENS])), model(mx.array([TOKENS]))
    assert float(mx.abs(after - before).max()) > 0.1
    base = weights(random_base())
    fused(model)
    assert_moves_by(base, weights(model), adapter)
    np.testing.assert_allclose(np.array(model(mx.array([TOKENS]))), np.array(after), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"num_layers": -1, "lora_parameters": {"rank": 3, "dropout": 0.1, "scale": 0.5}},
        {
            "lora_parameters": {
                "rank": 4,
                "dropout": 0.0,
                "scale": 2.0,
                "keys": ["self_attn.q_proj", "model.embed_tokens"],
            }
        },
    ],
    ids=["as it comes", "all layers", "keys and an embedding"],
)
def test_an_adapter_that_mlx_lm_trained_is_read_with_its_deltas(
    settings: dict[str, Any], tmp_path: Path
) -> None:
    model = trained_by_mlx_lm(tmp_path, **settings)
    found = open_adapter(tmp_path)
    assert found.base_model == "org/tiny-llama"
    assert max(np.abs(moved).max() for moved in weight_deltas(found).values()) > 0.01
    assert_moves_by(weights(random_base()), weights(fused(model)), found)


def test_an_adapter_of_mlx_lm_rewritten_by_pamctl_gives_the_same_logits(tmp_path: Path) -> None:
    model = trained_by_mlx_lm(tmp_path / "trained")
    (tmp_path / "ours").mkdir()
    save_adapter(open_adapter(tmp_path / "trained"), tmp_path / "ours", "mlx")
    model.eval()
    ours = load_adapters(random_base(), str(tmp_path / "ours"))
    tokens = mx.array([TOKENS])
    np.testing.assert_allclose(np.array(ours(tokens)), np.array(model(tokens)), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("kind", "named"), [("dora", "DoRA"), ("full", "no LoRA")])
def test_what_mlx_lm_trains_beside_lora_is_refused(kind: str, named: str, tmp_path: Path) -> None:
    trained_by_mlx_lm(tmp_path, fine_tune_type=kind)
    with pytest.raises(Refusal, match=named):
        open_adapter(tmp_path)
