"""A toy language, the same on every machine: for tests, and for numbers that must not move.

Sentences agree in number across several words, verbs and adjectives depend on their noun, and a
document keeps to its few nouns and names them again: context tells more than the last token does.
All arithmetic is on whole numbers (splitmix64, Steele et al. 2014).
"""

from collections.abc import Iterator, Sequence
from functools import cache

from jaxhpo.data.documents import Document

DOCUMENTS, SENTENCES, TOPIC = 240, 24, 5
NOUNS, VERBS, ADJECTIVES = 48, 24, 24
MASK = 2**64 - 1


@cache
def documents() -> Sequence[Document]:
    """240 documents, together about 400 kB."""
    words = _words(NOUNS + VERBS + ADJECTIVES)
    nouns, verbs = words[:NOUNS], words[NOUNS : NOUNS + VERBS]
    adjectives = words[NOUNS + VERBS :]
    return tuple(
        Document(f"synthetic/{i:03}", content=_document(i, nouns, verbs, adjectives).encode())
        for i in range(DOCUMENTS)
    )


def _document(number: int, nouns: list[str], verbs: list[str], adjectives: list[str]) -> str:
    random = _random(number + 1)
    topic = [next(random) % NOUNS for _ in range(TOPIC)]
    lines = []
    for _ in range(SENTENCES):
        subject, thing = topic[next(random) % TOPIC], topic[next(random) % TOPIC]
        plural = next(random) % 2
        many, verb_end = ("s", "") if plural else ("", "es")
        verb = verbs[_preferred(subject, next(random)) % VERBS]
        adjective = adjectives[_preferred(subject + 7 * thing, next(random)) % ADJECTIVES]
        head = f"{'some' if plural else 'a'} {adjective} {nouns[subject]}{many} {verb}{verb_end}"
        back = f"so the {nouns[thing]} knows the {nouns[subject]}{many}"
        lines.append(f"{head} the {nouns[thing]}, {back}.")
    return "\n".join(lines) + "\n"


def _preferred(key: int, draw: int) -> int:
    """One of three choices that belong to a key, the first in five of eight draws."""
    return 5 * key + (0, 0, 0, 0, 0, 1, 1, 2)[draw % 8]


def _words(count: int) -> list[str]:
    random, words = _random(0), []
    while len(words) < count:
        syllables = 2 + next(random) % 2
        letters = ("bdfgklmnprtvz"[next(random) % 13] + "aeiou"[next(random) % 5] for _ in "123")
        word = "".join(list(letters)[:syllables])
        if word not in words:
            words.append(word)
    return words


def _random(seed: int) -> Iterator[int]:
    state = (seed * 0xD1342543DE82EF95 + 0x2545F4914F6CDD1D) & MASK
    while True:
        state = (state + 0x9E3779B97F4A7C15) & MASK
        z = state
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
        yield (z ^ (z >> 31)) >> 16
