"""Options of a command into its config: typed, nested, over the values of a TOML file.

tyro builds the parser and the help from the config's types and docstrings. What it would print in
a box of many lines is said here in one.
"""

import contextlib
import io
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

from jaxhpo.config.fields import NONE, describe, members, optional, options, several, suggest
from jaxhpo.config.loading import load
from jaxhpo.config.names import replace
from jaxhpo.config.recipes import RECIPES, with_recipe
from jaxhpo.config.run import PbtRun, Run, SearchRun
from jaxhpo.errors import UsageError

if TYPE_CHECKING:
    from tyro.constructors import ConstructorRegistry

R = TypeVar("R")


_ABOUT_RECIPES = (
    "\n        recipe: published recipe: the defaults of schedule and optimizer, scaled to steps; "
    f"{', '.join(RECIPES)}"
)


def parse(kind: type[R], argv: Sequence[str], prog: str, base: R | None = None) -> R:
    """The config that a command line describes; values on it override those of `--config FILE`.

    `--recipe NAME` gives the defaults of schedule and optimizer for the run's `steps`, and the file
    overrides these; `base` (default: `kind()`) gives the rest. Prints the help and raises
    SystemExit(0) where it is asked for. Raises UsageError otherwise.
    """
    base = kind() if base is None else base
    if "-h" in argv or "--help" in argv:
        _tyro(kind, base, ["--help"], prog)
    recipes: dict[str, Any] = {"recipe": str | None} if issubclass(kind, Run) else {}
    hints = {"config": str | None, **recipes, **options(kind)}
    short = getattr(kind, "short", {})
    given = group([spelled_out(word, short) for word in argv], hints)
    if given.get("space") and issubclass(kind, Run) and not issubclass(kind, PbtRun | SearchRun):
        raise UsageError(
            "--space says what to search, and this command searches nothing; leave it out"
        )
    path, recipe = (given.pop(name, [None])[0] for name in ("config", "recipe"))
    recipe = None if recipe == NONE else recipe
    steps = _whole(given.get("steps", [""])[0])
    if path is not None:
        base = load(kind, path, base, recipe, steps)
    elif recipe is not None and isinstance(base, Run):
        base = with_recipe(base if steps is None else replace(base, "steps", steps), recipe)
    words: list[str] = []
    for name, texts in given.items():
        words += [flag(name), *(_spell(text, hints[name]) for text in texts)]
    return _tyro(kind, base, words, prog)


def spelled_out(word: str, short: Mapping[str, str]) -> str:
    """An option under its whole name.

    >>> spelled_out("--trials=32", {"trials": "search.trials"})
    '--search.trials=32'
    """
    key, equals, text = word.partition("=")
    name = key.removeprefix("--").replace("-", "_")
    return f"{flag(short[name])}{equals}{text}" if key.startswith("--") and name in short else word


def flag(name: str) -> str:
    """How a dotted name is written on the command line."""
    return f"--{name.replace('_', '-')}"


def group(argv: Sequence[str], hints: Mapping[str, Any]) -> dict[str, list[str]]:
    """Dotted name -> its texts. Dashes and underscores are alike, and so are spaces and `=`."""
    given: dict[str, list[str]] = {}
    name = ""
    for word in argv:
        if not word.startswith("--"):
            if not name:
                raise UsageError(f"unexpected argument {word!r}; options are written --name value")
            given[name].append(word)
            continue
        key, equals, text = word.partition("=")
        name = key[2:].replace("-", "_")
        if name not in hints:
            raise UsageError(f"unknown option {key}; {suggest(key, map(flag, hints))}")
        if name in given and name != "space":
            raise UsageError(f"{flag(name)} is given twice; allowed: once")
        given.setdefault(name, []).extend([text] if equals else [])
    for name, texts in given.items():
        if not texts and bool in members(hints[name]):
            texts.append("true")
        if not texts and name != "space":
            raise UsageError(f"{flag(name)} has no value; allowed: {describe(hints[name])}")
        if len(texts) > 1 and not several(hints[name]):
            raise UsageError(f"{flag(name)} {' '.join(texts)}; allowed: one value")
    return given


