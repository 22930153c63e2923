"""Secrets never reach a file: they are taken out of what is written, by name and by shape."""

import re
from collections.abc import Mapping
from typing import Any

_NAMES = re.compile(
    r"(?i)(api[_-]?key|secret|passw(or)?d|credential|private[_-]?key|(^|[_.-])(auth|passwd|pwd)($|[_.-]))"
)
_TOKEN = re.compile(r"(?i)(^|[_.-])token($|[_.-])")
_HARMLESS_TOKEN = re.compile(r"(?i)(per|pad|eos|bos|unk|sep|mask|cls|end|start)[_.-]token")
_SHAPES = re.compile(
    r"\b(hf_[A-Za-z0-9]{16,}|wandb_v\d_[A-Za-z0-9_-]{16,}|sk-[A-Za-z0-9_-]{20,}"
    r"|gh[pousr]_[A-Za-z0-9]{30,}|github_pat_\w{22,}|AKIA[0-9A-Z]{16}|AIza[\w-]{35}"
    r"|xox[abprs]-[\w-]{10,}|eyJ[\w-]{10,}\.eyJ[\w-]+\.[\w-]+)"
)
_KEY_SHAPED = re.compile(r"(?<![0-9A-Za-z/])[0-9a-f]{40}(?![0-9A-Za-z])")
"""A W&B key. After a slash it is a folder's name, such as a snapshot in the cache of a hub."""
_DIGEST = re.compile(r"(?i)(sha|digest|fingerprint|commit|revision|hash)")
_ASSIGNED = re.compile(
    r"(?i)([\w.-]*(?:api[_-]?key|secret|passw(?:or)?d|credential|[_.-]token\b)[\w.-]*[=\s:]+)(\S+)"
)
_USER_INFO = re.compile(r"(://)[^/\s]+@")
_PASSWORD = re.compile(r"(://[^:/@\s]*):[^/\s]*@")
_WEB_USER = re.compile(r"(?i)(https?://)[^/\s]+@")
_QUERY = re.compile(
    r"(?i)([?&;][\w.-]*(?:key|secret|passw(?:or)?d|passwd|pwd|credential|token|signature|\bsig)"
    r"[\w.-]*=)[^&;\s#]+"
)


def redact(mapping: Mapping[str, Any]) -> dict[str, Any]:
    """A copy without the entries that look like secrets, at any depth.

    Dropped: keys such as `api_key`, `hf_token`, `password`; texts with the shape of a key. Digests
    and counts of tokens stay. Of a URL the password goes, and the rest stays.

    >>> redact({"api_key": "x", "tokens_per_step": 512, "wandb": {"token": "y", "project": "p"}})
    {'tokens_per_step': 512, 'wandb': {'project': 'p'}}
    >>> redact({"storage": "postgresql://me:pw@host/db"})
    {'storage': 'postgresql://me@host/db'}
    """
    return {key: _inside(value) for key, value in mapping.items() if not _secret(str(key), value)}


def redact_url(text: str) -> str:
    """A text without the passwords of the URLs in it, so that they still name the same place.

    A database's user stays; of a web address the user goes too, where tokens are often put. In a
    query, values whose names say that they are secret become `[redacted]`.

    >>> redact_url("https://x-oauth:abc@host/repo?depth=1&access_token=abc")
    'https://host/repo?depth=1&access_token=[redacted]'
    """
    if "://" not in text:
        return text
    return _QUERY.sub(r"\1[redacted]", _PASSWORD.sub(r"\1@", _WEB_USER.sub(r"\1", text)))


def redact_text(text: str) -> str:
    """The text with what looks like a secret replaced by `[redacted]`.

    >>> redact_text("jaxhpo pbt --wandb.api-key=abc --steps 3")
    'jaxhpo pbt --wandb.api-key=[redacted] --steps 3'
    """
    text = _ASSIGNED.sub(r"\1[redacted]", text)
    text = _QUERY.sub(r"\1[redacted]", _USER_INFO.sub(r"\1[redacted]@", text))
    return _KEY_SHAPED.sub("[redacted]", _SHAPES.sub("[redacted]", text))


def _inside(value: Any) -> Any:
    if isinstance(value, Mapping):
        return redact(value)
    if type(value) in (list, tuple):
        return type(value)(_inside(item) for item in value)
    return redact_url(value) if isinstance(value, str) else value


def _secret(key: str, value: Any) -> bool:
    if _NAMES.search(key):
        return True
    if not isinstance(value, str):
        return False
    if _TOKEN.search(key) and not _HARMLESS_TOKEN.search(key):
        return True
    return bool(_SHAPES.search(value) or (_KEY_SHAPED.search(value) and not _DIGEST.search(key)))
