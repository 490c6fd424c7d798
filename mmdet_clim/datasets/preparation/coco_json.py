# Licensed under the Apache License, Version 2.0.
"""Reading and writing of COCO's and LVIS's JSON, one entry at a time."""
import json
from collections import Counter
from pathlib import Path
from typing import (
    Any,
    Callable,
    Collection,
    Dict,
    Iterator,
    Mapping,
    Optional,
    Sequence,
    Tuple,
)

from mmdet_clim.progress import progress

from ..coco_annotations import CocoChecker
from ..json_checks import typed_id
from ..json_stream import JSONObject
from .files import whole_file


class CocoFile:
    """A JSON file in COCO's layout that is never in memory as a whole.

    Args:
        path (Path): A file with lists under some keys of its object.
        required (Sequence[str]): Keys that must be there and hold lists.
        lvis (bool): Whether annotations have no ``iscrowd``.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is not valid JSON or no object, or a required key
            is missing or holds no list.
    """

    def __init__(self,
                 path: Path,
                 required: Sequence[str],
                 lvis: bool = False) -> None:
        self.path = Path(path)
        self.lvis = lvis
        # What checked each list that was read to its end.
        self._checkers: Dict[str, CocoChecker] = {}
        self._header: Dict[str, Any] = {}
        if not self.path.is_file():
            raise FileNotFoundError(f'{path}: no such file')
        self._object = JSONObject(self.path)
        kinds: Dict[str, str] = {}
        for key, number, value in self._members('check'):
            if number is None:
                kinds[key] = type(value).__name__
            if key in ('info', 'licenses'):
                if number is None:
                    self._header[key] = value
                else:
                    self._header[key].append(value)
        if not kinds:
            raise ValueError(f'{self.path}: expected a JSON object with keys, '
                             'got an empty one')
        for key in required:
            if key not in kinds:
                raise ValueError(f'{path}: key {key!r} is missing, expected a '
                                 f'list; the file has {sorted(kinds)}')
            if kinds[key] != 'list':
                raise ValueError(f'{path}: key {key!r} is a {kinds[key]}, '
                                 'expected a list')

    @property
    def repaired(self) -> Counter:
        """What was repaired in the lists that were read so far."""
        return sum((c.repaired for c in self._checkers.values()), Counter())

    @property
    def dropped(self) -> Counter:
        """What was dropped from them."""
        return sum((c.dropped for c in self._checkers.values()), Counter())

    def _members(self, title: str) -> Iterator[Tuple[str, Optional[int], Any]]:
        """The members of the file, with a progress bar."""
        with progress(
                f'{self.path.name}: {title}',
                self.path.stat().st_size,
                in_bytes=True) as advance:
            yield from self._object.members(advance)

    def entries(self, key: str) -> Iterator[dict]:
        """The objects of the list under a key, one after the other.

        Args:
            key (str): One of the outermost keys.

        Raises:
            ValueError: If an entry is no object.
        """
        for found, number, item in self._members(key):
            if found != key or number is None:
                continue
            if not isinstance(item, dict):
                raise ValueError(f'{self.path}: {key}[{number}] is {item!r}, '
                                 'expected an object')
            yield item

    def header(self) -> dict:
        """``info`` and ``licenses``, as far as the file has them."""
        return self._header

    def categories(self) -> Dict[int, dict]:
        """The entries of ``categories``, by id, in the file's order.

        Raises:
            ValueError: If there is none, or one is wrong.
        """
        checker = CocoChecker(str(self.path))
        found = {
            category['id']: category
            for category in self._checked('categories', checker.category)
        }
        self._checkers['categories'] = checker
        return found

    def images(self) -> Iterator[dict]:
        """The entries of ``images``, each checked before it is given out.

        Raises:
            ValueError: If there is none, or one is wrong.
        """
        checker = CocoChecker(str(self.path))
        yield from self._checked('images', checker.image)
        self._checkers['images'] = checker

    def image_ids(self) -> Collection[int]:
        """Ids of the images, whose entries are checked."""
        if 'images' not in self._checkers:
            for _ in self.images():
                pass
        return self._checkers['images'].sizes.keys()

    def boxes(self) -> Iterator[dict]:
        """The annotations that are left, each checked and repaired.

        Raises:
            ValueError: If one is wrong, or no box is left.
        """
        checker = CocoChecker(str(self.path), self.lvis)
        self.image_ids()
        if 'categories' not in self._checkers:
            self.categories()
        checker.sizes = self._checkers['images'].sizes
        checker.categories = self._checkers['categories'].categories
        for number, entry in enumerate(self.entries('annotations')):
            kept = checker.annotation(number, entry)
            if kept is not None:
                yield kept
        checker.finish()
        self._checkers['annotations'] = checker

    def _checked(self, key: str, check: Callable) -> Iterator[dict]:
        """The entries under a key, of which there must be one."""
        number = -1
        for number, entry in enumerate(self.entries(key)):
            yield check(number, entry)
        if number < 0:
            raise ValueError(f'{self.path}: key {key!r} is empty, expected at '
                             'least one')


def check_reference(entry: Mapping, key: str, known: Collection[int],
                    listed: str, where: str) -> int:
    """The id under a key, which the file must list.

    Args:
        entry (Mapping): An object of the file.
        key (str): ``image_id`` or ``category_id``.
        known (Collection[int]): The ids that the file lists.
        listed (str): The key it lists them under, for the error.
        where (str): File and place, for the error.

    Raises:
        ValueError: If it is missing, no integer, or not known.
    """
    value = typed_id(entry, key, where)
    if value not in known:
        raise ValueError(f'{where}: key {key!r} is {value}, expected one of '
                         f'the {len(known)} ids under {listed!r}')
    return value


def write_coco(path: Path, parts: Mapping[str, Any]) -> None:
    """Write an object whose lists may be too long for the memory.

    Args:
        path (Path): The file; it appears when it is complete.
        parts (Mapping[str, Any]): By key: an iterator, of which each entry
            gets a line of its own as it comes, or any other value.
    """
    with whole_file(path) as file:
        for number, (key, value) in enumerate(parts.items()):
            file.write(', ' if number else '{')
            file.write(f'{json.dumps(key)}: ')
            if not isinstance(value, Iterator):
                file.write(json.dumps(value))
                continue
            file.write('[')
            for position, entry in enumerate(value):
                file.write(',\n' if position else '\n')
                file.write(json.dumps(entry))
            file.write(']')
        file.write('}\n')
