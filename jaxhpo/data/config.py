"""What text is trained on, and how it becomes batches of tokens."""

from dataclasses import dataclass
from pathlib import PurePath

from jaxhpo.errors import UsageError


@dataclass(frozen=True)
class DataConfig:
    """Text, tokenizer and batches; every value is static."""

    source: str = "stdlib"
    """stdlib (Python's own source code), synthetic (a toy language), a text file, or a folder"""
    tokenizer: str = "bytes"
    """bytes, bpe (trained on the training part), or the path of a tokenizer.json"""
    vocab_size: int | None = None
    """tokens of a bpe tokenizer that is trained here (default: 4096)"""
    batch_size: int = 8
    """sequences in one training batch, and in one held-out batch"""
    held_out: float = 0.1
    """share of the documents that is never trained on"""
    eval_batches: int = 8
    """held-out batches that a score is measured on"""
    glob: str = "**/*"
    """which files of a folder are read; hidden ones never are"""
    cache: str | None = None
    """folder for tokens and trained tokenizers (default: jaxhpo in the user's cache folder)"""

    def __post_init__(self) -> None:
        for name in ("source", "tokenizer", "glob"):
            if not getattr(self, name).strip():
                raise UsageError(f"data.{name} is empty; leave it out or give a value")
        for name in ("source", "tokenizer", "glob", "cache"):
            if "\0" in (getattr(self, name) or ""):
                raise UsageError(f"data.{name} contains a NUL character; allowed: text without")
        if self.cache is not None and not self.cache.strip():
            raise UsageError("data.cache is empty; leave it out or name a folder")
        for name in ("batch_size", "eval_batches"):
            if getattr(self, name) < 1:
                raise UsageError(f"data.{name}={getattr(self, name)}; allowed: 1 or more")
        if not 0.0 < self.held_out < 1.0:
            raise UsageError(f"data.held_out={self.held_out}; allowed: above 0 and below 1")
        if self.vocab_size is not None and self.vocab_size < 1:
            raise UsageError(f"data.vocab_size={self.vocab_size}; allowed: 257 or more")
        if PurePath(self.glob).is_absolute() or ".." in PurePath(self.glob).parts:
            raise UsageError(f"data.glob={self.glob}; allowed: a pattern inside the folder")
