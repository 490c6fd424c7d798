# Licensed under the Apache License, Version 2.0.
"""What is wrong with detections: the place, the class, or both."""
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from mmdet.evaluation import bbox_overlaps

#: In the order of :func:`error_types`'s docstring.
ERROR_TYPES = ('correct', 'duplicate', 'location', 'class',
               'class and location', 'background')
#: Below this IoU a detection has nothing to do with an object.
BACKGROUND_IOU = 0.1


@dataclass
class ClassErrors:
    """The detections of one class, best score first.

    Args:
        num_objects (int): Objects of the class.
        types (list[str]): Of each detection, out of ``ERROR_TYPES``.
    """

    num_objects: int
    types: list[str] = field(default_factory=list)

    def first(self) -> Counter:
        """Types of as many detections as there are objects."""
        return Counter(self.types[:self.num_objects])

    def average_precision(self, without: Sequence[str] = ()) -> float:
        """AP at this IoU, COCO's 101 recall points.

        Args:
            without (Sequence[str]): Types of detections that are left out:
                what AP would be if nobody made these errors.

        Returns:
            float: In [0, 1]; NaN for a class without objects.
        """
        if not self.num_objects:
            return float('nan')
        hits = np.array(
            [t == 'correct' for t in self.types if t not in without],
            dtype=float)
        recall = hits.cumsum() / self.num_objects
        precision = hits.cumsum() / np.arange(1, len(hits) + 1)
        # The best precision at this recall or a higher one.
        precision = np.maximum.accumulate(precision[::-1])[::-1]
        places = np.searchsorted(recall, np.linspace(0, 1, 101))
        return float(np.append(precision, 0)[places].mean())


def error_types(objects: Sequence[Mapping],
                detections: Sequence[Mapping],
                iou: float = 0.5) -> dict[int, ClassErrors]:
    """Name what each detection is, after TIDE (arXiv 2008.08115).

    Detections of a class take, best score first, the free object of their
    class that they overlap most. The others are a ``duplicate`` (of a taken
    object), or have the right class at the wrong ``location`` (IoU of 0.1 or
    more), or the place of an object of another ``class``, or ``class and
    location`` wrong, or are ``background``: the first that is true.

    Args:
        objects (Sequence[dict]): COCO annotations: ``image_id``,
            ``category_id``, ``bbox`` (xywh pixels). Crowds do not count.
        detections (Sequence[dict]): COCO results: the same and ``score``.
        iou (float): Least overlap of a correct detection.

    Returns:
        dict[int, ClassErrors]: By category id, of classes with objects or
        detections.
    """
    found: dict[int, ClassErrors] = defaultdict(lambda: ClassErrors(0))
    for entry in objects:
        if not entry.get('iscrowd', 0):
            found[entry['category_id']].num_objects += 1
    for detection, kind in _typed(objects, detections, iou):
        found[detection['category_id']].types.append(kind)
    return dict(found)


def first_detections(objects: Sequence[Mapping],
                     detections: Sequence[Mapping],
                     iou: float = 0.5) -> list[tuple[Mapping, bool]]:
    """As many best detections of each class as it has objects.

    At this point of each class's curve precision and recall are equal, so
    that detectors whose scores mean different things can be compared, and
    none can have more boxes than another.

    Args:
        objects (Sequence[dict]): As in :func:`error_types`.
        detections (Sequence[dict]): As there.
        iou (float): As there.

    Returns:
        list[tuple[dict, bool]]: The detections, best score first, and whether
        each is correct.
    """
    room = Counter(entry['category_id'] for entry in objects
                   if not entry.get('iscrowd', 0))
    first = []
    for detection in sorted(detections, key=lambda d: -d['score']):
        if room[detection['category_id']] > 0:
            room[detection['category_id']] -= 1
            first.append(detection)
    return [(detection, kind == 'correct')
            for detection, kind in _typed(objects, first, iou)]


def confusions(objects: Sequence[Mapping],
               detections: Sequence[Mapping],
               iou: float = 0.5) -> Counter:
    """What objects are taken for.

    Of as many best detections of each class as it has objects, those at the
    place of an object of another class; each with the class of the object
    that it overlaps most.

    Args:
        objects (Sequence[dict]): As in :func:`error_types`.
        detections (Sequence[dict]): As there.
        iou (float): As there.

    Returns:
        Counter: (category id of the object, that of the detection) to count.
    """
    of_image: dict[int, list[Mapping]] = defaultdict(list)
    room: Counter = Counter()
    for entry in objects:
        if not entry.get('iscrowd', 0):
            of_image[entry['image_id']].append(entry)
            room[entry['category_id']] += 1
    pairs: Counter = Counter()
    for detection, kind in _typed(objects, detections, iou):
        if room[detection['category_id']] <= 0:
            continue
        room[detection['category_id']] -= 1
        if kind == 'class':
            here = of_image[detection['image_id']]
            overlaps = bbox_overlaps(_corners([detection]), _corners(here))[0]
            taken = here[int(overlaps.argmax())]['category_id']
            pairs[taken, detection['category_id']] += 1
    return pairs


def _typed(objects: Sequence[Mapping], detections: Sequence[Mapping],
           iou: float) -> Iterator[tuple[Mapping, str]]:
    """Each detection, best score first, and its type."""
    of_image: dict[int, list[Mapping]] = defaultdict(list)
    for entry in objects:
        if not entry.get('iscrowd', 0):
            of_image[entry['image_id']].append(entry)
    tables = {
        image:
        (_corners(entries), np.array([e['category_id'] for e in entries]))
        for image, entries in of_image.items()
    }
    taken: set = set()
    for detection in sorted(detections, key=lambda d: -d['score']):
        table = tables.get(detection['image_id'])
        kind = 'background'
        if table is not None:
            kind = _type_of(detection, table, taken, iou)
        yield detection, kind


def _corners(entries: Sequence[Mapping]) -> np.ndarray:
    """Boxes (n, 4) as xyxy."""
    boxes = np.array([e['bbox'] for e in entries], dtype=np.float32)
    boxes[:, 2:] += boxes[:, :2]
    return boxes


def _type_of(detection: Mapping, table: tuple[np.ndarray, np.ndarray],
             taken: set, iou: float) -> str:
    """Type of one detection; a correct one takes its object."""
    boxes, labels = table
    overlaps = bbox_overlaps(_corners([detection]), boxes)[0]
    same = labels == detection['category_id']
    for number in np.argsort(-overlaps, kind='stable'):
        place = (detection['image_id'], int(number))
        if same[number] and overlaps[number] >= iou and place not in taken:
            taken.add(place)
            return 'correct'
    own = overlaps[same].max(initial=0)
    other = overlaps[~same].max(initial=0)
    if own >= iou:
        return 'duplicate'
    if own >= BACKGROUND_IOU:
        return 'location'
    if other >= iou:
        return 'class'
    return 'class and location' if other >= BACKGROUND_IOU else 'background'
