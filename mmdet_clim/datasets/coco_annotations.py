# Licensed under the Apache License, Version 2.0.
"""One check of annotation files in COCO's layout, wherever they come in.

Training, evaluation, fine-tuning, preparation and analysis read a user's file
through it. What can only mean one thing is repaired and counted; what is
wrong otherwise is an error that names file, entry, key and value.
"""
import logging
from array import array
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite
from pathlib import Path
from typing import Any, ClassVar, NoReturn

import numpy as np
from mmengine.logging import print_log

from .images import image_size
from .json_checks import LIMIT, as_id, as_number, check_object, wrong_value
from .json_files import read_json
from .json_stream import JSONContent, JSONObject
from .regular_files import read_regular
from .text_files import is_text

#: COCO rounds to hundredths: so many pixels beyond an edge are no mistake.
ROUNDING = 0.02
COCO_URL = 'http://images.cocodataset.org/'

Size = tuple[int, int]
_ANNOTATION_KEYS = ('image_id', 'category_id', 'bbox')
_NUMBERS = (int, float)


def image_file_name(image: Mapping) -> str:
    """The file of an image, that of LVIS by the end of its URL.

    Args:
        image (Mapping): An entry of ``images`` with ``file_name`` or
            ``coco_url``.
    """
    if 'file_name' in image:
        return image['file_name']
    return image['coco_url'].replace(COCO_URL, '')


def repeated_values(values: Sequence[int]) -> list[int]:
    """The integers that stand more than once, in order.

    Args:
        values (Sequence[int]): Any number of 64-bit integers; an ``array``
            takes 8 bytes of each.
    """
    unique, counts = np.unique(
        np.asarray(values, dtype=np.int64), return_counts=True)
    return unique[counts > 1].tolist()


