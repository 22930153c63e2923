"""A transformer for the GPT-2, Llama/Qwen and BERT families, as functions of a dict of arrays.

The model is written in Flax NNX and split once into a static graphdef and a plain nested dict;
nothing of NNX leaves this room. Parameters of the blocks are stacked on a leading [L].
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from jaxhpo.errors import UsageError
from jaxhpo.nn.adapted import Adapter
from jaxhpo.nn.attention import Attention, Memory, rotation_of
from jaxhpo.nn.config import ModelConfig
from jaxhpo.nn.constraints import constrain
from jaxhpo.nn.hyperparams import Dropout
from jaxhpo.nn.layers import Mlp, dropout, linear, norm, normal, product

Array = jax.Array
Params = dict[str, Any]
Branch = Callable[[Array], Array]


def init(config: ModelConfig, key: Array) -> Params:
    """New parameters: nested dict of arrays of `param_dtype`, those of norms float32, those of the
    blocks with a leading [L].

    Matrices are normal with `init_std`; those that write to the residual stream are divided by
    sqrt(2 L). Raises UsageError where `vocab_size` is not set.
    """
    return nnx.to_pure_dict(nnx.split(_Transformer(config, nnx.Rngs(key)), nnx.Param)[1])


def apply(
    config: ModelConfig,
    params: Params,
    tokens: Array,
    *,
    token_types: Array | None = None,
    real: Array | None = None,
    dropout: Dropout | None = None,
    key: Array | None = None,
    unroll: bool | int = 1,
) -> Array:
    """Logits: i32[B, T] -> f32[B, T, V].

    `token_types` i32[B, T] tell segments apart where the config has them (default: 0 everywhere);
    `real` bool[B, T] says which tokens may be seen, bool[B, T, T] by which, the first T (default:
    all). Without a key this is evaluation: no dropout code is built. `unroll` layers are laid
    out one after another; True is all of them, which is fastest on a CPU but compiles longer and
    keeps more for the backward pass. With `remat` the loop is always rolled.

    Token ids must lie in [0, V): they are values on the device and are not checked here. An id
    outside gives NaN from its position on, never another token's embedding; callers that read ids
    from outside check them on the host.
    """
    model, given = bound(config, params), Inputs(tokens, token_types, real)
    return model.logits(model.states(given, dropout, key, unroll))


def states(
    config: ModelConfig,
    params: Params,
    tokens: Array,
    *,
    token_types: Array | None = None,
    real: Array | None = None,
    dropout: Dropout | None = None,
    key: Array | None = None,
    unroll: bool | int = 1,
) -> Array:
    """What a head of another task reads: i32[B, T] -> f[B, T, D] behind the last norm; as `apply`.

    What belongs to the read-out alone (`readout`, `readout_transform`) is not used.
    """
    model, given = bound(config, params), Inputs(tokens, token_types, real)
    return model.normed(model.states(given, dropout, key, unroll))


def bound(config: ModelConfig, params: Params) -> "_Transformer":
    """The model with these parameters: for what runs parts of it, such as decoding.

    An `Adapter` that stands among them as "adapter" changes the projections of the blocks.
    """
    own = {name: value for name, value in params.items() if name != "adapter"}
    model = nnx.merge(_graphdef(config), own)
    model.adapter = params.get("adapter")
    return model


@functools.lru_cache(maxsize=64)
def _graphdef(config: ModelConfig) -> nnx.GraphDef:
    """Static description of the model. Splitting by Param alone raises if any other kind of
    variable (a stored key, a cache) has crept in: the guard that the model is a pure function."""
    abstract = nnx.eval_shape(lambda: _Transformer(config, nnx.Rngs(0)))
    return nnx.split(abstract, nnx.Param)[0]


class Inputs(NamedTuple):
    """Tokens i32[B, T], the type of each i32[B, T], and whether it is no padding, bool[B, T]."""

    tokens: Array
    token_types: Array | None = None
    real: Array | None = None


class _Block(nnx.Module):
    def __init__(self, config: ModelConfig, rngs: nnx.Rngs) -> None:
        self.pre = config.norm_position == "pre"
        self.attention_norm = norm(config)
        self.attention = Attention(config, rngs)
        self.mlp_norm = norm(config)
        self.mlp = Mlp(config, rngs)

    def __call__(
        self,
        x: Array,
        rotation: Array | None,
        rates: Dropout,
        key: Array | None,
        real: Array | None = None,
    ) -> Array:
        keys = (None,) * 4 if key is None else jax.random.split(key, 4)

        def attention(x: Array) -> Array:
            mixed = self.attention(x, rotation, rates.attention, keys[0], real)
            return dropout(mixed, rates.residual, keys[1])

        def mlp(x: Array) -> Array:
            return dropout(self.mlp(x, rates.mlp, keys[2]), rates.residual, keys[3])

        return self._joined(x, attention, mlp)

    def extend(
        self, x: Array, rotation: Array | None, memory: Memory, slots: Array, seen: Array
    ) -> tuple[Array, Memory]:
        """The block on tokens that follow those in memory; see `Attention.extend`."""
        kept = []

        def attention(x: Array) -> Array:
            mixed, new = self.attention.extend(x, rotation, memory, slots, seen)
            kept.append(new)
            return mixed

        x = self._joined(x, attention, lambda x: self.mlp(x, None, None))
        return x, kept[0]

    def _joined(self, x: Array, attention: Branch, mlp: Branch) -> Array:
        if self.pre:
            x = x + attention(self.attention_norm(x))
            return x + mlp(self.mlp_norm(x))
        x = self.attention_norm(x + attention(x))
        return self.mlp_norm(x + mlp(x))


class _Transformer(nnx.Module):
    def __init__(self, config: ModelConfig, rngs: nnx.Rngs) -> None:
        if config.vocab_size is None:
            raise UsageError("model.vocab_size is not set; give the tokenizer's number of tokens")
        self.config = config
        self.adapter: Adapter | None = None
        table = functools.partial(
            nnx.Embed,
            features=config.d_model,
            param_dtype=jnp.dtype(config.param_dtype),
            embedding_init=normal(config.init_std),
            rngs=rngs,
        )
        pre = config.norm_position == "pre"
        self.embed = table(config.vocab_size)
        self.positions = table(config.context) if config.position == "learned" else None
        self.token_types = table(config.token_types) if config.token_types else None
        self.embed_norm = None if pre else norm(config)
        # One block whose every parameter has a leading [L]: a module is a pytree.
        self.blocks = jax.vmap(lambda key: _Block(config, nnx.Rngs(key)))(
            jax.random.split(rngs.params(), config.num_layers)
        )
        self.final_norm = norm(config) if pre else None
        self.readout = None if config.tie_embeddings else self._readout(rngs)
        d, transform = config.d_model, config.readout_transform
        self.readout_dense = linear(config, d, d, rngs, bias=True) if transform else None
        self.readout_norm = norm(config) if transform else None
        self.readout_bias = self._readout_bias() if transform else None

    def _readout(self, rngs: nnx.Rngs) -> nnx.Param:
        shape = self.config.d_model, self.config.vocab_size
        draw = normal(self.config.init_std)
        return nnx.Param(draw(rngs.params(), shape, jnp.dtype(self.config.param_dtype)))

    def _readout_bias(self) -> nnx.Param:
        return nnx.Param(jnp.zeros(self.config.vocab_size, jnp.dtype(self.config.param_dtype)))

    def states(
        self, given: Inputs, rates: Dropout | None, key: Array | None, unroll: bool | int
    ) -> Array:
        """What comes out of the blocks: i32[B, T] -> f[B, T, D]."""
        tokens = given.tokens
        if tokens.ndim != 2:
            raise ValueError(f"tokens have shape {tokens.shape}; expected [B, T]")
        rates = Dropout() if rates is None or key is None else rates
        if not jax.tree.leaves(rates):
            key = None
        key_embed, key_blocks = (None, None) if key is None else jax.random.split(key)
        length = tokens.shape[1]
        if self.positions is not None and length > self.config.context:
            raise ValueError(f"{length} tokens exceed model.context={self.config.context}")
        x = self.embedded(tokens, slice(length), given.token_types)
        x = dropout(x, rates.embedding, key_embed)
        return self._blocks(x, given.real, rates, key_blocks, unroll)

    def embedded(
        self, tokens: Array, positions: Array | slice, token_types: Array | None = None
    ) -> Array:
        """What enters the blocks: i32[B, T] -> f[B, T, D]."""
        table = constrain("table", self.embed.embedding[...])
        x = table.at[tokens].get(mode="fill", fill_value=jnp.nan, wrap_negative_indices=False)
        x = x.astype(jnp.float32)
        if self.positions is not None:
            x = x + self.positions.embedding[...][positions]
        if self.token_types is not None:
            x = x + self.token_types.embedding[...][0 if token_types is None else token_types]
        if self.embed_norm is not None:
            x = self.embed_norm(x)
        return constrain("stream", x.astype(self.config.compute_dtype))

    def _blocks(
        self,
        x: Array,
        real: Array | None,
        rates: Dropout,
        key: Array | None,
        unroll: bool | int,
    ) -> Array:
        layers = self.config.num_layers
        rotation = rotation_of(self.config, jnp.arange(x.shape[1]))
        keys = None if key is None else jax.random.split(key, layers)

        adapter = self.adapter

        def layer(x: Array, row: tuple[_Block, Dropout, Array | None, Any]) -> tuple[Array, Any]:
            block, rates, key, own = row
            noted = None if adapter is None else adapter.attach(block, own)
            x = constrain("stream", block(x, rotation, rates, key, real))
            return x, None if noted is None else noted()

        remat = self.config.remat
        turn: Callable = layer
        # laid out, the compiler would merge the recomputation with the forward pass and keep all
        unroll = 1 if remat else unroll
        if remat or (unroll is not True and unroll < layers):
            # A loop stores what the backward pass needs at every turn. Products are kept; to
            # rebuild what lies between them is faster and takes half the memory.
            turn = jax.checkpoint(layer, policy=None if remat else _is_kept, prevent_cse=False)
        rows = self.blocks, _per_layer(rates, layers), keys, adapter and adapter.rows
        x, found = jax.lax.scan(turn, x, rows, unroll=unroll)
        if adapter is not None:
            adapter.note(found)
        return x

    def normed(self, x: Array) -> Array:
        return x if self.final_norm is None else self.final_norm(x)

    def logits(self, x: Array) -> Array:
        """What comes out of the blocks as logits: f[B, T, D] -> f32[B, T, V]."""
        x = self.normed(x)
        if self.readout_dense is not None and self.readout_norm is not None:
            approximate = self.config.activation == "gelu_tanh"
            x = self.readout_norm(jax.nn.gelu(self.readout_dense(x), approximate=approximate))
        kernel = self.embed.embedding[...].T if self.readout is None else self.readout[...]
        kernel = constrain("readout", kernel.astype(x.dtype))
        logits = constrain("logits", product(x, kernel, jnp.float32))
        if self.readout_bias is not None:
            logits = logits + self.readout_bias[...].astype(jnp.float32)
        cap = self.config.logit_softcap
        return logits if cap is None else cap * jnp.tanh(logits / cap)


def _is_kept(primitive: Any, *_: Any, **__: Any) -> bool:
    """Whether a result is kept for the backward pass: matrix products (those of projections by
    their name), fused attention (its primitives are named after it) and random draws, which cost
    more than what they are used in."""
    return primitive.name == "name" or primitive.name.startswith(("dot_", "random_bits"))


def _per_layer(rates: Dropout, layers: int) -> Dropout:
    """The rates that vary by layer as f32[L] each, ready to be scanned."""

    def row(name: str) -> Array | None:
        rate = getattr(rates, name)
        if rate is None:
            return None
        if jnp.shape(rate) not in ((), (layers,)):
            raise ValueError(
                f"dropout.{name} has shape {jnp.shape(rate)}; allowed: [] or [{layers}]"
            )
        return jnp.broadcast_to(rate, (layers,))

    return Dropout(attention=row("attention"), residual=row("residual"), mlp=row("mlp"))
