"""One member: its state, one step, and a stretch of steps. Nothing here mentions a population."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxhpo.nn.constraints import constrain
from jaxhpo.population.task import Task

INIT = 0xFFFFFFFF
"""Stream of a trial's key that draws its first parameters; steps count from zero."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Member:
    """All that training changes; [P] leads every leaf in a population. No key: it is derived."""

    params: Any
    moments: Any
    step: jax.Array


def stream(run_seed: jax.Array, seed: jax.Array, step: jax.Array | int) -> jax.Array:
    """The key of one step of one trial: a function of the three numbers, nothing is advanced."""
    return jax.random.fold_in(jax.random.fold_in(jax.random.key(run_seed), seed), step)


def newborn(task: Task, hyperparams: Any, run_seed: jax.Array, seed: jax.Array) -> Member:
    params = constrain("params", task.init(stream(run_seed, seed, INIT), hyperparams))
    fresh = Member(params, task.optimizer(hyperparams).init(params), jnp.int32(0))
    return constrain("member", fresh)


def gradient(
    task: Task,
    params: Any,
    batch: Any,
    hyperparams: Any,
    key: Any,
    accumulate: int,
    measured: bool = True,
):
    """Loss f32[] and numbers of its pass, and its gradient, on one batch in `accumulate`
    micro-batches of equal size: means over them."""
    observed = getattr(task, "observed", None) if measured else None
    loss = observed or (lambda *args: (task.loss(*args), {}))
    slope = jax.value_and_grad(loss, has_aux=True)
    if accumulate == 1:
        return slope(params, batch, hyperparams, key)
    split = jax.tree.map(lambda x: x.reshape(accumulate, -1, *x.shape[1:]), batch)
    split = constrain("micro", split)

    def add(total, part):
        micro, index = part
        found = slope(params, micro, hyperparams, jax.random.fold_in(key, index))
        return jax.tree.map(jnp.add, total, found), None

    first = jax.tree.map(lambda x: x[0], split)
    numbers = jax.eval_shape(slope, params, first, hyperparams, key)
    zero = jax.tree.map(lambda x: jnp.zeros(x.shape, jnp.float32), numbers)
    total, _ = jax.lax.scan(add, zero, (split, jnp.arange(accumulate)))
    return jax.tree.map(lambda x: x / accumulate, total)


def train_step(
    task: Task,
    member: Member,
    hyperparams: Any,
    batch: Any,
    key: jax.Array,
    accumulate: int,
    measured: bool = True,
) -> tuple[Member, dict[str, jax.Array]]:
    """One update on `batch`; the metrics are f32[] each and belong to the step just made."""
    (loss, observed), grads = gradient(
        task, member.params, batch, hyperparams, key, accumulate, measured
    )
    grads = constrain("gradients", jax.tree.map(lambda g: g.astype(jnp.float32), grads))
    optimizer = optax.with_extra_args_support(task.optimizer(hyperparams))
    updates, moments = optimizer.update(grads, member.moments, member.params, step=member.step)
    metrics = {
        "loss": loss,
        "lr": task.rate(hyperparams, member.step),
        "grad_norm": optax.tree.norm(grads),
        **observed,
    }
    if measured and (measure := getattr(task, "measure", None)) is not None:
        metrics |= measure(hyperparams, member, grads, updates, moments)
    params = optax.apply_updates(member.params, updates)
    return constrain("member", Member(params, moments, member.step + 1)), metrics


METRICS = ("loss", "lr", "grad_norm")
"""What is recorded of a step of any task, before what the task itself measures."""


def train_steps(
    task: Task,
    member: Member,
    hyperparams: Any,
    run_seed: jax.Array,
    seed: jax.Array,
    batches: Any,
    steps: jax.Array,
    accumulate: int,
    measured: bool = True,
) -> tuple[Member, dict[str, jax.Array]]:
    """`steps` (traced, i32[]) updates on batches [S, B, ...]; metrics f32[S], NaN beyond `steps`.

    What the task itself measures is left out where not `measured`.

    Under vmap a row that has made its own steps is frozen bit for bit while others go on.
    """
    size = jax.tree.leaves(batches)[0].shape[0]

    def make(member, index):
        batch = jax.tree.map(lambda x: x[index], batches)
        key = stream(run_seed, seed, member.step)
        return train_step(task, member, hyperparams, batch, key, accumulate, measured)

    def body(index, carry):
        member, curves = carry
        member, metrics = make(member, index)
        return member, {name: curves[name].at[index].set(metrics[name]) for name in metrics}

    names = jax.eval_shape(make, member, jnp.int32(0))[1]
    curves = {name: jnp.full(size, jnp.nan, jnp.float32) for name in names}
    return jax.lax.fori_loop(0, steps, body, (member, curves))


def evaluate(task: Task, params: Any, hyperparams: Any, held_out: Any) -> Any:
    """Held-out loss f32[E] of each batch of `held_out` [E, B, ...], or what `task.examine` gives of
    each, such as predictions f32[E, B] too."""
    examine = getattr(task, "examine", None)
    if examine is None:
        return jax.lax.map(lambda batch: task.loss(params, batch, hyperparams, None), held_out)
    return jax.lax.map(lambda batch: examine(params, batch, hyperparams), held_out)
