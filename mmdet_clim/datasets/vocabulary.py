# Licensed under the Apache License, Version 2.0.
"""The class names that a detector knows, and which of them are base."""
import re
from abc import ABCMeta, abstractmethod
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmdet_clim.registry import DATASETS

from .class_names import (
    clean_names,
    is_file_of_names,
    names_by_number,
    read_class_names,
    split_at_commas,
    split_names,
)

#: A text that is the name of a data set, and not that of a class.
DATASET_NAME = re.compile(r'(\w+\.)?\w*Dataset')


@dataclass(frozen=True)
class Vocabulary:
    """Class names in index order, with the base/novel split if there is one.

    Args:
        names (tuple[str]): Class names; their position is the class index.
        base_names (tuple[str]): The names whose boxes train the detector.
            Every name when a vocabulary knows no split.
        image_counts (tuple[int], optional): Training images that show each
            class, where a long-tailed data set tells them.
        raw_names (tuple[str], optional): The names as the data set's file
            has them, such as ``bat_(animal)``, where ``names`` differ.
            Prompts that say ``{raw}`` have these.
        phrases (tuple[tuple[str]], optional): What else each class is called,
            its name first. A detector that classifies by text takes the best
            of them.

    Raises:
        ValueError: If it is empty, a name or phrase is empty or given twice,
            a base name is not one of ``names``, there is not one image count
            of at least 0 or one raw name per name, or phrases do not begin
            with the name.
    """

    names: tuple[str, ...]
    base_names: tuple[str, ...]
    image_counts: tuple[int, ...] | None = None
    raw_names: tuple[str, ...] | None = None
    phrases: tuple[tuple[str, ...], ...] | None = None

    def __post_init__(self):
        if not self.names:
            raise ValueError('vocabulary: expected at least one class name, '
                             'got none')
        wrong = [
            n for n in self.names if not isinstance(n, str) or not n.strip()
        ]
        if wrong:
            raise ValueError('vocabulary: every class name must be a '
                             f'non-empty string, got {wrong!r}')
        times = Counter(n.strip() for n in self.names)
        twice = [n for n, count in times.items() if count > 1]
        if twice:
            raise ValueError(
                f'vocabulary: class names must differ, given twice: {twice}')
        unknown = sorted(set(self.base_names) - set(self.names))
        if unknown:
            raise ValueError('vocabulary: base classes that are not classes: '
                             f'{unknown}')
        counts = self.image_counts
        if counts is not None and (len(counts) != len(self.names)
                                   or min(counts) < 0):
            raise ValueError(
                'vocabulary: expected one image count of at least 0 per '
                f'class, got {len(counts)} counts from {min(counts)} on for '
                f'{len(self.names)} classes')
        if self.raw_names is not None and len(self.raw_names) != len(self):
            raise ValueError(
                'vocabulary: expected one raw name per class, got '
                f'{len(self.raw_names)} for {len(self)} classes')
        if self.phrases is not None:
            if tuple(of[0] for of in self.phrases) != self.names:
                raise ValueError('vocabulary: expected phrases of each class, '
                                 'its name first')
            # Two phrases of one class would be two boxes of it.
            clean_names(self.texts)

    def __len__(self) -> int:
        return len(self.names)

    @property
    def all_phrases(self) -> tuple[tuple[str, ...], ...]:
        """The phrases of each class, its name first; often nothing else."""
        return self.phrases or tuple((name, ) for name in self.names)

    @property
    def texts(self) -> tuple[str, ...]:
        """All P phrases of the classes, those of one after another."""
        return tuple(phrase for of in self.all_phrases for phrase in of)

    @property
    def class_of_text(self) -> tuple[int, ...]:
        """The index of the class of each of :attr:`texts`."""
        return tuple(label for label, of in enumerate(self.all_phrases)
                     for _ in of)

    @property
    def is_base(self) -> tuple[bool, ...]:
        """One flag per class, True where the class is base."""
        base = set(self.base_names)
        return tuple(name in base for name in self.names)

    def subset(self, indices: Iterable[int]) -> 'Vocabulary':
        """The classes of these indices, in their order."""
        rows = list(indices)

        def chosen(values: Any) -> Any:
            return values and tuple(values[row] for row in rows)

        names = chosen(self.names)
        return Vocabulary(
            names, tuple(n for n in names if n in set(self.base_names)),
            *map(chosen, (self.image_counts, self.raw_names, self.phrases)))


