"""A search over a model that jaxhpo knows nothing of: a recurrent network on characters.

`python experiments/own_model/gru.py` trains it on this file's own text; `--tiny` takes seconds.
"""

import argparse
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxhpo

LETTERS, BATCH, LENGTH = 128, 8, 32
TEXT = np.frombuffer(Path(__file__).read_bytes(), np.uint8).astype(np.int32) % LETTERS


def init(key, width=48):
    keys = jax.random.split(key, 4)
    shapes = {"embed": (LETTERS, width), "gates": (2 * width, 2 * width),
              "state": (2 * width, width), "read": (width, LETTERS)}  # fmt: skip
    pairs = zip(shapes.items(), keys, strict=True)
    return {name: jax.random.normal(k, shape) * shape[0] ** -0.5 for (name, shape), k in pairs}


def loss(params, batch, hyperparams, key):
    """Mean cross-entropy in nats per character; dropout on the state where there is a key."""

    def cell(state, letter):
        both = jnp.concatenate([params["embed"][letter], state], -1)
        reset, update = jnp.split(jax.nn.sigmoid(both @ params["gates"]), 2, -1)
        both = jnp.concatenate([params["embed"][letter], reset * state], -1)
        state = update * state + (1 - update) * jnp.tanh(both @ params["state"])
        return state, state

    start = jnp.zeros((batch.shape[0], params["read"].shape[0]))
    _, states = jax.lax.scan(cell, start, batch[:, :-1].T)
    if key is not None:
        keep = 1.0 - hyperparams["dropout"]
        states = states * jax.random.bernoulli(key, keep, states.shape) / keep
    logits = states @ params["read"]
    return optax.softmax_cross_entropy_with_integer_labels(logits, batch[:, 1:].T).mean()


def windows(seed, count, text):
    starts = np.random.default_rng(seed).integers(0, len(text) - LENGTH, (count, BATCH))
    return text[starts[..., None] + np.arange(LENGTH + 1)]


def batch_at(step, steps):
    return np.concatenate([windows(s, 1, TEXT[:-500]) for s in range(step, step + steps)])


def search(out=None, steps=243, trials=27):
    return jaxhpo.search_function(
        init=init,
        loss=loss,
        optimizer=lambda h: optax.adamw(h["lr"], weight_decay=h["weight_decay"]),
        batch_at=batch_at,
        held_out=windows(0, 4, TEXT[-500:]),
        space={
            "lr": "log(1e-3, 1e-1)",
            "weight_decay": "log(1e-3, 1)",
            "dropout": "uniform(0, 0.5)",
        },
        scheduler="asha",
        trials=trials,
        steps=steps,
        out=out,
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out")
    parser.add_argument("--tiny", action="store_true")
    asked = parser.parse_args()
    found = search(asked.out, *((27, 6) if asked.tiny else ()))
    print(f"best trial {found.best['trial']}: {found.best['loss']:.3f} nats per character")
    print(jaxhpo.write_report(found.directory))
