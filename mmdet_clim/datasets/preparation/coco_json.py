# Licensed under the Apache License, Version 2.0.
"""Reading and writing of COCO's and LVIS's JSON, one entry at a time."""
import json
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, Dict, Iterator, Mapping, Optional

from ..coco_annotations import CocoChecker, stream_coco
from .files import whole_file


class CocoFile:
    """A JSON in COCO's layout, whose checked entries wait on the disk.

    Args:
        path (Path): The file.
        folder (Path): Where the disk has room for as much once more.
        checker (CocoChecker, optional): What checks it.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it cannot be repaired; see :class:`CocoChecker`.
    """

    def __init__(self,
                 path: Path,
                 folder: Path,
                 checker: Optional[CocoChecker] = None) -> None:
        self.path = path
        self.checker = checker or CocoChecker(str(path))
        #: ``info`` and ``licenses``, as far as the file has them.
        self.header: Dict[str, Any] = {}
        #: The entries of ``categories``, by id, in the file's order.
        self.categories: Dict[int, dict] = {}
        # Without a name, so that nothing is left of a killed process.
        self._entries = {
            key: TemporaryFile(dir=folder)
            for key in ('images', 'annotations')
        }
        stream_coco(path, self.checker, self._keep)

    def _keep(self, key: str, number: Optional[int], value: Any) -> None:
        if key in self._entries:
            self._entries[key].write(json.dumps(value).encode() + b'\n')
        elif key == 'categories':
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