@dataclass(eq=False)
class CocoChecker:
    """Checks and repairs the entries of one file, one after the other.

    Categories and images come first, then annotations, then
    :meth:`finish`. Entries are changed in place.

    Args:
        file (str): The file, for messages.
        lvis (bool): Whether annotations have no ``iscrowd``.
        read_size (Callable, optional): Gives width and height of an image
            by its file name, as the loader will show it. It is asked where
            a size is missing, or a box lies beyond it.
        need_names (bool): Whether every image must have a file name.
        need_sizes (bool): Whether every image must have a size.
        clip (bool): Whether boxes are clipped to their image, and those
            outside left out. Not in evaluation: COCO's does not.
        skip_unreadable (bool): Leave out images without a size that cannot
            be read, instead of raising.
        places (Mapping[str, Sequence[str]]): What messages call the entries
            of ``images`` and ``annotations`` if they were read from other
            files.
    """

    #: The keys whose entries are checked, the annotations last.
    LISTS: ClassVar[tuple[str, ...]] = ('categories', 'images', 'annotations')

    file: str
    lvis: bool = False
    read_size: Callable[[str], Size] | None = None
    need_names: bool = True
    need_sizes: bool = True
    clip: bool = False
    skip_unreadable: bool = False
    places: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.categories: dict[int, str] = {}
        # Ids of classes that have the name of their parent, and its id.
        self._parents: dict[int, int] = {}
        #: Width and height by image id; None where it is not known.
        self.sizes: dict[int, Size | None] = {}
        self.repaired: Counter = Counter()
        self.dropped: Counter = Counter()
        self._examples: dict[str, str] = {}
        self._names: set = set()
        self._files: set = set()
        self._left_out: set = set()
        #: Sizes other than stated, by image id, which a box showed.
        self.corrected: dict[int, Size] = {}
        self._file_of: dict[int, str] = {}
        self._compared: set = set()
        self._ids = array('q')
        self._next_id = 1
        self._seen = 0
        self._kept = 0
        self._farthest = 0.0

    # -- messages

    def _where(self, key: str, number: int, entry_id: Any = None) -> str:
        """What messages call an entry."""
        if key in self.places:
            return self.places[key][number]
        of_id = '' if entry_id is None else f' (id {entry_id})'
        return f'{key}[{number}]{of_id}'

    def _repair(self, what: str, where: str) -> None:
        self.repaired[what] += 1
        self._examples.setdefault(what, where)

    def drop(self, what: str, where: str) -> None:
        """Count something that is left out.

        Args:
            what (str): Its kind, in the plural.
            where (str): The entry.
        """
        self.dropped[what] += 1
        self._examples.setdefault(what, where)

    def _refuse(self, where: str, key: str, value: Any,
                expected: str) -> NoReturn:
        raise wrong_value(f'{self.file}: {where}', key, value, expected)

    def _require(self, entry: Any, keys: Sequence[str], where: str) -> None:
        check_object(entry, f'{self.file}: {where}', keys)

    def _own_id(self, entry: dict, key: str, where: str) -> int:
        """The id under a key, as an integer."""
        value = entry[key]
        number = as_id(value)
        if number is None:
            self._refuse(where, key, value, 'an integer')
        if number is not value:
            self._repair('ids that were no integers', where)
            entry[key] = number
        return number

    def report(self) -> str:
        """What was repaired and dropped, in one line; '' for nothing."""
        parts = []
        for title, counts in (('repaired', self.repaired), ('dropped',
                                                            self.dropped)):
            if counts:
                parts.append(f'{title} ' + '; '.join(
                    f'{number} {what} (the first: {self._examples[what]})'
                    for what, number in counts.items()))
        return f"{self.file}: {'. '.join(parts)}" if parts else ''

    # -- entries

    def category(self, number: int, entry: Any) -> dict | None:
        """Check an entry of ``categories``.

        Returns:
            dict, optional: The entry; None of a class that has the name of
            its parent, as Roboflow writes it: its boxes are the parent's.

        Raises:
            ValueError: If a key is missing or wrong, or id or name stand
                twice.
        """
        where = f'categories[{number}]'
        self._require(entry, ('id', 'name'), where)
        category_id = self._own_id(entry, 'id', where)
        name = entry['name']
        if not isinstance(name, str) or not name.strip() or not is_text(name):
            self._refuse(where, 'name', name, 'the name of a class')
        if name != name.strip():
            self._repair('class names with blanks around them', where)
            name = entry['name'] = name.strip()
        if category_id in self.categories or category_id in self._parents:
            self._refuse(where, 'id', category_id,
                         'one that no other category has')
        if name in self._names:
            if entry.get('supercategory') != name:
                self._refuse(where, 'name', name,
                             'one that no other category has')
            self._parents[category_id] = next(
                of for of, known in self.categories.items() if known == name)
            self._repair('classes with the name of their parent', where)
            return None
        self._names.add(name)
        self.categories[category_id] = name
        return entry

    def image(self, number: int, entry: Any) -> dict | None:
        """Check an entry of ``images``.

        Returns:
            dict, optional: The entry; None if it is left out.

        Raises:
            ValueError: If a key is missing or wrong, an id stands twice, or
                a size is missing and cannot be read.
        """
        where = self._where('images', number)
        self._require(entry, ('id', ), where)
        image_id = self._own_id(entry, 'id', where)
        if image_id in self.sizes or image_id in self._left_out:
            self._refuse(where, 'id', image_id, 'one that no other image has')
        where = self._where('images', number, image_id)
        if self.need_names:
            key = 'file_name'
            if key not in entry and 'coco_url' in entry:
                key = 'coco_url'
            name = entry.get(key)
            if not isinstance(name, str) or not name or not is_text(name):
                self._refuse(where, key, name,
                             'the name of an image (LVIS: coco_url)')
            if name in self._files:
                self._refuse(
                    where, key, name, 'one that no other image has: the boxes '
                    'of one would be background in the other')
            self._files.add(name)
        size = self._stated_size(entry, where)
        if size is None and self.need_sizes:
            size = self._missing_size(entry, where)
            if size is None:
                return None
        self.sizes[image_id] = size
        if self.read_size is not None:
            self._file_of[image_id] = image_file_name(entry)
        return entry

    def _stated_size(self, entry: dict, where: str) -> Size | None:
        """Width and height that an image's entry tells, None if it does not.

        Some tools write 0 for a size that they do not know.
        """
        size = []
        for key in ('width', 'height'):
            value = entry.get(key)
            if type(value) is not int:
                if value is None or value == '':
                    return None
                number = as_id(value)
                if number is None:
                    self._refuse(where, key, value, 'a number of pixels')
                self._repair('sizes that were no integers', where)
                value = entry[key] = number
            if value == 0:
                return None
            if not 0 < value < LIMIT:
                self._refuse(where, key, value, 'at least 1')
            size.append(value)
        return size[0], size[1]

    def _missing_size(self, entry: dict, where: str) -> Size | None:
        """Read the size of an image that the file does not tell."""
        reason = 'the images are not at hand'
        if self.read_size is not None:
            try:
                size = self.read_size(image_file_name(entry))
            except (OSError, ValueError) as error:
                reason = str(error)
            else:
                entry['width'], entry['height'] = size
                self._repair('sizes read from the image', where)
                return size
        if not self.skip_unreadable:
            raise ValueError(
                f"{self.file}: {where}: keys 'width' and 'height' are missing "
                f'or 0, and cannot be read from the image: {reason}')
        self._left_out.add(entry['id'])
        self.drop('images without a size that cannot be read', where)
        return None

    def annotation(self, number: int, entry: Any) -> dict | None:
        """Check an entry of ``annotations``.

        Returns:
            dict, optional: The entry; None if it is left out.

        Raises:
            ValueError: If a key is missing or wrong, or image or category
                are not in the file.
        """
        self._seen += 1
        where = self._where('annotations', number)
        if isinstance(entry, dict) and not entry.get('bbox'):
            box = _box_of_masks(entry.get('segmentation'))
            if box is not None:
                entry['bbox'] = box
                self._repair('boxes that were missing, now those of the masks',
                             where)
        self._require(entry, _ANNOTATION_KEYS, where)
        if entry.get('id') is None:
            entry['id'] = self._next_id
            self._repair('missing annotation ids', where)
        annotation_id = self._own_id(entry, 'id', where)
        self._ids.append(annotation_id)
        if annotation_id >= self._next_id:
            self._next_id = annotation_id + 1
        image_id, category_id = entry['image_id'], entry['category_id']
        if self._is_good(entry, image_id, category_id):
            self._kept += 1
            return entry
        where = self._where('annotations', number, annotation_id)
        image_id = self._own_id(entry, 'image_id', where)
        self._check_category(entry, where)
        if image_id in self._left_out:
            self.drop('boxes of images that are left out', where)
            return None
        if image_id not in self.sizes:
            self._refuse_image(image_id, where)
        self._check_crowd(entry, where)
        self._check_masks(entry, image_id, where)
        if not self.place_box(entry, image_id, where):
            return None
        self._kept += 1
        return entry

    def _is_good(self, entry: dict, image_id: Any, category_id: Any) -> bool:
        """Whether nothing is to be done; most entries are so.

        It must be true only of what the other checks leave as it is.
        """
        box, area = entry['bbox'], entry.get('area')
        crowd = entry.get('iscrowd', 0 if self.lvis else None)
        if not (type(image_id) is type(category_id) is type(crowd) is int
                and image_id in self.sizes and category_id in self.categories
                and 0 <= crowd <= 1 and type(box) is list and len(box) == 4
                and type(area) in _NUMBERS and 0 < area < LIMIT**2):
            return False
        x, y, width, height = box
        if not (type(x) in _NUMBERS and type(y) in _NUMBERS and type(width)
                in _NUMBERS and type(height) in _NUMBERS and x >= 0 and y >= 0
                and 0 < width <= LIMIT and 0 < height <= LIMIT):
            return False
        right, bottom = x + width, y + height
        if self.clip:
            size = self.sizes[image_id]
            if right > size[0] or bottom > size[1]:
                return False
        elif right > LIMIT or bottom > LIMIT:
            return False
        masks = entry.get('segmentation')
        if masks and not (type(masks) is list
                          and all(map(_is_polygon, masks))):
            return False
        self._farthest = max(self._farthest, right, bottom)
        return True

    def _refuse_image(self, image_id: int, where: str) -> NoReturn:
        self._refuse(where, 'image_id', image_id,
                     f"one of the {len(self.sizes)} ids under 'images'")

    def _check_category(self, entry: dict, where: str) -> None:
        category_id = self._own_id(entry, 'category_id', where)
        if category_id in self._parents:
            entry['category_id'] = self._parents[category_id]
        elif category_id not in self.categories:
            self._refuse(
                where, 'category_id', category_id,
                f"one of the {len(self.categories)} ids under 'categories'")

    def _check_crowd(self, entry: dict, where: str) -> None:
        """``iscrowd`` as 0 or 1."""
        crowd = entry.get('iscrowd')
        if crowd is None:
            if not self.lvis:
                entry['iscrowd'] = 0
                self._repair('missing iscrowd (now 0)', where)
        elif type(crowd) is not int or crowd not in (0, 1):
            number = int(crowd) if isinstance(crowd, bool) else as_id(crowd)
            if number not in (0, 1):
                self._refuse(where, 'iscrowd', crowd, '0 or 1')
            entry['iscrowd'] = number
            self._repair('iscrowd that was no 0 or 1', where)

    def place_box(self, entry: dict, image_id: int, where: str) -> bool:
        """Check ``bbox`` and ``area`` of an annotation or a segment.

        Args:
            entry (dict): It holds ``bbox``.

        Returns:
            bool: False if there is no box within the image.
        """
        box = self._numbers(entry['bbox'], where)
        if not (box[2] > 0 and box[3] > 0):
            box = _box_of_masks(entry.get('segmentation')) or box
            if not (box[2] > 0 and box[3] > 0):
                self.drop('boxes without width or height', where)
                return False
            self._repair('boxes without extent, now that of the polygons',
                         where)
        x, y, width, height = box
        size = self.sizes[image_id]
        if self.clip and (x < -ROUNDING or y < -ROUNDING
                          or x + width > size[0] + ROUNDING
                          or y + height > size[1] + ROUNDING):
            size = self._compared_size(image_id, size, box)
            clipped = clipped_box(box, size)
            if clipped is None:
                self.drop('boxes outside of their image', where)
                return False
            if _difference(clipped, box) > ROUNDING:
                self._repair('boxes that reached out of their image (clipped)',
                             where)
                box = clipped
                if as_number(entry.get('area')) is not None:
                    entry['area'] = min(
                        as_number(entry['area']), box[2] * box[3])
        if box is not entry['bbox']:
            entry['bbox'] = box
        self._farthest = max(self._farthest, x + width, y + height)
        self._check_area(entry, box, where)
        return True

    def _numbers(self, box: Any, where: str) -> list:
        """The four numbers of a box."""
        if isinstance(box, list) and len(box) == 4:
            numbers = list(map(as_number, box))
            if None not in numbers:
                if numbers == box:
                    return box
                self._repair('boxes whose numbers were text', where)
                return numbers
        self._refuse(where, 'bbox', box, 'four finite numbers x, y, w, h')

    def _check_area(self, entry: dict, box: list, where: str) -> None:
        """``area`` as a positive number."""
        area = entry.get('area')
        kind = type(area)
        if (kind is float or kind is int) and 0 < area < LIMIT**2:
            return
        number = as_number(area)
        if number is None or number <= 0:
            number = box[2] * box[3]
            self._repair('areas that were missing or not positive (now w*h)',
                         where)
        else:
            self._repair('areas that were text', where)
        entry['area'] = number

    def _compared_size(self, image_id: int, size: Size, box: list) -> Size:
        """The size of an image, compared with the file if a box is beyond.

        An image that EXIF rotates is shown by the loader with its sides
        exchanged; the stated size is wrong where the box fits the real one.
        """
        if self.read_size is None or image_id in self._compared:
            return size
        self._compared.add(image_id)
        name = self._file_of[image_id]
        try:
            real = self.read_size(name)
        except (OSError, ValueError):
            return size
        if real == size:
            return size
        clipped = clipped_box(box, real)
        if clipped is None or _difference(clipped, box) > ROUNDING:
            return size
        exchanged = real == size[::-1]
        self._repair(
            'images whose width and height were exchanged' if exchanged else
            'images whose stated size was not theirs, which a box shows', name)
        self.sizes[image_id] = self.corrected[image_id] = real
        return real

    def _check_masks(self, entry: dict, image_id: int, where: str) -> None:
        """Leave out of ``segmentation`` what is no mask."""
        masks = entry.get('segmentation')
        if not masks:
            return
        kept: Any = None
        if isinstance(masks, dict):
            kept = masks if _is_run_length(masks,
                                           self.sizes[image_id]) else None
        elif isinstance(masks, list):
            if as_number(masks[0]) is not None:
                masks = [masks]
                self._repair('polygons that stood without a list', where)
            kept = list(filter(_is_polygon, masks))
        if not kept or len(kept) < len(masks):
            self._repair('masks that were none (left out)', where)
        if kept:
            entry['segmentation'] = kept
        else:
            del entry['segmentation']

    def finish(self, need_boxes: bool = False) -> None:
        """What can be said at the end of the file.

        Args:
            need_boxes (bool): Whether it must hold a box at all.

        Raises:
            ValueError: If an annotation id stands twice, no box is left, or
                boxes are no pixels.
        """
        for value in repeated_values(self._ids)[:1]:
            first, second = np.flatnonzero(
                np.asarray(self._ids) == value)[:2].tolist()
            hint = ''
            if self.repaired['missing annotation ids']:
                hint = ' (some annotations have no id, and got numbers)'
            raise ValueError(
                f"{self.file}: annotations[{second}]: key 'id' is {value}, "
                f'the same as that of annotations[{first}]; expected unique '
                f'ids{hint}')
        if not self._kept and (self._seen or need_boxes):
            reasons = f': {self.report()}' if self.dropped else ''
            raise ValueError(
                f"{self.file}: key 'annotations': expected boxes, got none "
                f'that can be used among {self._seen}{reasons}')
        if self._kept and self._farthest <= 1:
            raise ValueError(
                f"{self.file}: key 'bbox': expected pixels, got values of at "
                f'most {self._farthest:g} in {self._kept} annotations; are '
                'they fractions of the image?')


