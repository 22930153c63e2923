"""AdaLoRA's allocation of ranks as an optax transformation around the update rule."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxhpo.adapters.arrays import each_target, put
from jaxhpo.adapters.config import AdapterConfig
from jaxhpo.adapters.hyperparams import AdapterHyperparams

Array = jax.Array
Triplets = dict[str, dict[str, Array]]
"""Arrays of the SVD form by projection: lora_a [L, I, R], lora_e [L, R], lora_b [L, R, O]."""


class AllocationState(NamedTuple):
    """The inner state, smoothed sensitivity and uncertainty, and the last mask bool[L, R]."""

    inner: Any
    sensitivity: Triplets
    uncertainty: Triplets
    kept: dict[str, Array]


def allocate(
    inner: optax.GradientTransformation,
    config: AdapterConfig,
    numbers: AdapterHyperparams,
    clip: optax.GradientTransformation | None = None,
) -> optax.GradientTransformationExtraArgs:
    """`inner`, after whose step the triplets that matter least lose their singular value.

    Step by step what PEFT's RankAllocator does when it is called behind the optimizer's step with
    the number of steps made: scores come from the new weights and this step's gradient, clipped by
    `clip` as torch would have it. Up to total - tfinal the scores are smoothed; there the mask is
    made for the last time, and it is applied in every step from then on. Where the budget is still
    whole nothing is masked (PEFT raises). Ties at the threshold all go. `update` takes a `step`.
    """
    inner = optax.with_extra_args_support(inner)
    clip = optax.with_extra_args_support(optax.identity() if clip is None else clip)

    def init(params: Any) -> AllocationState:
        zeros = lambda: jax.tree.map(jnp.zeros_like, _triplets(params))
        kept = {path: jnp.ones(own["lora_e"].shape, bool) for path, own in zeros().items()}
        return AllocationState(inner.init(params), zeros(), zeros(), kept)

    def update(grads: Any, state: AllocationState, params: Any = None, *, step: Array, **extra):
        updates, moments = inner.update(grads, state.inner, params, step=step, **extra)
        clipped, _ = clip.update(grads, clip.init(grads), params)
        old, moved = _triplets(params), _triplets(updates)
        new = jax.tree.map(jnp.add, old, moved)
        made = step + 1
        last = numbers.of("total_steps") - numbers.of("tfinal")
        sensitivity, uncertainty = smoothed(numbers, state, new, _triplets(clipped))
        going = made < last
        choose = lambda a, b: jax.tree.map(lambda x, y: jnp.where(going, x, y), a, b)
        sensitivity = choose(sensitivity, state.sensitivity)
        uncertainty = choose(uncertainty, state.uncertainty)
        budget, due = budget_at(numbers, old, made)
        due = (due & going) | (made == last)
        found = masks(config, numbers, scores(sensitivity, uncertainty), budget)
        kept = jax.tree.map(lambda a, b: jnp.where(due, a, b), found, state.kept)
        acts = due | (made > last)
        changed: dict[str, Any] = {}
        for path, own in moved.items():
            drop = acts & ~kept[path]
            values = jnp.where(drop, -old[path]["lora_e"], own["lora_e"])
            put(changed, path, {**own, "lora_e": values})
        return {**updates, "blocks": changed}, AllocationState(
            moments, sensitivity, uncertainty, kept
        )

    return optax.GradientTransformationExtraArgs(init, update)


def smoothed(
    numbers: AdapterHyperparams, state: AllocationState, weights: Triplets, grads: Triplets
) -> tuple[Triplets, Triplets]:
    """Sensitivity |w g| and its uncertainty, each an exponential average without correction."""
    rest1, rest2 = numbers.of("one_minus_beta1"), numbers.of("one_minus_beta2")
    now = jax.tree.map(lambda w, g: jnp.abs(w * g), weights, grads)
    blend = lambda rest: lambda old, new: (1.0 - rest) * old + rest * new
    sensitivity = jax.tree.map(blend(rest1), state.sensitivity, now)
    distance = jax.tree.map(lambda x, mean: jnp.abs(x - mean), now, sensitivity)
    return sensitivity, jax.tree.map(blend(rest2), state.uncertainty, distance)


def scores(sensitivity: Triplets, uncertainty: Triplets) -> dict[str, Array]:
    """Importance f32[L, R] of each triplet: its value's own, and the means over its vectors."""
    product = jax.tree.map(jnp.multiply, sensitivity, uncertainty)
    return {
        path: own["lora_e"] + own["lora_a"].mean(1) + own["lora_b"].mean(2)
        for path, own in product.items()
    }


def budget_at(numbers: AdapterHyperparams, triplets: Triplets, made: Array) -> tuple[Array, Array]:
    """Triplets that may stay after `made` steps, i32[], and whether it is time to mask.

    From all of the initial ranks to all of the target ranks, by a cube, in float32.
    """
    whole, least = (
        n * matrices(numbers, triplets) for n in (numbers.rank, numbers.of("target_rank"))
    )
    tinit, tfinal = numbers.of("tinit"), numbers.of("tfinal")
    total = numbers.of("total_steps")
    left = 1.0 - (made - tinit) / (total - tfinal - tinit)
    falling = jnp.int32((whole - least) * left**3 + least)
    budget = jnp.where(made > total - tfinal, least, falling)
    return (
        jnp.where(made <= tinit, whole, budget),
        (made > tinit) & ((made % numbers.of("delta_t") == 0) | (made > total - tfinal)),
    )


def matrices(numbers: AdapterHyperparams, triplets: Triplets) -> Array:
    """How many weights have an adapter that is switched on, i32[]."""
    layers = lambda path: triplets[path]["lora_e"].shape[0]
    on = lambda path: jnp.int32(numbers.on.get(path, 1))
    return sum((layers(path) * on(path) for path in triplets), jnp.int32(0))


def masks(
    config: AdapterConfig, numbers: AdapterHyperparams, scores: dict[str, Array], budget: Array
) -> dict[str, Array]:
    """Which triplets stay, bool[L, R]: those above the k-th smallest score, k being too many."""
    within = numbers.mask(config.width)
    active = {
        path: jnp.broadcast_to(within & (numbers.on.get(path, 1) > 0), score.shape)
        for path, score in scores.items()
    }
    everyone = [jnp.where(active[path], scores[path], jnp.inf).ravel() for path in scores]
    ordered = jnp.sort(jnp.concatenate(everyone))
    present = sum(each.sum() for each in active.values())
    excess = present - budget
    threshold = ordered[jnp.maximum(excess - 1, 0)]
    threshold = jnp.where(excess > 0, threshold, -jnp.inf)
    return {path: active[path] & ~(score <= threshold) for path, score in scores.items()}


def ranks(numbers: AdapterHyperparams, state: AllocationState) -> dict[str, Array]:
    """Rank f32[] of each matrix, by `rank/TARGET/LAYER`."""
    found = {}
    for path, kept in state.kept.items():
        own = (kept & numbers.mask(kept.shape[-1])).sum(-1).astype(jnp.float32)
        own = own * numbers.on.get(path, jnp.float32(1))
        found |= {f"rank/{path}/{layer}": own[layer] for layer in range(own.shape[0])}
    return found


def _triplets(tree: Any) -> Triplets:
    return dict(each_target(tree))
