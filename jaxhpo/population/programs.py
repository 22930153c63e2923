"""The four kinds of program, as functions of one shard's rows; the engine maps them over shards.

State is carried through the loop over rows and updated in place, so that a donated population is
held once. With chunk 1 a member is computed by the same instructions wherever it sits.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxhpo.population import member as life
from jaxhpo.population.member import Member
from jaxhpo.population.mesh import MEMBER
from jaxhpo.population.rows import PARTS, Rows
from jaxhpo.population.task import Task


def train(
    task: Task,
    chunk: int,
    accumulate: int,
    population: Member,
    rows: Rows,
    run_seed: Any,
    batches: Any,
) -> tuple[Member, dict[str, jax.Array]]:
    """Every row makes its own number of steps on its own stream of batches [U, S, B, ...]."""

    def one(member: Member, row: Rows):
        return life.train_steps(
            task,
            member,
            row.hyperparams,
            run_seed,
            row.seeds,
            _own(batches, row),
            row.steps,
            accumulate,
        )

    return over_rows(one, chunk, population, rows)


def evaluate(task: Task, chunk: int, population: Member, rows: Rows, held_out: Any) -> Any:
    """Held-out losses f32[P, E], or what the task examines; NaN for idle rows."""

    def one(member: Member, row: Rows):
        return _evaluate_if(row.steps > 0, task, member.params, row.hyperparams, held_out)

    idle = lambda rows: rows.steps == 0
    return over_rows(lambda member, row: (None, one(member, row)), chunk, population, rows, idle)[1]


def probe(
    task: Task,
    chunk: int,
    accumulate: int,
    population: Member,
    rows: Rows,
    run_seed: Any,
    batches: Any,
    held_out: Any,
) -> tuple[Any, Any]:
    """Raw and cooled held-out losses f32[P, E], or what the task examines.

    A copy of one chunk decays for `rows.probe` steps, is evaluated and thrown away. A row without a
    probe has its raw losses twice.
    """

    def one(member: Member, row: Rows):
        raw = _evaluate_if(row.steps > 0, task, member.params, row.hyperparams, held_out)
        cooled = task.cooled(row.hyperparams, member.step, row.probe)
        copy, _ = life.train_steps(
            task,
            member,
            cooled,
            run_seed,
            row.seeds,
            _own(batches, row),
            row.probe,
            accumulate,
            measured=False,
        )
        after = _evaluate_if(row.probe > 0, task, copy.params, row.hyperparams, held_out)
        return raw, jax.tree.map(lambda new, old: jnp.where(row.probe > 0, new, old), after, raw)

    idle = lambda rows: (rows.steps == 0) & (rows.probe == 0)
    return over_rows(lambda member, row: (None, one(member, row)), chunk, population, rows, idle)[1]


def assemble(task: Task, shards: int, population: Member, rows: Rows, run_seed: Any) -> Member:
    """The population that a plan asks for: every place a copy of its parent, or a newborn.

    Copies are a gather, never a product with a mask: a NaN member harms nobody. The one collective
    of a search is here, between two segments.
    """
    everyone = population
    if shards > 1:
        everyone = jax.tree.map(lambda x: jax.lax.all_gather(x, MEMBER, tiled=True), population)
    copied = jax.tree.map(lambda x: x[rows.parents], everyone)

    def born(member: Member, row: Rows) -> Member:
        fresh = life.newborn(task, row.hyperparams, run_seed, row.seeds)
        kept = row.keep & ~row.newborn
        choose = lambda i: jax.tree.map(
            lambda new, old: jnp.where(kept[i], old, new),
            getattr(fresh, PARTS[i]),
            getattr(member, PARTS[i]),
        )
        return Member(*[choose(i) for i in range(len(PARTS))])

    def one(member: Member, row: Rows):
        untouched = row.keep.all() & ~row.newborn
        return jax.lax.cond(untouched, lambda m, r: m, born, member, row), None

    return over_rows(one, 1, copied, rows)[0]


def over_rows(
    one: Callable[[Member, Rows], tuple[Member | None, Any]],
    chunk: int,
    state: Member,
    rows: Rows,
    idle: Callable[[Rows], jax.Array] | None = None,
) -> tuple[Member, Any]:
    """`one(member, row) -> (member or None, outputs)` for all rows, `chunk` of them at a time.

    A member that comes back replaces the old one in place; outputs are stacked on [P]. A chunk of
    several rows that are all `idle` is not computed: its outputs are NaN.
    """
    count = rows.seeds.shape[0]
    several = jax.vmap(one) if idle is None else _unless_all(idle, jax.vmap(one))
    if chunk >= count:
        new, outputs = several(state, rows)
        return (state if new is None else new), outputs

    def apply(state: Member, index: jax.Array):
        part = jax.tree.map(
            lambda x: jax.lax.dynamic_slice_in_dim(x, index * chunk, chunk), (state, rows)
        )
        if chunk > 1:
            return several(*part)
        alone = one(*jax.tree.map(lambda x: x[0], part))
        return jax.tree.map(lambda x: x[None], alone)

    def put(whole: Any, part: Any, index: jax.Array) -> Any:
        return jax.tree.map(
            lambda x, new: jax.lax.dynamic_update_slice_in_dim(x, new, index * chunk, 0),
            whole,
            part,
        )

    def body(index: jax.Array, carry: tuple[Member, Any]):
        state, outputs = carry
        new, found = apply(state, index)
        return (state if new is None else put(state, new, index)), put(outputs, found, index)

    shapes = jax.eval_shape(lambda s: apply(s, jnp.int32(0))[1], state)
    outputs = jax.tree.map(lambda s: jnp.zeros((count, *s.shape[1:]), s.dtype), shapes)
    return jax.lax.fori_loop(0, count // chunk, body, (state, outputs))


def _unless_all(idle: Callable[[Rows], jax.Array], several: Callable) -> Callable:
    """`several(state, rows)`, or NaN without the work where all rows are idle."""

    def apply(state: Member, rows: Rows):
        shapes = jax.eval_shape(several, state, rows)
        nothing = lambda: jax.tree.map(lambda s: jnp.full(s.shape, jnp.nan, s.dtype), shapes)
        return jax.lax.cond(idle(rows).all(), nothing, lambda: several(state, rows))

    return apply


def _own(batches: Any, row: Rows) -> Any:
    """A row's stream [S, B, ...]; a single stream is shared unbatched, so that it exists once."""
    single = jax.tree.leaves(batches)[0].shape[0] == 1
    return jax.tree.map(lambda x: x[0] if single else x[row.streams], batches)


def _evaluate_if(wanted: jax.Array, task: Task, params: Any, hyperparams: Any, held_out: Any):
    """Losses f32[E], or NaN without the work (with the work under vmap) where not `wanted`."""
    measure = lambda: life.evaluate(task, params, hyperparams, held_out)
    shapes = jax.eval_shape(measure)
    nothing = lambda: jax.tree.map(lambda x: jnp.full(x.shape, jnp.nan, x.dtype), shapes)
    return jax.lax.cond(wanted, measure, nothing)