def clipped_box(box: Sequence[float], size: Size) -> list[float] | None:
    """A box (x, y, w, h) within an image, None if there is nothing of it.

    Args:
        box (Sequence[float]): In pixels.
        size (tuple[int, int]): Width and height of the image.
    """
    left, top = max(box[0], 0), max(box[1], 0)
    right = min(box[0] + box[2], size[0])
    bottom = min(box[1] + box[3], size[1])
    if right <= left or bottom <= top:
        return None
    return [left, top, right - left, bottom - top]


def _difference(one: Sequence[float], other: Sequence[float]) -> float:
    """How far the edges of two boxes are apart, in pixels."""
    return max(
        abs(one[0] - other[0]), abs(one[1] - other[1]),
        abs(one[0] + one[2] - other[0] - other[2]),
        abs(one[1] + one[3] - other[1] - other[3]))


def _is_polygon(polygon: Any) -> bool:
    """Whether it is at least three finite points x, y, x, y, ..."""
    if not isinstance(polygon, list) or len(polygon) < 6 or len(polygon) % 2:
        return False
    try:
        # Faster than each alone; NaN and infinity do not add up to a number.
        return isfinite(sum(polygon))
    except (TypeError, OverflowError):
        return False


def extent(points: Sequence[Sequence[float]]) -> list[float]:
    """The box (x, y, width, height) around points (x, y)."""
    across, down = zip(*points)
    left, top = min(across), min(down)
    return [left, top, max(across) - left, max(down) - top]


