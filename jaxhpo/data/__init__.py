"""Text as streams of tokens: sources, tokenizers, a token cache, pure batches. Never jax."""

from jaxhpo._lazy import attach

__getattr__, __all__ = attach(
    __name__,
    {
        "DataConfig": "config",
        "Document": "documents",
        "fingerprint": "documents",
        "split": "documents",
        "SOURCES": "sources",
        "read_documents": "sources",
        "Tokenizer": "tokenizers",
        "TOKENIZERS": "tokenizers",
        "Cache": "cache",
        "Batches": "batches",
        "held_out_windows": "batches",
        "Bigram": "bigram",
        "bits_per_byte": "bigram",
        "Corpus": "corpus",
        "open_corpus": "corpus",
    },
)