def build_vocabulary(
        source: Vocabulary | Mapping | Sequence[str] | str | Path
) -> Vocabulary:
    """Read a vocabulary from a config value.

    Args:
        source: One of: a list of class names, where ``'tv | television'`` is
            one class of two phrases; the path of a file that
            :func:`~mmdet_clim.datasets.class_names.read_class_names` reads;
            names in one text, as
            :func:`~mmdet_clim.datasets.class_names.split_names` takes them;
            the name of a dataset, or ``dict(dataset='scope.DatasetType')``,
            which reads ``METAINFO['classes']`` and, where present,
            ``METAINFO['base_classes']`` of that registered dataset; the same
            with ``ann_file='...'`` for a dataset that has its classes from a
            file (its ``read_metainfo``), such as ``OVLVISDataset``;
            ``dict(names=[...], base_names=[...])``; names by their numbers,
            ``{0: 'cat', 1: 'dog'}``; or a :class:`Vocabulary`.

    Returns:
        Vocabulary: All names are base where no split is given.

    Raises:
        ValueError: If the source has another form or holds bad names; see
            :func:`~mmdet_clim.datasets.class_names.clean_names`.
        FileNotFoundError: If it looks like a path and there is no such file.
    """
    if isinstance(source, Vocabulary):
        return source
    if isinstance(source, Mapping) and set(source) == {'names', 'base_names'}:
        return _of_entries(
            clean_names(source['names']),
            [' '.join(name.split()) for name in source['base_names']])
    if isinstance(source, Mapping):
        numbered = names_by_number(source)
        if numbered is None:
            return _from_dataset(source)
        source = numbered
    if isinstance(source, str) and DATASET_NAME.fullmatch(source):
        return _from_dataset(dict(dataset=source))
    if isinstance(source, str):
        names = read_class_names(source) if is_file_of_names(source) else \
            clean_names(split_names(source))
    elif isinstance(source, Path):
        names = read_class_names(source)
    elif isinstance(source, Iterable) and not isinstance(source, (bytes, Set)):
        names = clean_names(source)
        if len(names) == 1 and any(
                len(split_at_commas(part)) > 1
                for part in names[0].split('|')):
            raise ValueError(
                f'vocabulary: {names[0]!r} is several names; give each on its '
                'own, or the text by itself and not in a list')
    else:
        raise ValueError(
            'vocabulary: expected a list of class names, a text of them or '
            f'the path of a file, got {type(source).__name__}')
    return _of_entries(names, names)


def with_classes(metainfo: Mapping | None,
                 vocabulary: Any) -> tuple[dict, Vocabulary | None]:
    """The metainfo of a data set whose tags are of a vocabulary.

    Args:
        metainfo (Mapping, optional): Of the data set; ``classes`` in it stand
            for a vocabulary without a split.
        vocabulary: See :func:`build_vocabulary`.

    Returns:
        tuple[dict, Vocabulary | None]: With ``classes``, and of a vocabulary
        ``base_classes``; and the vocabulary, None where there is none.

    Raises:
        ValueError: If both are given.
    """
    found = dict(metainfo or {})
    if vocabulary is not None and 'classes' in found:
        raise ValueError("expected vocabulary or metainfo['classes'], got "
                         'both')
    source = found.get('classes') if vocabulary is None else vocabulary
    if source is None:
        return found, None
    words = build_vocabulary(source)
    if vocabulary is not None:
        found['base_classes'] = words.base_names
    return dict(found, classes=words.names), words