def _box_of_masks(masks: Any) -> list[float] | None:
    """The box (x, y, w, h) of polygons or a run-length encoding."""
    if isinstance(masks, dict):
        if not _is_run_length(masks, None):
            return None
        # It takes a moment to import.
        from pycocotools import mask
        if isinstance(masks['counts'], list):
            masks = mask.frPyObjects(masks, *masks['size'])
        return mask.toBbox(masks).tolist()
    if not isinstance(masks, list) or not masks:
        return None
    polygons = [masks] if _is_polygon(masks) else masks
    if not all(map(_is_polygon, polygons)):
        return None
    return extent([
        corner for polygon in polygons
        for corner in zip(polygon[::2], polygon[1::2])
    ])


def _is_run_length(mask: Mapping, size: Size | None) -> bool:
    """Whether it is a run-length encoding of a mask of the image."""
    shape, counts = mask.get('size'), mask.get('counts')
    if not isinstance(shape, list) or len(shape) != 2 or not all(
            type(side) is int and 0 < side < LIMIT for side in shape):
        return False
    if size is not None and (shape[1], shape[0]) != size:
        return False
    if isinstance(counts, str):
        counts = _decoded_runs(counts)
    return isinstance(counts, list) and all(
        type(run) is int and run >= 0
        for run in counts) and sum(counts) == shape[0] * shape[1]


