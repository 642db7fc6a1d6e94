"""A step's arithmetic against XLA's own count of the same program, and the peaks of devices."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import pytest

from pamctl.models.config import PaliGemmaConfig, TextConfig, VisionConfig
from pamctl.models.lora import init_lora
from pamctl.models.paligemma import image_features, initial_parameters, suffix_loss
from pamctl.models.text import text_batch
from pamctl.training.throughput import StepWork, peak_flops

BOTH = r"(language_model|vision_tower).*"
# One layer each, because XLA counts the body of a loop once; wide, so that products are nearly all there is.
CONFIG = PaliGemmaConfig(
    VisionConfig(96, 256, 1, 2, image_size=16, patch_size=4), TextConfig(128, 384, 1, 4, 2, 512, 32)
)


@pytest.mark.parametrize(
    ("targets", "given"), [(r"language_model.*", True), (r"language_model.*", False), (BOTH, False)]
)
def test_the_work_of_a_step_is_what_the_compiler_counts(targets, given):
    params, lora = initial_parameters(CONFIG, 0), init_lora(CONFIG, 8, targets, 0)
    texts = text_batch([([2, *range(5, 9)], [7, 8, 1])] * 8, 8)
    images = jnp.ones((8, 1, 16, 16, 3)) if not given else jnp.ones((8, 16, 128))

    def loss(lora, params, images):
        seen = images if given else image_features(CONFIG, params, lora, 1.0, images, remat="none")
        return suffix_loss(CONFIG, params, lora, 1.0, seen, texts, remat="none").mean()

    counted = jax.jit(jax.grad(loss)).lower(lora, params, images).compile().cost_analysis()["flops"]
    work = StepWork.of(CONFIG, lora, features_given=given).flops(examples=8, text_tokens=64, targets=24)
    assert work == pytest.approx(counted, rel=0.1)


@pytest.mark.parametrize(
    ("kinds", "peak"),
    [
        (["NVIDIA H100 80GB HBM3"] * 2, 2 * 989e12),
        (["NVIDIA A100-SXM4-40GB"], 312e12),
        (["TPU v5 lite"], 197e12),
        (["TPU v5p"], 459e12),
        (["cpu"], None),
        (["NVIDIA H200", "cpu"], None),
    ],
)
def test_peaks_are_known_by_the_makers_names(kinds, peak):
    assert peak_flops([SimpleNamespace(device_kind=kind) for kind in kinds]) == peak
