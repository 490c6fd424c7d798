# Licensed under the Apache License, Version 2.0.
"""Boxes of images, collected in COCO's layout."""
import math
import os
import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

from ..coco_annotations import Size, extent

#: Where sets have the images whose annotations are in another folder.
IMAGE_FOLDERS = ('JPEGImages', 'images', 'data')


class CocoEntries:
    """Collects images and boxes; what they hold is checked afterwards.

    Args:
        folder (Path): The folder below which the images are named.
        names (Sequence[str]): Classes that are known in advance, in order.
    """

    def __init__(self, folder: Path, names: Sequence[str] = ()) -> None:
        self.folder = folder
        #: Where images are looked for.
        self.image_folders = [folder, *(folder / n for n in IMAGE_FOLDERS)]
        self.images: list[dict] = []
        self.annotations: list[dict] = []
        #: What is not read, and where the set has it.
        self.left_out: list[tuple[str, str]] = []
        #: Where the set has each image and each box.
        self.places: dict[str, list[str]] = dict(images=[], annotations=[])
        self._classes: dict[str, int] = {}
        for name in names:
            self._class(name)

    def _class(self, name: str) -> int:
        return self._classes.setdefault(name, len(self._classes) + 1)

    def find(self, named: str) -> Path | None:
        """The file of an image, see :func:`find_image`."""
        return find_image(named, self.image_folders)

    def image(self, path: Path, where: str, size: Size | None = None) -> int:
        """Add an image.

        Args:
            where (str): What messages call it.
            size (tuple[int, int], optional): Width and height; not known if
                one of them is 0.
        """
        number = len(self.images) + 1
        entry: dict[str, Any] = dict(
            id=number, file_name=relative_name(path, self.folder))
        if size is not None and min(size) > 0:
            entry.update(width=size[0], height=size[1])
        self.images.append(entry)
        self.places['images'].append(where)
        return number

    def box(self,
            image: int,
            name: str,
            box: Sequence[float],
            where: str,
            ignore: bool = False) -> None:
        """Add a box.

        Args:
            name (str): Its class; white space is one blank.
            box (Sequence[float]): x, y, width, height in pixels.
            where (str): What messages call it.
            ignore (bool): Whether it is neither to be found nor a mistake.
        """
        self.annotations.append(
            dict(
                id=len(self.annotations) + 1,
                image_id=image,
                category_id=self._class(' '.join(name.split())),
                bbox=list(box),
                area=box[2] * box[3],
                iscrowd=int(ignore)))
        self.places['annotations'].append(where)

    def coco(self) -> dict:
        """What a COCO JSON of all that would hold."""
        return dict(
            images=self.images,
            annotations=self.annotations,
            categories=[
                dict(id=number, name=name)
                for name, number in self._classes.items()
            ])


def relative_name(path: Path, folder: Path) -> str:
    """The name of an image below a folder.

    Args:
        path (Path): If it is elsewhere, the name is its absolute path, which a
            join keeps.
    """
    name = Path(os.path.relpath(path, folder))
    if '..' in name.parts:
        name = path.absolute()
    return name.as_posix()


def find_image(named: str, places: Sequence[Path]) -> Path | None:
    """The file of an image, whose set may have been made elsewhere.

    Folders that the name begins with and that are not here are left out, the
    fewest possible; the suffix may be in capitals or not, accents composed
    or not, and blanks and other characters written as in an address.

    Args:
        named (str): A path, also one of Windows, or an address.
        places (Sequence[Path]): Folders to look in, the first one first.

    Returns:
        Path, optional: None if there is no such file.
    """
    if '://' in named:
        named = urlsplit(named).path
    parts = PurePosixPath(named.replace('\\', '/')).parts
    for start in range(len(parts)):
        for place in places:
            for name in _spellings(os.path.join(*parts[start:])):
                # Unlike Path.is_file, it takes names that are too long.
                if os.path.isfile(place / name):
                    return place / name
    return None


def _spellings(name: str) -> Iterator[str]:
    """A name as file systems may have it."""
    stem, suffix = os.path.splitext(name)
    yield f'{stem}{suffix}'
    for written in dict.fromkeys((stem, unquote(stem))):
        for form in ('NFC', 'NFD'):
            for ending in (suffix, suffix.lower(), suffix.upper()):
                yield unicodedata.normalize(form, f'{written}{ending}')


def turned(box: Sequence[float], degrees: float,
           around: Sequence[float]) -> list[float]:
    """The box (x, y, width, height) around one that is turned.

    Args:
        box (Sequence[float]): x, y, width, height in pixels.
        degrees (float): Clockwise, as one sees the image.
        around (Sequence[float]): The point x, y that stays.
    """
    if not degrees:
        return list(box)
    cosine, sine = (
        part(math.radians(degrees)) for part in (math.cos, math.sin))
    corners = [(box[0] + u - around[0], box[1] + v - around[1])
               for u in (0, box[2]) for v in (0, box[3])]
    return extent([(around[0] + x * cosine - y * sine,
                    around[1] + x * sine + y * cosine) for x, y in corners])


def ellipse(shape: Sequence[float], degrees: float) -> list[float]:
    """The box (x, y, width, height) around an ellipse that is turned.

    Args:
        shape (Sequence[float]): The centre x, y, and the radii across and down
            before it is turned.
        degrees (float): See :func:`turned`.
    """
    x, y, across, down = shape
    cosine, sine = (
        part(math.radians(degrees)) for part in (math.cos, math.sin))
    half = (math.hypot(across * cosine,
                       down * sine), math.hypot(across * sine, down * cosine))
    return [x - half[0], y - half[1], 2 * half[0], 2 * half[1]]


def numbers(values: Sequence[Any], where: str) -> list[float]:
    """Numbers that stand as text.

    Raises:
        ValueError: If one of them is none, or not finite.
    """
    found = []
    for value in values:
        try:
            number = float(value)
        except (TypeError, ValueError):
            number = float('nan')
        if not abs(number) < float('inf'):
            raise ValueError(f'{where}: expected numbers, got {value!r}')
        found.append(number)
    return found


def point(values: Sequence[Any], where: str) -> list[float]:
    """The numbers x and y.

    Raises:
        ValueError: If there are not two.
    """
    if not isinstance(values, (list, tuple)) or len(values) != 2:
        raise ValueError(f'{where}: expected points of x and y, got {values}')
    return numbers(values, where)
