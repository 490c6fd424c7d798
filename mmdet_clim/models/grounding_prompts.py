# Licensed under the Apache License, Version 2.0.
"""Phrases put together into the prompts of a grounding detector."""
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Callable, Sequence

# Between phrases: Grounding DINO lets no token look past it.
SEPARATOR = '. '
# [CLS] and [SEP].
NUM_SPECIAL_TOKENS = 2


@dataclass
class GroundingPrompt:
    """A text, and where in it each phrase stands.

    Args:
        text (str): Phrases, each with a separator after it.
        spans (dict[int, list]): Index of a phrase to the characters that are
            the phrase or a part of it, ``[begin, end]``, end excluded.
    """

    text: str = ''
    spans: dict[int, list[list[int]]] = field(default_factory=dict)

    def add(self, index: int, words: str) -> None:
        """Append words that belong to a phrase."""
        begin = len(self.text)
        self.spans.setdefault(index, []).append([begin, begin + len(words)])
        self.text += words + SEPARATOR


def clean_phrase(phrase: str) -> str:
    """A phrase without marks that would end it: 'A cat. Two!' → 'A cat, Two'.

    Args:
        phrase (str): A caption or a class name.
    """
    # BERT sees nothing of a zero-width joiner and its like; mmdet finds no
    # tokens of a phrase that ends with them.
    phrase = ''.join(c for c in phrase if c.isprintable() or c.isspace())
    # A full stop or a question mark inside would part it (SEPARATOR).
    for mark in '.?!':
        phrase = phrase.replace(mark, ',')
    return ' '.join(phrase.split()).strip(', ')


def pack_phrases(phrases: Sequence[str], count_tokens: Callable[[str], int],
                 limit: int) -> list[GroundingPrompt]:
    """Put phrases into as few prompts as they need, in their order.

    No phrase is cut: one that does not fit goes to the next prompt, and one
    that is longer than a prompt goes on in the next, at a word, or within a
    word that is longer than a prompt itself, such as a caption in a script
    without spaces. One of which the language model sees nothing, such as a
    lone replacement character, stands in no prompt.

    Args:
        phrases (Sequence[str]): What to find, as :func:`clean_phrase` gives.
        count_tokens (Callable): Tokens of a text, special ones left out.
        limit (int): Tokens of a prompt, special ones included.

    Returns:
        list[GroundingPrompt]: None is empty.

    Raises:
        ValueError: If a prompt has no room for a single character.
    """
    # The separator's and each phrase's are asked for more than once.
    count_tokens = lru_cache(maxsize=None)(count_tokens)
    room = limit - NUM_SPECIAL_TOKENS
    prompts: list[GroundingPrompt] = []
    used = room
    for index, phrase in enumerate(phrases):
        if not count_tokens(phrase):
            continue
        for words, length in _pieces(phrase, count_tokens, room):
            if used + length > room:
                prompts.append(GroundingPrompt())
                used = 0
            prompts[-1].add(index, words)
            used += length
    return prompts


def _pieces(phrase: str, count_tokens: Callable[[str], int], room: int):
    """Yield parts of a phrase that fit a prompt, and their tokens."""
    end = count_tokens(SEPARATOR)
    length = count_tokens(phrase) + end
    if length <= room:
        yield phrase, length
        return
    piece: list[str] = []
    used = end
    for word in phrase.split():
        for part in _parts(word, count_tokens, room - end):
            length = count_tokens(part)
            if used + length > room:
                yield ' '.join(piece), used
                piece, used = [], end
            piece.append(part)
            used += length
    yield ' '.join(piece), used


def _parts(word: str, count_tokens: Callable[[str], int],
           room: int) -> list[str]:
    """A word, in halves of halves until each fits."""
    length = count_tokens(word)
    if length <= room:
        return [word]
    if len(word) == 1:
        raise ValueError(
            f'language_model.max_tokens: expected room for {word!r} with its '
            f'{length} tokens, a prompt has room for {room}')
    half = len(word) // 2
    return [
        *_parts(word[:half], count_tokens, room),
        *_parts(word[half:], count_tokens, room)
    ]
