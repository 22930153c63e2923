"""What is measured of a step equals a direct computation, and no more than that is measured."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxhpo import optimizers
from jaxhpo.optimizers import OptimizerConfig
from jaxhpo.optimizers.config import NUMBERS
from jaxhpo.optimizers.masks import named, role_of
from tests.optimizers.conftest import RATE, chain_of, draw, numbers_of


def measured(config, params, grads):
    chain = chain_of(config)
    updates, state = chain.update(grads, chain.init(params), params, step=0)
    rate = jnp.float32(RATE)
    found = optimizers.diagnose(numbers_of(config), grads, updates, params, state, rate)
    return {name: float(value) for name, value in found.items()}, updates, state


def test_norms_are_those_of_all_tensors_of_a_role(params, gradients):
    found, updates, _ = measured(OptimizerConfig(), params, gradients[0])
    trees = {"grad_norm": gradients[0], "update_norm": updates, "param_norm": params}
    for kind, tree in trees.items():
        for role in optimizers.ROLES:
            mine = [np.ravel(x) for name, x in named(tree).items() if role_of(name) == role]
            expected = np.linalg.norm(np.concatenate(mine))
            assert found[f"{kind}/{role}"] == pytest.approx(expected, rel=1e-5)


def test_both_effective_learning_rates_are_what_their_papers_say(params, gradients):
    config = OptimizerConfig(eps=1e-3)
    found, _, _ = measured(config, params, gradients[0])
    weights = np.concatenate([np.ravel(x) for x in jax.tree.leaves(params)])
    assert found["lr_per_norm"] == pytest.approx(RATE / np.linalg.norm(weights), rel=1e-5)
    squares = [(1 - config.beta2) * np.ravel(g) ** 2 for g in jax.tree.leaves(gradients[0])]
    second = np.concatenate(squares) * np.minimum(1, (config.clip_norm / norm(gradients[0]))) ** 2
    expected = np.mean(RATE / (np.sqrt(second) + 1e-3))  # one step, not bias-corrected
    assert found["lr_adam"] == pytest.approx(expected, rel=1e-4)


def norm(tree):
    return np.linalg.norm(np.concatenate([np.ravel(x) for x in jax.tree.leaves(tree)]))


def test_only_rules_with_adams_second_moment_have_its_rate(params, gradients):
    with_rate = {
        kind
        for kind in NUMBERS
        if "lr_adam" in measured(OptimizerConfig(kind=kind), params, gradients[0])[0]
    }
    assert with_rate == {"adamw", "adam", "muon"}


def test_a_step_is_measured_when_it_is_due_and_its_clipping_always():
    from jaxhpo.nn.config import ModelConfig
    from jaxhpo.population.member import Member
    from jaxhpo.population.task import LanguageModel

    model = ModelConfig(num_layers=1, d_model=8, num_heads=2, vocab_size=5, context=4)
    task = LanguageModel(model, OptimizerConfig(clip_tensor=0.5), diagnose_every=3)
    params = task.init(jax.random.key(0), None)
    hyperparams = Stub(numbers_of(task.update_rule))
    state = task.optimizer(hyperparams).init(params)
    quiet = replace(task, diagnose_every=0)
    for step in range(5):
        before = Member(params, state, jnp.int32(step))
        found = task.measure(hyperparams, before, params, params, state)
        finite = {name for name, value in found.items() if np.isfinite(value)}
        always = {name for name in found if name.startswith("clipped/")}
        assert finite == (set(found) if step in (0, 3) else always)
        assert set(quiet.measure(hyperparams, before, params, params, state)) == always
    assert "clipped/global" in always and "clipped/query" in always


class Stub:
    """As much of the hyperparameters as an optimizer needs."""

    def __init__(self, optimizer):
        self.optimizer = optimizer

    def schedule(self, step):
        return jnp.float32(RATE)


def test_bfloat16_parameters_keep_float32_state_and_measurements():
    params = jax.tree.map(lambda x: x.astype(jnp.bfloat16), draw(0))
    grads = jax.tree.map(lambda x: x.astype(jnp.bfloat16), draw(1, 0.1))
    found, updates, state = measured(OptimizerConfig(clip_tensor=0.5), params, grads)
    assert {str(leaf.dtype) for leaf in jax.tree.leaves((updates, state))} == {"float32", "int32"}
    exact = jax.tree.map(lambda x: x.astype(jnp.float32), (params, grads))
    expected, wide, _ = measured(OptimizerConfig(clip_tensor=0.5), *exact)
    jax.tree.map(np.testing.assert_array_equal, updates, wide)
    assert found == pytest.approx(expected, rel=1e-6)
