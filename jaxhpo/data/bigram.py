"""A bigram model of tokens: what a language model must beat to have learnt more than pairs."""

import math
from dataclasses import dataclass

import numpy as np

DENSE = 1024
CHUNK = 1 << 22
ADD = 0.1
PRIOR = 4.0


@dataclass(frozen=True, eq=False)
class Bigram:
    """p(b | a) = (count(a, b) + PRIOR p(b)) / (count(a) + PRIOR), with p(b) add-k smoothed.

    `pairs` are the sorted codes a V + b of all pairs seen, `counts` how often. Source: the
    Dirichlet prior of MacKay and Peto 1995.
    """

    vocab_size: int
    unigram: np.ndarray
    before: np.ndarray
    pairs: np.ndarray
    counts: np.ndarray

    def losses(self, tokens: np.ndarray) -> np.ndarray:
        """-log p in nats of each next token; i[..., T + 1] -> f64[..., T]."""
        a, b = tokens[..., :-1].astype(np.int64), tokens[..., 1:].astype(np.int64)
        codes = a * self.vocab_size + b
        at = np.minimum(np.searchsorted(self.pairs, codes), len(self.pairs) - 1)
        seen = np.where(self.pairs[at] == codes, self.counts[at], 0)
        return -np.log((seen + PRIOR * self.unigram[b]) / (self.before[a] + PRIOR))

    def held_out_loss(self, held_out: dict[str, np.ndarray]) -> float:
        """Mean loss in nats per token on exactly the windows that members are scored on."""
        return float(self.losses(held_out["tokens"]).mean())


def fit(stream: np.ndarray, vocab_size: int) -> Bigram:
    """The bigram model of a stream of tokens u[N], read in chunks."""
    ones = np.zeros(vocab_size, np.int64)
    for part in _chunks(stream, 0):
        ones += np.bincount(part, minlength=vocab_size)
    before = ones - (np.arange(vocab_size) == stream[-1])
    pairs, counts = _count_pairs(stream, vocab_size)
    unigram = (ones + ADD) / (len(stream) + ADD * vocab_size)
    return Bigram(vocab_size, unigram, before, pairs, counts)


def bits_per_byte(loss: float, bytes_per_token: float) -> float:
    """Nats per token as bits per byte of text, which compare between tokenizers."""
    return loss / (math.log(2) * bytes_per_token)


def _chunks(stream: np.ndarray, overlap: int) -> list[np.ndarray]:
    """Views of CHUNK tokens; each also has the first `overlap` tokens of the next."""
    return [stream[i : i + CHUNK + overlap] for i in range(0, len(stream) - overlap, CHUNK)]


def _count_pairs(stream: np.ndarray, vocab_size: int) -> tuple[np.ndarray, np.ndarray]:
    dense = np.zeros(vocab_size**2 if vocab_size <= DENSE else 0, np.int64)
    pairs, counts = np.zeros(0, np.int64), np.zeros(0, np.int64)
    for part in _chunks(stream, 1):
        codes = part[:-1].astype(np.int64) * vocab_size + part[1:]
        if vocab_size <= DENSE:
            dense += np.bincount(codes, minlength=len(dense))
            continue
        new, times = np.unique(codes, return_counts=True)
        both, where = np.unique(np.concatenate([pairs, new]), return_inverse=True)
        total = np.bincount(where, weights=np.concatenate([counts, times]))
        pairs, counts = both, total.astype(np.int64)
    if vocab_size <= DENSE:
        pairs = np.flatnonzero(dense)
        counts = dense[pairs]
    return pairs, counts