def _decoded_runs(text: str) -> list[int] | None:
    """The run lengths of COCO's compressed text, None if it is none.

    Six bits a character from '0' on, of which one says that the number goes
    on; from the third on, numbers are differences to the one before the last
    (pycocotools, ``rleFrString``).
    """
    runs: list[int] = []
    number = shift = 0
    for character in text:
        code = ord(character) - 48
        if not 0 <= code < 64 or shift > 60:
            return None
        number |= (code & 31) << shift
        shift += 5
        if code & 32:
            continue
        if code & 16:
            number -= 1 << shift
        runs.append(number + (runs[-2] if len(runs) > 2 else 0))
        number = shift = 0
    return None if shift else runs


def file_sizes(folder: str | Path) -> Callable[[str], Size]:
    """What reads the size of an image below a folder.

    Args:
        folder (str | Path): The folder; of an address no size is read.
    """

    def read(name: str) -> Size:
        if '://' in str(folder):
            raise OSError(f'{folder} is an address')
        return image_size(read_regular(Path(folder) / name))

    return read


def read_coco(path: str | Path,
              images: str | Path | None = None,
              shown: str = '',
              **options: bool) -> dict:
    """Read and check a JSON of boxes.

    Args:
        images (str | Path, optional): The folder of its images, for sizes
            that are missing or wrong.
        shown (str): The file's name in messages; defaults to ``path``.
        **options (bool): ``lvis``, ``need_names``, ``need_sizes``, ``clip``
            and ``skip_unreadable`` of :class:`CocoChecker`.

    Returns:
        dict: As of :func:`check_coco`.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it cannot be repaired; see :class:`CocoChecker`.
    """
    read_size = None if images is None else file_sizes(images)
    checker = CocoChecker(shown or str(path), read_size=read_size, **options)
    return check_coco(Path(path), checker)