def dimensions(texts: Sequence[str]) -> dict[str, str]:
    """Space from `NAME=DISTRIBUTION` texts."""
    space: dict[str, str] = {}
    for text in texts:
        name, equals, distribution = text.partition("=")
        name = name.strip().replace("-", "_")
        if not equals or not distribution.strip():
            raise UsageError(
                f"--space {text}; allowed: NAME=DISTRIBUTION, such as "
                "'schedule.peak_lr=log(1e-4, 1e-1)' (in quotes, for the shell)"
            )
        if name in space:
            raise UsageError(f"--space names {name} twice; allowed: once")
        space[name] = distribution.strip()
    return space


def _tyro(kind: type[R], base: R, words: list[str], prog: str) -> R:
    import tyro

    def with_names(config: str | None = None, recipe: str | None = None, run: Any = base) -> Any:
        return run

    def without(config: str | None = None, run: Any = base) -> Any:
        return run

    command: Any = with_names if issubclass(kind, Run) else without
    about = "" if command is without else _ABOUT_RECIPES
    unnamed = tyro.conf.arg(name="")  # its fields are --model.d-model, not --run.model.d-model
    command.__annotations__["run"] = Annotated[kind, unnamed]  # ty: ignore[invalid-type-form]
    command.__doc__ = f"""{kind.__doc__}

    Args:
        config: TOML file of the same names; values given here override it{about}
    """
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            return tyro.cli(
                command,
                prog=prog,
                args=words,
                config=(tyro.conf.FlagConversionOff,),
                registry=_registry(),
            )
    except SystemExit as exit_:
        if not exit_.code:
            raise
        raise UsageError(_one_line(said.getvalue(), words, options(kind))) from None


def _registry() -> "ConstructorRegistry":
    """Texts as a config file has them: true, false, none, and NAME=DISTRIBUTION for a space."""
    from tyro.constructors import ConstructorRegistry, PrimitiveConstructorSpec, PrimitiveTypeInfo

    registry = ConstructorRegistry()
    words = {"true": True, "false": False}

    @registry.primitive_rule
    def rule(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[Any] | None:
        if info.type is bool:
            return PrimitiveConstructorSpec(
                nargs=1,
                metavar="{true,false}",
                instance_from_str=lambda texts: words[texts[0]],
                is_instance=lambda value: isinstance(value, bool),
                str_from_instance=lambda value: [str(value).lower()],
                choices=tuple(words),
            )
        if info.type is type(None):
            return PrimitiveConstructorSpec(
                nargs=1,
                metavar=NONE,
                instance_from_str=lambda texts: None,
                is_instance=lambda value: value is None,
                str_from_instance=lambda value: [NONE],
                choices=(NONE,),
            )
        if info.type_origin is Mapping:
            return PrimitiveConstructorSpec(
                nargs="*",
                metavar="NAME=DISTRIBUTION ...",
                instance_from_str=dimensions,
                is_instance=lambda value: isinstance(value, Mapping),
                str_from_instance=lambda value: [f"{k}={v}" for k, v in value.items()],
            )
        return None

    return registry


def _whole(text: str) -> int | None:
    return int(text) if text.isdecimal() and len(text) < 20 else None


def _spell(text: str, hint: Any) -> str:
    spelled = text.lower()
    if (bool in members(hint) and spelled in ("true", "false")) or (
        optional(hint) and spelled == NONE
    ):
        return spelled
    return text


def _one_line(box: str, words: list[str], hints: Mapping[str, Any]) -> str:
    """tyro's complaint in one line: the option, what was given, what is allowed."""
    plain = " ".join(re.sub(r"[─-╿]", " ", re.sub(r"\x1b\[[0-9;]*m", "", box)).split())
    by_flag = {flag(name): name for name in hints}
    named = next((word for word in re.findall(r"--[\w.-]+\w", plain) if word in by_flag), None)
    if named in words:
        texts = group(words, hints)[by_flag[named]]
        hint = hints[by_flag[named]]
        return f"{named} {' '.join(texts)}; allowed: {describe(hint)}{_nearest(hint, texts)}"
    return plain.partition(" For full helptext")[0]


def _nearest(hint: Any, texts: Sequence[str]) -> str:
    near = suggest(texts[0], describe(hint).split(", ")) if len(texts) == 1 else ""
    return f"; {near}" if near.startswith("perhaps") else ""
