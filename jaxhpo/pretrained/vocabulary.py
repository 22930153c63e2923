"""The tokenizer beside a model: whether its ids are rows of the model's embedding."""

from pathlib import Path

from jaxhpo.errors import UsageError

TOKENIZER = "tokenizer.json"
MOST_BYTES = 64 << 20


def checked_tokenizer(path: Path, vocab_size: int) -> Path:
    """The path of a tokenizer.json that fits a model.

    Raises UsageError where it can't be read, or has an id that is no row of the embedding.
    """
    try:
        if (size := path.stat().st_size) > MOST_BYTES:
            raise UsageError(f"{path} has {size >> 20} MB; allowed: up to {MOST_BYTES >> 20} MB")
        json = path.read_bytes().decode()
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror or error}") from None
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not UTF-8 at byte {error.start}") from None
    highest = max(_ids(json, path), default=-1)
    if highest >= vocab_size:
        raise UsageError(
            f"{path} has ids up to {highest}, and the model has {vocab_size} tokens; allowed: a "
            f"tokenizer with ids below {vocab_size}"
        )
    return path


def _ids(json: str, path: Path) -> list[int]:
    from tokenizers import Tokenizer

    try:
        return list(Tokenizer.from_str(json).get_vocab(with_added_tokens=True).values())
    except (KeyboardInterrupt, SystemExit, MemoryError):
        raise
    except BaseException as error:  # the library's panics are no `Exception`s
        reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise UsageError(f"{path} can't be read: {reason}") from None