def _of_entries(entries: Sequence[str], base: Sequence[str]) -> Vocabulary:
    """The vocabulary of names, of which some are ``'name | other name'``."""
    parts = {entry: split_phrases(entry) for entry in (*entries, *base)}
    phrases = tuple(parts[entry] for entry in entries)
    return Vocabulary(
        tuple(of[0] for of in phrases),
        tuple(parts[entry][0] for entry in base),
        phrases=phrases if any(len(of) > 1 for of in phrases) else None)


def split_phrases(entry: str) -> tuple[str, ...]:
    """The phrases of one class.

    Args:
        entry (str): One name, or several with ``|`` between them.

    Raises:
        ValueError: If a phrase is empty.
    """
    phrases = tuple(' '.join(part.split()) for part in entry.split('|'))
    if not all(phrases):
        raise ValueError(
            f'vocabulary: {entry!r}: expected phrases with | between them, '
            'got an empty one')
    return phrases


def vocabulary_of_words(words: Sequence[str]) -> Vocabulary:
    """Read what a command line has for ``--vocabulary``.

    Args:
        words (Sequence[str]): One word as :func:`build_vocabulary` reads a
            text; several are names, also where they are typed with commas or
            points between them.

    Raises:
        ValueError: If they are no vocabulary.
        FileNotFoundError: If one looks like a path and is none.
    """
    if len(words) == 1 or words[0].lstrip()[:1] in ('[', '{'):
        # A shell takes a list apart at its blanks.
        return build_vocabulary(' '.join(words))
    names = []
    for word in words:
        bare = word.strip()
        # A name with one point in it, such as "st. bernard", is a name.
        split = re.search(r'[,;|\n]|(^|\s)\.(\s|$)|\.$|^["\']', bare)
        names += split_names(word) if split else [word]
    names = clean_names(names)
    return _of_entries(names, names)


def _from_dataset(source: Mapping) -> Vocabulary:
    """The vocabulary of ``dict(dataset=..., ann_file=...)``."""
    if set(source) not in ({'dataset'}, {'dataset', 'ann_file'}):
        raise ValueError(
            "vocabulary: a dict must be dict(dataset='...'), with "
            "ann_file='...' or not, or dict(names=[...], base_names=[...]), "
            f'got keys {sorted(source)}')
    dataset = DATASETS.get(source['dataset'])
    if dataset is None:
        raise ValueError('vocabulary: no dataset is registered as '
                         f"{source['dataset']!r}")
    if 'ann_file' not in source:
        metainfo = dataset.METAINFO
    elif issubclass(dataset, ClassesFromFile):
        metainfo = dataset.read_metainfo(source['ann_file'])
    else:
        raise ValueError(f"vocabulary: {source['dataset']!r} has its classes "
                         'in METAINFO and takes no ann_file')
    if 'classes' not in metainfo:
        hint = '; give its ann_file' if issubclass(dataset,
                                                   ClassesFromFile) else ''
        raise ValueError(
            f"vocabulary: METAINFO of {source['dataset']!r} has no "
            f"'classes'{hint}")
    # Some of mmdet's own names end with a blank.
    names = tuple(map(str.strip, metainfo['classes']))
    base_names = metainfo.get('base_classes', names)
    return Vocabulary(names, tuple(map(str.strip, base_names)),
                      metainfo.get('image_counts'), metainfo.get('raw_names'))


class ClassesFromFile(metaclass=ABCMeta):
    """What a dataset is that has its classes from a file of annotations."""

    @classmethod
    @abstractmethod
    def read_metainfo(cls, ann_file: str | Path) -> dict:
        """Read ``classes`` and what else belongs into the metainfo.

        Returns:
            dict: ``classes``, and where the file tells them
            ``base_classes``, ``novel_classes`` and ``image_counts`` (one per
            class).
        """
