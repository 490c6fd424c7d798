# Licensed under the Apache License, Version 2.0.
"""Reading and writing of COCO's and LVIS's JSON, one entry at a time."""
import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from ..coco_annotations import CocoChecker, stream_coco
from .counts import FileCounts
from .files import whole_file


class CocoFile:
    """A JSON in COCO's layout, whose checked entries wait on the disk.

    Args:
        folder (Path): Where the disk has room for as much once more.
        checker (CocoChecker, optional): What checks it.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it cannot be repaired; see :class:`CocoChecker`.
    """

    def __init__(self,
                 path: Path,
                 folder: Path,
                 checker: CocoChecker | None = None) -> None:
        self.path = path
        self.checker = checker or CocoChecker(str(path))
        #: ``info`` and ``licenses``, as far as the file has them.
        self.header: dict[str, Any] = {}
        #: The entries of ``categories``, by id, in the file's order.
        self.categories: dict[int, dict] = {}
        # Without a name, so that nothing is left of a killed process.
        self._entries = {
            key: TemporaryFile(dir=folder)
            for key in ('images', 'annotations')
        }
        stream_coco(path, self.checker, self._keep)

    def _keep(self, key: str, number: int | None, value: Any) -> None:
        if key in self._entries:
            self._entries[key].write(json.dumps(value).encode() + b'\n')
        elif key == 'categories' and number is not None:
            self.categories[value['id']] = value
        elif key in ('info', 'licenses'):
            self.header[key] = value

    def entries(self, key: str) -> Iterator[dict]:
        """What is left of ``images`` or ``annotations``, in order."""
        file = self._entries[key]
        file.seek(0)
        yield from map(json.loads, file)


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


def write_boxes(coco: CocoFile,
                out: Path,
                categories: Sequence[dict],
                names: Mapping[int, str],
                left_out: Callable[[int], str],
                image_ids: Collection[int] | None = None) -> dict:
    """Write a part of a file, and count it.

    Args:
        coco (CocoFile): The file.
        out (Path): The part.
        categories (Sequence[dict]): Those that it lists.
        names (Mapping[int, str]): Of the categories whose boxes are kept, by
            id.
        left_out (Callable[[int], str]): What boxes of another category are
            counted as.
        image_ids (Collection[int], optional): The images that are kept; all
            without it.
    """
    counts = FileCounts(list(names.values()), 'boxes')

    def images() -> Iterator[dict]:
        for image in coco.entries('images'):
            if image_ids is None or image['id'] in image_ids:
                counts.totals['images'] += 1
                yield image
            else:
                counts.dropped['images without an object of the 65 '
                               'classes'] += 1

    def annotations() -> Iterator[dict]:
        for annotation in coco.entries('annotations'):
            category = annotation['category_id']
            if category in names:
                counts.add_class(names[category])
                yield annotation
            else:
                counts.dropped[left_out(category)] += 1

    write_coco(
        out,
        dict(
            coco.header,
            images=images(),
            annotations=annotations(),
            categories=categories))
    counts.add_repairs(coco.checker)
    return counts.as_dict()
