"""`jaxhpo size`: parameters, operations and memory of a model, and the chips that train it."""

import json
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxhpo.cli.options import parse
from jaxhpo.cli.tables import aligned, count, size_text
from jaxhpo.config.run import TrainRun
from jaxhpo.errors import UsageError

if TYPE_CHECKING:
    from jaxhpo.nn.config import ModelConfig
    from jaxhpo.nn.published import Published
    from jaxhpo.study.size import Sizes


@dataclass(frozen=True)
class SizeQuery(TrainRun):
    """The size and the cost of a model: a published one by name, that of a run, of a folder of
    the Hugging Face format, or the one that the options of train describe."""

    fit: str | None = None
    """propose shapes of about so many parameters, such as 100M"""
    head_dim: int = 64
    """width of a head in the shapes that are proposed"""
    tokens: str | None = None
    """tokens to train on, such as 300B (default: 20 a parameter)"""
    chip: tuple[str, ...] = ()
    """chips to estimate for, such as h100 tpu-v5e (default: all that are known)"""
    chips: int | None = None
    """how many of them (default: the fewest that hold the training state)"""
    utilisation: float = 0.4
    """share of the chips' peak that training reaches"""
    json: bool = False
    """print JSON"""


def size(of: "Published | ModelConfig | Path | str", query: SizeQuery | None = None) -> "Sizes":
    """The sizes of a model: a name, a run directory, a Hugging Face folder, or a config.

    `query` has the batch, the optimizer, tokens and chips; its `model` is not looked at. Raises
    UsageError for what can't be sized.
    """
    from jaxhpo.nn.published import Published
    from jaxhpo.population.chips import CHIPS
    from jaxhpo.study.size import measure

    query = SizeQuery() if query is None else query
    if isinstance(of, Path | str):
        of = shape_of(str(of))
    shape = of if isinstance(of, Published) else Published(of)
    kinds = query.chip or tuple(CHIPS)
    for kind in kinds:
        if kind not in CHIPS:
            raise UsageError(f"chip={kind}; allowed: {', '.join(CHIPS)}")
    return measure(
        shape,
        batch=query.data.batch_size,
        optimizer=query.optimizer,
        unrolled=bool(query.execution.unroll),
        tokens=None if query.tokens is None else number("tokens", query.tokens),
        utilisation=query.utilisation,
        chips=query.chips,
        kinds=kinds,
    )


def main(argv: Sequence[str]) -> int:
    name = argv[0] if argv and not argv[0].startswith("-") else None
    rest = argv[1:] if name else argv
    shape = None if name is None else shape_of(name)
    base = SizeQuery() if shape is None else replace(SizeQuery(), model=shape.model)
    query = parse(SizeQuery, rest, "jaxhpo size [NAME|RUN|FOLDER]", base)
    model = with_vocabulary(query)
    if query.fit is not None:
        return propose(query, model)
    changed = shape is None or model != shape.model
    found = size(model if changed else shape, query)
    if query.json:
        print(json.dumps({"name": name, **found.as_dict()}))
    else:
        source = "" if changed or shape is None else shape.source
        print(report(found, name or "the model", source))
    return 0


def shape_of(name: str) -> "Published":
    """The shape that a name means: a folder with config.json, a run directory, or a model."""
    from jaxhpo.nn.published import Published, published
    from jaxhpo.pretrained.shapes import CONFIG, read_shape

    path = Path(name)
    if (path / CONFIG).is_file():
        return read_shape(path)
    if path.is_dir():
        from jaxhpo.study.config_of import config_of

        return Published(config_of(path).model, source=str(path))
    return published(name)


def with_vocabulary(query: SizeQuery) -> "ModelConfig":
    """The model with the vocabulary of the tokenizer where none is given."""
    if query.model.vocab_size is not None:
        return query.model
    from jaxhpo.data.subwords import VOCAB_SIZE, loaded
    from jaxhpo.data.tokenizers import TOKENIZERS, Bytes

    if query.data.tokenizer == "bytes":
        tokens = Bytes().vocab_size
    elif query.data.tokenizer == "bpe":
        tokens = query.data.vocab_size or VOCAB_SIZE
    else:
        tokens = loaded(query.data.tokenizer, tuple(TOKENIZERS)).vocab_size
    return replace(query.model, vocab_size=tokens)


_UNITS = {"": 1.0, "k": 1e3, "m": 1e6, "b": 1e9, "t": 1e12}


def number(name: str, text: str) -> float:
    """A count as people write it.

    >>> number("tokens", "1.5B")
    1500000000.0
    """
    match = re.fullmatch(
        r"(\d+(?:\.\d+)?(?:e\d+)?)([kmbt]?)", text.strip().lower().replace(",", "")
    )
    value = float(match[1]) * _UNITS[match[2]] if match else math.nan
    if not 0 < value < math.inf:
        raise UsageError(f"{name}={text}; allowed: a number above 0, such as 100M, 1.5B or 3e9")
    return value


def report(found: "Sizes", name: str, source: str) -> str:
    """The tables of one model."""
    parts = [_heading(found, name, source), _parameters(found), _operations(found)]
    return "\n\n".join(
        [*parts, _training(found), _generation(found), _changes(found), _time(found)]
    )


