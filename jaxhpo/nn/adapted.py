"""Where an adapter meets the transformer."""

from collections.abc import Callable
from typing import Any, Protocol


class Adapter(Protocol):
    """What changes the projections of a block while it runs.

    `rows` is a pytree whose every leaf has a leading [L]: the loop over the blocks passes each its
    own. `attach(block, row)` replaces projections of that block, before it runs, by functions of
    the same inputs; what it returns is called after, and gives a pytree of what there is to tell.
    `note` gets those of all layers, stacked on [L], once the loop is traced.
    """

    @property
    def rows(self) -> Any: ...

    def attach(self, block: Any, row: Any) -> Callable[[], Any]: ...

    def note(self, found: Any) -> None: ...
