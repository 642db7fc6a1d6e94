"""Modules to trees and back."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from pamctl.models.projection import Projection
from pamctl.models.trees import initial_stack, initial_tree, module


def make(rngs):
    return Projection(3, 2, bias=True, rngs=rngs)


def test_a_tree_is_plain_and_differs_by_key():
    first, second = (initial_tree(make, jax.random.key(seed)) for seed in (0, 1))
    assert {name: type(leaf) for name, leaf in first.items()} == {
        "weight": type(jnp.ones(1)),
        "bias": type(jnp.ones(1)),
    }
    assert not np.array_equal(first["weight"], second["weight"])


def test_a_stack_has_one_independent_module_a_layer():
    stack = initial_stack(make, jax.random.key(0), 4)
    assert stack["weight"].shape == (4, 2, 3)
    assert len({layer.tobytes() for layer in np.asarray(stack["weight"])}) == 4


def test_a_module_holds_the_tree_it_is_given():
    tree = initial_tree(make, jax.random.key(0))
    x = jnp.ones((1, 3))
    np.testing.assert_array_equal(module(make, tree)(x, None, 1.0), x @ tree["weight"].T)


def test_modules_can_be_made_under_grad_and_jit():
    tree = initial_tree(make, jax.random.key(0))
    gradient = jax.jit(jax.grad(lambda tree: module(partial(make), tree)(jnp.ones((1, 3)), None, 1.0).sum()))(
        tree
    )
    np.testing.assert_array_equal(gradient["weight"], np.ones((2, 3)))