def check_coco(source: Any,
               checker: CocoChecker,
               need_boxes: bool = False) -> dict:
    """Check annotations, of which all that is left comes into memory.

    Args:
        source, checker, need_boxes: As of :func:`stream_coco`.

    Returns:
        dict: ``images``, ``annotations``, ``categories`` and what else the
        file holds, repaired.
    """
    content: dict[str, Any] = {key: [] for key in checker.LISTS}

    def keep(key: str, number: int | None, value: Any) -> None:
        if number is None:
            content[key] = value
        else:
            content[key].append(value)

    stream_coco(source, checker, keep, need_boxes)
    for entry in content['images'] if checker.corrected else ():
        if entry['id'] in checker.corrected:
            entry['width'], entry['height'] = checker.corrected[entry['id']]
    return content


def stream_coco(source: Any,
                checker: CocoChecker,
                keep: Callable[[str, int | None, Any], None],
                need_boxes: bool = False) -> None:
    """Check annotations, of which one entry is in memory.

    Args:
        source (Path | Any): A JSON; or what one holds, of which entries are
            changed in place.
        checker (CocoChecker): A new one, for this file. What it repaired and
            dropped is logged in one line.
        keep (Callable): Gets each entry of the checker's ``LISTS`` that is
            left, with its key and position, the annotations last; and other
            values with None for the position.
        need_boxes (bool): Whether the file must hold a box.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it cannot be repaired; see :class:`CocoChecker`.
    """
    file = JSONObject(source) if isinstance(source,
                                            Path) else JSONContent(source)
    if file.kind != 'dict':
        if isinstance(source, Path):
            # It may be no JSON at all.
            read_json(source)
        got = 'a list, as of detections' if file.kind == 'list' else file.kind
        raise ValueError(f'{checker.file}: expected an object with '
                         f'{", ".join(checker.LISTS)}; got {got}')
    kinds: dict[str, str] = {}
    counts: Counter = Counter()
    checks = dict(
        zip(CocoChecker.LISTS,
            (checker.category, checker.image, checker.annotation)))
    *first, _ = checker.LISTS
    # COCO has its categories at the end: then annotations wait for a second
    # reading.
    waiting = False
    for key, number, value in file.members():
        if number is None:
            kinds[key] = type(value).__name__
            if key == 'annotations':
                waiting = not all(counts[of] for of in first)
            elif key not in checker.LISTS:
                other = value
                keep(key, None, other)
        elif key not in checker.LISTS:
            other.append(value)
        elif key != 'annotations' or not waiting:
            counts[key] += 1
            entry = checks[key](number, value)
            if entry is not None:
                keep(key, number, entry)
    found = sorted(kinds)[:20]
    # Without any, tools write null or nothing.
    if kinds.get('annotations', 'NoneType') == 'NoneType':
        kinds['annotations'] = 'list'
    for key in checker.LISTS:
        if kinds.get(key) != 'list':
            raise ValueError(
                f'{checker.file}: key {key!r} is {kinds.get(key, "missing")}, '
                f'expected a list; the file has {found}')
        if not counts[key] and key in first:
            raise ValueError(f'{checker.file}: key {key!r} is empty, expected '
                             'at least one')
    if waiting:
        for key, number, value in file.members():
            if key == 'annotations' and number is not None:
                entry = checker.annotation(number, value)
                if entry is not None:
                    keep(key, number, entry)
    checker.finish(need_boxes)
    report = checker.report()
    if report:
        print_log(report, 'current', logging.WARNING)


