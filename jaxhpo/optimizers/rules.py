"""Update rules: what turns a gradient into a step before decay and learning rate."""

import jax
import optax
from optax import contrib

from jaxhpo.optimizers.adam import scale_by_adam
from jaxhpo.optimizers.config import OptimizerConfig
from jaxhpo.optimizers.hyperparams import OptimizerHyperparams
from jaxhpo.optimizers.layers import by_layer
from jaxhpo.optimizers.masks import is_matrix, is_stacked, path_name


def _adam(config: OptimizerConfig, numbers: OptimizerHyperparams) -> optax.GradientTransformation:
    rest = map(numbers.of, ("one_minus_beta1", "one_minus_beta2", "eps"))
    return scale_by_adam(*rest, mu_dtype=config.moment_dtype)


def _sgd(config: OptimizerConfig, numbers: OptimizerHyperparams) -> optax.GradientTransformation:
    """Without momentum it keeps nothing. Source: Sutskever et al. 2013."""
    if numbers.one_minus_momentum is None:
        return optax.identity()
    return optax.trace(
        1.0 - numbers.one_minus_momentum,
        nesterov=config.looks_ahead,
        accumulator_dtype=config.moment_dtype,
    )


def _lion(config: OptimizerConfig, numbers: OptimizerHyperparams) -> optax.GradientTransformation:
    """The sign of an interpolated momentum. Source: Chen et al. 2023 (arXiv 2302.06675)."""
    betas = 1.0 - numbers.of("one_minus_beta1"), 1.0 - numbers.of("one_minus_beta2")
    return optax.scale_by_lion(*betas, mu_dtype=config.moment_dtype)


def _muon(config: OptimizerConfig, numbers: OptimizerHyperparams) -> optax.GradientTransformation:
    """Orthogonalised momentum for the projections of each block, Adam for all else.

    Sources: Jordan et al. 2024 (github.com/KellerJordan/Muon); the scale by sqrt(max(inputs,
    outputs)) from Liu et al. 2025 (arXiv 2502.16982).
    """
    matrices = optax.chain(
        contrib.scale_by_muon(
            beta=1.0 - numbers.of("one_minus_momentum"),
            mu_dtype=config.moment_dtype,
            nesterov=config.looks_ahead,
            weight_dimension_numbers=_matrix_axes,
        ),
        optax.stateless(lambda updates, params: _scaled_by_shape(updates, numbers.muon_rms)),
    )
    others = optax.chain(_adam(config, numbers), optax.scale(numbers.of("muon_adam_lr")))
    labels = lambda params: jax.tree_util.tree_map_with_path(
        lambda path, _: "muon" if is_matrix(path_name(path)) else "adam", params
    )
    return optax.partition({"muon": matrices, "adam": others}, labels)


def _matrix_axes(tree: optax.Params) -> optax.Params:
    """Inputs and outputs of each matrix: of stacked ones the layers come first."""

    def axes(path, _):
        first = int(is_stacked(path_name(path)))
        return contrib.MuonDimensionNumbers(first, first + 1)

    return jax.tree_util.tree_map_with_path(axes, tree)


def _scaled_by_shape(updates: optax.Updates, rms: jax.Array | None) -> optax.Updates:
    def scale(update: jax.Array) -> jax.Array:
        inputs, outputs = update.shape[-2:]
        if rms is None:
            return update * max(1.0, outputs / inputs) ** 0.5
        return update * (rms * max(inputs, outputs) ** 0.5)

    return jax.tree.map(scale, updates)


def _adafactor(
    config: OptimizerConfig, numbers: OptimizerHyperparams
) -> optax.GradientTransformation:
    """Second moments kept as rows and columns. Source: Shazeer and Stern 2018 (1804.04235)."""
    steps = [
        optax.scale_by_factored_rms(
            decay_rate=numbers.of("adafactor_exponent"),
            min_dim_size_to_factor=config.adafactor_min_dim,
            epsilon=numbers.of("adafactor_eps"),
        )
    ]
    if numbers.adafactor_clip is not None:
        steps.append(optax.clip_by_block_rms(numbers.adafactor_clip))
    if config.adafactor_relative:
        steps.append(optax.scale_by_param_block_rms())
    return by_layer(optax.chain(*steps))


RULES = {
    "adamw": _adam,
    "adam": _adam,
    "sgd": _sgd,
    "lion": _lion,
    "muon": _muon,
    "adafactor": _adafactor,
}
"""Update rules by name: (config, traced numbers) -> transformation."""