def _heading(found: "Sizes", name: str, source: str) -> str:
    m = found.model
    shared = "" if m.kv_heads == m.num_heads else f" ({m.kv_heads} key/value)"
    shape = (
        f"{name}: {m.num_layers} layers of width {m.d_model:,}, {m.num_heads} heads{shared} of "
        f"{m.width_of_head}, feed-forward {m.mlp_width:,}, {m.vocab_size:,} tokens, context "
        f"{m.context:,}"
    )
    return f"{shape}\nsource: {source}" if source else shape


def _parameters(found: "Sizes") -> str:
    share = lambda value: f"{value / found.parameters:.1%}"
    rows = [("parameters", f"{found.parameters:,}", "")]
    rows += [(f"  {part}", f"{n:,}", share(n)) for part, n in found.parts.items()]
    rest = found.beyond_embedding
    rows.append(("without embeddings", f"{rest:,}", share(rest)))
    return aligned(rows)


def _operations(found: "Sizes") -> str:
    context = f"{found.model.context:,}"
    rows = [
        (f"operations per trained token at context {context}", f"{found.flops():.4g}"),
        ("  with recomputation (remat)", f"{found.flops(recompute=True):.4g}"),
        ("  share of attention over other tokens", f"{found.attention_share:.1%}"),
    ]
    return aligned(rows)


def _training(found: "Sizes") -> str:
    plain, rebuilt = found.training, found.rebuilt
    title = f"memory to train, {found.batch} x {found.model.context:,} tokens on one device"
    rows = [(title, "", "with remat")]
    for part in ("weights", "gradients", "moments", "activations", "total"):
        values = (size_text(getattr(which, part)) for which in (plain, rebuilt))
        rows.append((f"  {part}", *values))
    return aligned(rows)


def _generation(found: "Sizes") -> str:
    from jaxhpo.nn.sizes import cache_bytes_per_token

    model = found.model
    rows = [
        (f"memory to generate in {model.compute_dtype}", ""),
        ("  weights", size_text(found.serving_weights)),
        ("  cache of one token", size_text(cache_bytes_per_token(model))),
        (f"  cache of {found.batch} x {model.context:,} tokens", size_text(found.cache)),
        ("  while prompts are read", size_text(found.reading)),
    ]
    return aligned(rows)


def _changes(found: "Sizes") -> str:
    from jaxhpo.study.size import sensitivity

    rows = [("what if", "", "parameters", "operations/token", "activations", "cache")]
    factor = lambda value: f"x {value:.2f}"
    for change in sensitivity(found.model, found.batch):
        numbers = (change.parameters, change.flops, change.activations, change.cache)
        span = f"{change.before:,} -> {change.after:,}"
        rows.append((f"  {change.name}", span, *map(factor, numbers)))
    return aligned(rows)


def _time(found: "Sizes") -> str:
    title = f"{count(found.tokens)} tokens at {found.utilisation:.0%} of peak"
    rows = [(title, "chips that hold it", "chips", "days", "chip-hours")]
    for budget in found.budgets:
        fewest = "one sequence is too much" if budget.fewest is None else f"{budget.fewest:,}"
        hours = budget.days * 24 * budget.chips
        rows.append(
            (f"  {budget.chip}", fewest, f"{budget.chips:,}", _days(budget.days), f"{hours:,.4g}")
        )
    return aligned(rows)


def _days(days: float) -> str:
    return f"{days:,.0f}" if days >= 100 else f"{days:.3g}"


def propose(query: SizeQuery, like: "ModelConfig") -> int:
    """Prints shapes of about the parameters asked for."""
    from jaxhpo.nn.sizes import count_parameters, flops_per_token
    from jaxhpo.study.size import fit

    wanted = number("fit", query.fit or "")
    if query.head_dim < 2 or query.head_dim % 2:
        raise UsageError(f"head_dim={query.head_dim}; allowed: an even number, 2 or more")
    shapes = fit(wanted, like, query.head_dim)
    facts = [
        {
            "num_layers": shape.num_layers,
            "d_model": shape.d_model,
            "num_heads": shape.num_heads,
            "num_kv_heads": shape.kv_heads,
            "d_mlp": shape.mlp_width,
            "parameters": count_parameters(shape),
            "off": count_parameters(shape) / wanted - 1.0,
            "aspect": shape.d_model / shape.num_layers,
            "flops_per_token": flops_per_token(shape, shape.context),
        }
        for shape in shapes
    ]
    if query.json:
        print(json.dumps({"fit": wanted, "shapes": facts}))
        return 0
    names = ("layers", "width", "heads", "kv heads", "feed-forward", "parameters", "off",
             "width/layers", "operations/token")  # fmt: skip
    print(f"{count(wanted)} parameters, heads of {query.head_dim}, {like.vocab_size:,} tokens, "
          f"context {like.context:,}, {like.activation}\n")  # fmt: skip
    print(aligned([names, *map(_proposal, facts)], numbers=True))
    return 0


def _proposal(facts: dict[str, Any]) -> Iterable[str]:
    whole = ("num_layers", "d_model", "num_heads", "num_kv_heads", "d_mlp", "parameters")
    return (
        *(f"{facts[name]:,}" for name in whole),
        f"{facts['off']:+.1%}",
        f"{facts['aspect']:.0f}",
        f"{facts['flops_per_token']:.3g}",
    )