class PanopticChecker(CocoChecker):
    """Checks files in COCO's panoptic layout.

    An annotation is left with those of its segments that have a box.
    """

    def __init__(self, file: str) -> None:
        super().__init__(file)
        self._known: set = set()

    def category(self, number: int, entry: Any) -> dict | None:
        kept = super().category(number, entry)
        where = f'categories[{number}]'
        self._require(entry, ('isthing', ), where)
        if entry['isthing'] not in (0, 1):
            self._refuse(where, 'isthing', entry['isthing'], '0 or 1')
        return kept

    def annotation(self, number: int, entry: Any) -> dict:
        where = f'annotations[{number}]'
        self._require(entry, ('image_id', 'segments_info'), where)
        image_id = self._own_id(entry, 'image_id', where)
        if image_id not in self.sizes or image_id in self._known:
            self._refuse(where, 'image_id', image_id,
                         "one of the ids under 'images', each once")
        self._known.add(image_id)
        segments = entry['segments_info']
        if not isinstance(segments, list):
            self._refuse(where, 'segments_info', segments, 'a list')
        ids: set = set()
        entry['segments_info'] = [
            segment
            for position, segment in enumerate(segments) if self._segment(
                segment, image_id, ids, f'{where}: segments_info[{position}]')
        ]
        return entry

    def _segment(self, segment: Any, image_id: int, ids: set,
                 where: str) -> bool:
        """Check a segment, and whether it has a box.

        Args:
            ids (set[int]): Of the segments of the image before it.
        """
        self._seen += 1
        self._require(segment, ('id', 'category_id', 'bbox'), where)
        segment_id = self._own_id(segment, 'id', where)
        if segment_id in ids:
            self._refuse(where, 'id', segment_id,
                         'one that no other segment of the image has')
        ids.add(segment_id)
        self._check_category(segment, where)
        self._check_crowd(segment, where)
        kept = self.place_box(segment, image_id, where)
        self._kept += kept
        return kept


