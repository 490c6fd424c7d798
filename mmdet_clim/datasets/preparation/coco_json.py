# Licensed under the Apache License, Version 2.0.
"""Reading and writing of COCO's and LVIS's JSON, one entry at a time."""
import json
from array import array
from pathlib import Path
from typing import (
    IO,
    Any,
    Callable,
    Dict,
    FrozenSet,
    Iterable,
    Iterator,
    List,
    Mapping,
    Sequence,
)

import ijson
import numpy as np
from tqdm import tqdm

from ..json_checks import typed_value
from .files import whole_file


class _CountedFile:
    """A file that shows in a progress bar how far it was read."""

    def __init__(self, file: IO[bytes], bar: tqdm) -> None:
        self.file = file
        self.bar = bar

    def read(self, size: int = -1) -> bytes:
        """The next bytes."""
        data = self.file.read(size)
        self.bar.update(len(data))
        return data


def repeated_values(values: Sequence[int]) -> List[int]:
    """The integers that stand more than once, in order.

    Args:
        values (Sequence[int]): Any number of 64-bit integers; an ``array``
            takes 8 bytes of each.
    """
    unique, counts = np.unique(
        np.asarray(values, dtype=np.int64), return_counts=True)
    return unique[counts > 1].tolist()


class CocoFile:
    """A JSON file in COCO's layout that is never in memory as a whole.

    Args:
        path (Path): A file with lists under some keys of its object.
        required (Sequence[str]): Keys that must be there and hold lists.

    Raises:
        FileNotFoundError: If there is no such file.
        TypeError: If it is no object, or a required key holds no list.
        ValueError: If it is not valid JSON or a required key is missing.
    """

    def __init__(self, path: Path, required: Sequence[str]) -> None:
        self.path = Path(path)
        if not self.path.is_file():
            raise FileNotFoundError(f'{path}: no such file')
        kinds = self._top_level_kinds()
        for key in required:
            if key not in kinds:
                raise ValueError(f'{path}: key {key!r} is missing, expected a '
                                 f'list; the file has {sorted(kinds)}')
            if kinds[key] != 'start_array':
                raise TypeError(f'{path}: key {key!r} is a '
                                f'{kinds[key].replace("start_", "")}, '
                                'expected a list')
        self.keys = frozenset(kinds)

    def _stream(self, title: str, read: Callable, *prefix: str) -> Iterator:
        """What ijson's ``read`` gives of the file, with a progress bar."""
        with open(self.path, 'rb') as file, tqdm(
                # None: drawn on a terminal only.
                disable=None,
                total=self.path.stat().st_size,
                desc=f'{self.path.name}: {title}',
                unit='B',
                unit_scale=True,
                leave=False,
                delay=1) as bar:
            try:
                yield from read(
                    _CountedFile(file, bar),
                    *prefix,
                    use_float=True,
                    buf_size=1 << 20)
            except ijson.JSONError as error:
                raise ValueError(
                    f'{self.path}: not valid JSON ({error})') from error

    def _top_level_kinds(self) -> Dict[str, str]:
        """The first event of each value of the outermost object."""
        events = self._stream('check', ijson.parse)
        _, event, _ = next(events)
        if event != 'start_map':
            raise TypeError(f'{self.path}: expected a JSON object, got a '
                            f'{event.replace("start_", "")}')
        kinds: Dict[str, str] = {}
        waiting = None
        for prefix, event, value in events:
            # Nearly all events are within the values.
            if prefix and waiting is None:
                continue
            if waiting is not None:
                kinds[waiting], waiting = event, None
            elif event == 'map_key':
                waiting = value
        if not kinds:
            raise ValueError(f'{self.path}: expected a JSON object with keys, '
                             'got an empty one')
        return kinds

    def entries(self, key: str) -> Iterator[dict]:
        """The objects of the list under a key, one after the other.

        Args:
            key (str): One of the outermost keys.

        Raises:
            TypeError: If an entry is no object.
        """
        items = self._stream(key, ijson.items, f'{key}.item')
        for number, item in enumerate(items):
            if not isinstance(item, dict):
                raise TypeError(f'{self.path}: {key}[{number}] is {item!r}, '
                                'expected an object')
            yield item

    def value(self, key: str) -> Any:
        """The whole value of an outermost key, for small ones."""
        return next(self._stream(key, ijson.items, key))

    def header(self) -> dict:
        """``info`` and ``licenses``, as far as the file has them."""
        return {
            key: self.value(key)
            for key in ('info', 'licenses') if key in self.keys
        }

    def categories(self) -> Dict[int, dict]:
        """The entries of ``categories``, by id, in the file's order.

        Raises:
            ValueError: If there is none, or an id or a name stands twice.
        """
        found: Dict[int, dict] = {}
        names = set()
        for number, category in enumerate(self.entries('categories')):
            where = f'{self.path}: categories[{number}]'
            category_id = typed_value(category, 'id', int, where)
            name = typed_value(category, 'name', str, where)
            for key, value, known in (('id', category_id, found),
                                      ('name', name, names)):
                if value in known:
                    raise ValueError(
                        f'{where}: key {key!r} is {value!r}, expected one '
                        'that no other category has')
            found[category_id] = category
            names.add(name)
        if not found:
            raise ValueError(f"{self.path}: key 'categories' is empty, "
                             'expected at least one')
        return found

    def image_ids(self, name_keys: Sequence[str]) -> FrozenSet[int]:
        """Ids of the images, whose entries are checked.

        Args:
            name_keys (Sequence[str]): One of them must name the image's
                file: ``file_name``, ``coco_url``.

        Raises:
            TypeError: If a value has the wrong type.
            ValueError: If a key is missing, an id stands twice, a side is
                below 1, or there is no image.
        """
        ids = set()
        for number, image in enumerate(self.entries('images')):
            where = f'{self.path}: images[{number}]'
            image_id = typed_value(image, 'id', int, where)
            if image_id in ids:
                raise ValueError(
                    f"{where}: key 'id' is {image_id}, expected one that no "
                    'other image has')
            ids.add(image_id)
            for key in ('height', 'width'):
                if typed_value(image, key, int, where) < 1:
                    raise ValueError(f'{where}: key {key!r} is {image[key]}, '
                                     'expected at least 1')
            name_key = next((k for k in name_keys if k in image), name_keys[0])
            if not typed_value(image, name_key, str, where):
                raise ValueError(f'{where}: key {name_key!r} is empty, '
                                 'expected the name of an image')
        if not ids:
            raise ValueError(f"{self.path}: key 'images' is empty, expected "
                             'at least one')
        return frozenset(ids)

    def checked_boxes(self, image_ids: FrozenSet[int],
                      category_ids: Iterable[int]) -> Iterator[dict]:
        """The annotations, each checked before it is given out.

        Args:
            image_ids (frozenset[int]): The ids that may be named.
            category_ids (Iterable[int]): The same of the categories.

        Raises:
            TypeError: If a value has the wrong type.
            ValueError: If a key is missing, an id is not known or stands
                twice, or a box is not four finite numbers.
        """
        category_ids = frozenset(category_ids)
        annotation_ids = array('q')
        for number, annotation in enumerate(self.entries('annotations')):
            where = f'{self.path}: annotations[{number}]'
            annotation_ids.append(typed_value(annotation, 'id', int, where))
            check_reference(annotation, 'image_id', image_ids, 'images', where)
            check_reference(annotation, 'category_id', category_ids,
                            'categories', where)
            box = typed_value(annotation, 'bbox', list, where)
            if len(box) != 4 or not all(
                    isinstance(side, (int, float)) and abs(side) < float('inf')
                    for side in box):
                raise ValueError(f"{where}: key 'bbox' is {box!r}, expected "
                                 'four finite numbers x, y, w, h')
            yield annotation
        repeated = repeated_values(annotation_ids)
        if repeated:
            raise ValueError(
                f"{self.path}: annotations: key 'id' is {repeated[0]} more "
                'than once, expected ids that no other annotation has')


def check_reference(entry: Mapping, key: str, known: FrozenSet[int],
                    listed: str, where: str) -> int:
    """The id under a key, which the file must list.

    Args:
        entry (Mapping): An object of the file.
        key (str): ``image_id`` or ``category_id``.
        known (frozenset[int]): The ids that the file lists.
        listed (str): The key it lists them under, for the error.
        where (str): File and place, for the error.

    Raises:
        TypeError: If it is no integer.
        ValueError: If it is missing or not known.
    """
    value = typed_value(entry, key, int, where)
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
