# Licensed under the Apache License, Version 2.0.
"""Which classes a caption names."""
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any

# Words and signs of punctuation; blanks, hyphens and underscores only part
# words, so that 't-shirt', 't shirt' and 't_shirt' are the same.
_TOKENS = re.compile(r'[^\W_]+|[^\w\s\-]')


def split_words(text: str) -> list[str]:
    """Words and signs of a text, without regard of case.

    Args:
        text (str): A caption or a class name, with any accents: composed and
            decomposed letters are the same.
    """
    return _TOKENS.findall(unicodedata.normalize('NFC', text).casefold())


def plural_forms(words: Iterable[str]) -> list[str]:
    """English plurals, 'people' for 'person' and 'dogs' for 'dog'.

    A word that is a plural already gets a form that no text holds.
    """
    return list(map(english().plural_noun, words))


@lru_cache(maxsize=None)
def english() -> Any:
    """What knows plurals and articles, an ``inflect.engine``."""
    # Its import takes a second, and few processes look for tags.
    import inflect
    return inflect.engine()


class TagFinder:
    """Finds the classes that captions name.

    A word sequence counts once, for the longest name that it matches, in the
    singular or in the plural: 'two computer mice' names ``mouse`` and no
    ``computer``. A word that several classes have names all of them. A word
    that is a plural of one class and the very word of another ('glasses')
    only names the latter. Words are told apart by blanks and signs, which
    Chinese, Japanese and Thai captions do not have.

    Args:
        words (Mapping[int, Sequence[str]]): The words for each class, by its
            id: its name, synonyms, other forms.
        other_phrases (Sequence[str]): Phrases that hold a class's word and
            mean something else: 'hot dog' names no ``dog``.

    Raises:
        ValueError: If a class has no word, or one without a letter or digit.

    Example:
        >>> find = TagFinder({17: ['cat'], 18: ['dog', 'puppy']}, ['hot dog'])
        >>> find(['Two puppies and a cat.', 'A hot dog.'])
        [17, 18]
    """

    def __init__(
        self,
        words: Mapping[int, Sequence[str]],
        other_phrases: Sequence[str] = ()
    ) -> None:
        self._check(words)
        self._ids: dict[tuple[str, ...], frozenset[int]] = {}
        plurals = {i: plural_forms(words[i]) for i in words}
        self._add(words, other_phrases)
        self._add(plurals, plural_forms(other_phrases))
        self._longest = max(map(len, self._ids))

    @staticmethod
    def _check(words: Mapping[int, Sequence[str]]) -> None:
        """Raise where a class can not be found."""
        if not words:
            raise ValueError('words: expected at least one class, got none')
        for number, class_words in words.items():
            if not class_words:
                raise ValueError(
                    f'words: expected at least the name of class {number}, '
                    'got none')
            for word in class_words:
                if not re.search(r'[^\W_]', word):
                    raise ValueError(
                        f'words: class {number} has {word!r}, expected a '
                        'letter or a digit in it')

    def _add(self, words: Mapping[int, Sequence[str]],
             other_phrases: Sequence[str]) -> None:
        """Take in all forms that are not known from before."""
        new: dict[tuple[str, ...], set] = {
            tuple(split_words(phrase)): set()
            for phrase in other_phrases
        }
        for number, class_words in words.items():
            for word in class_words:
                new.setdefault(tuple(split_words(word)), set()).add(number)
        for form, ids in new.items():
            self._ids.setdefault(form, frozenset(ids))

    def __call__(self, captions: Sequence[str]) -> list[int]:
        """Sorted ids of the classes that any caption names."""
        found: set = set()
        for caption in captions:
            words = split_words(caption)
            position = 0
            while position < len(words):
                step = 1
                for length in range(self._longest, 0, -1):
                    ids = self._ids.get(
                        tuple(words[position:position + length]))
                    if ids is not None:
                        found |= ids
                        # Near the end the slice is shorter than `length`.
                        step = min(length, len(words) - position)
                        break
                position += step
        return sorted(found)