class CaptionChecker(CocoChecker):
    """Checks files of COCO's captions, whose annotations are texts."""

    LISTS = ('images', 'annotations')

    def annotation(self, number: int, entry: Any) -> dict:
        where = f'annotations[{number}]'
        self._require(entry, ('image_id', 'caption'), where)
        image_id = self._own_id(entry, 'image_id', where)
        if image_id not in self.sizes:
            self._refuse_image(image_id, where)
        if not isinstance(entry['caption'], str):
            self._refuse(where, 'caption', entry['caption'], 'a text')
        return entry

    def finish(self, need_boxes: bool = False) -> None:
        """Nothing: there may be images without a caption."""


def read_categories(path: str | Path) -> dict[int, dict]:
    """Read and check the categories of a file alone.

    Args:
        path (str | Path): A JSON of annotations, or of nothing but a list of
            categories.

    Returns:
        dict[int, dict]: The entries by id, in the file's order.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If there is none, or one is wrong.
    """
    checker = CocoChecker(str(path))
    checked = (checker.category(number, entry)
               for number, entry in JSONObject(path).entries('categories'))
    found = {entry['id']: entry for entry in checked if entry is not None}
    if not found:
        raise ValueError(f"{path}: expected a list of categories, or one "
                         "under 'categories', got none")
    return found


def read_detections(path: str | Path,
                    images: Collection[int] | None = None,
                    categories: Collection[int] | None = None) -> list[dict]:
    """Read and check detections in COCO's result format.

    Args:
        path (str | Path): A list of ``image_id``, ``bbox`` (x, y, w, h in
            pixels), ``score`` and ``category_id``, as ``*.bbox.json``.
        images (Collection[int], optional): The ids that may be named.
        categories (Collection[int], optional): The same of the categories;
            without it no category is asked for.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If an entry lacks a key or a value is wrong.
    """
    entries = read_json(path)
    if not isinstance(entries, list):
        raise ValueError(
            f'{path}: expected a list of boxes as in COCO results, got '
            f'{type(entries).__name__}')
    checker = CocoChecker(str(path))
    known = dict(image_id=images)
    if categories is not None:
        known['category_id'] = categories
    for number, entry in enumerate(entries):
        where = f'entry {number}'
        checker._require(entry, (*known, 'bbox', 'score'), where)
        for key, ids in known.items():
            value = checker._own_id(entry, key, where)
            if ids is not None and value not in ids:
                checker._refuse(where, key, value,
                                f'one of the {len(ids)} of the annotations')
        box = entry['bbox'] = checker._numbers(entry['bbox'], where)
        if box[2] < 0 or box[3] < 0:
            checker._refuse(where, 'bbox', box,
                            'x, y and no negative width or height')
        score = as_number(entry['score'])
        if score is None:
            checker._refuse(where, 'score', entry['score'], 'a finite number')
        entry['score'] = score
    report = checker.report()
    if report:
        print_log(report, 'current', logging.WARNING)
    return entries
