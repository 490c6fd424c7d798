# Licensed under the Apache License, Version 2.0.
"""Drawing of all images of a split, in parts."""
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
from pycocotools import mask as coco_mask

from mmdet_clim.checks import check_choice, check_range

from .captions import write_captions
from .classes import SceneClass, coco_classes, lvis_classes
from .noise import CaptionNoise, write_partial_captions
from .scenes import BOXED, CAPTIONED, SceneStyle, draw_scene

#: Room for the image ids of one split: ids differ between the splits.
MAX_IMAGES = 1_000_000
#: Images of a part.
CHUNK = 4


@dataclass(frozen=True)
class Split:
    """One image folder.

    Args:
        number (int): Distinguishes its random numbers and its image ids.
        style (SceneStyle): How full and how large its scenes are.
        most_captions (int): A scene has from one to so many.
    """

    folder: str
    number: int
    style: SceneStyle
    most_captions: int

    def image_id(self, index: int) -> int:
        """COCO image id of the image at a position of the split."""
        return self.number * MAX_IMAGES + index + 1


TRAIN = Split('train2017', 0, BOXED, 5)
VAL = Split('val2017', 1, BOXED, 5)
# an image from the web comes with one text, seldom with two
WEB = Split('captioned2017', 2, CAPTIONED, 2)


@dataclass(frozen=True)
class DatasetParameters:
    """All that decides the content of a data set.

    Args:
        train (int): Scenes with boxes and captions for training.
        val (int): Scenes with boxes for evaluation.
        captioned (int): Further training scenes with captions only.
        seed (int): Not negative; the same seed gives the same files.
        size (int): Long side of the images in pixels, from 64 to 2048.
        vocabulary (str): 'coco' or 'lvis'.
        caption_noise (CaptionNoise, optional): Of the captioned scenes; None
            for none.

    Raises:
        ValueError: If a value is out of its range, or there are not the two
            captioned scenes that noise takes.
    """

    train: int
    val: int
    captioned: int
    seed: int
    size: int = 256
    vocabulary: str = 'coco'
    caption_noise: CaptionNoise | None = None

    def __post_init__(self):
        check_range(1, MAX_IMAGES - 1, train=self.train, val=self.val)
        check_range(0, MAX_IMAGES - 1, captioned=self.captioned)
        check_range(0, seed=self.seed)
        check_range(64, 2048, size=self.size)
        check_choice(('coco', 'lvis'), vocabulary=self.vocabulary)
        if self.caption_noise and self.captioned < 2:
            raise ValueError('captioned: expected at least 2 with '
                             f'caption_noise, got {self.captioned}')

    def facts(self) -> dict:
        """The values by their names; without noise nothing is said of it."""
        values = asdict(self)
        if self.caption_noise is None:
            del values['caption_noise']
        return values

    @property
    def counts(self) -> dict[Split, int]:
        """How many images each split has that has any."""
        numbers = self.train, self.val, self.captioned
        return {of: n for of, n in zip((TRAIN, VAL, WEB), numbers) if n}


@dataclass(frozen=True)
class DrawnSplit:
    """What images of a split show, all of them or a part.

    Args:
        folder (str): That of the split.
        images (list[dict]): COCO's image entries, with ``captions``, and
            with ``partial_captions`` where there is to be noise.
        annotations (list[dict]): COCO's annotations, without ids.
    """

    folder: str
    images: list[dict]
    annotations: list[dict]

    @property
    def split(self) -> Split:
        """Which one it is."""
        return next(s for s in (TRAIN, VAL, WEB) if s.folder == self.folder)


def vocabulary_classes(vocabulary: str) -> list[SceneClass]:
    """The classes of a vocabulary, also those that no glyph shows.

    Args:
        vocabulary (str): 'coco' or 'lvis'.
    """
    return coco_classes() if vocabulary == 'coco' else lvis_classes()


@lru_cache(maxsize=None)
def _drawable(vocabulary: str,
              split: Split) -> tuple[list[SceneClass], np.ndarray]:
    """Classes with a glyph, and the chance of each in a split."""
    classes = [cls for cls in vocabulary_classes(vocabulary) if cls.glyphs]
    weights = np.array([cls.weight for cls in classes])
    if vocabulary == 'lvis' and split != TRAIN:
        # rare classes must be met in evaluation, and captions from the web
        # name more of the tail than boxes do
        weights = np.sqrt(weights)
    return classes, weights / weights.sum()


def encode_mask(mask: np.ndarray) -> dict:
    """COCO's compressed run lengths of a mask.

    Args:
        mask (np.ndarray): ``(H, W)`` bool.
    """
    rle = coco_mask.encode(np.asfortranarray(mask, np.uint8))
    return dict(size=rle['size'], counts=rle['counts'].decode('ascii'))


def trace_mask(mask: np.ndarray) -> list[list[int]]:
    """Polygons along the outer pixel edges of a mask; holes are filled.

    Steps of up to half a pixel are straightened.

    Args:
        mask (np.ndarray): ``(H, W)`` bool.

    Returns:
        list[list[int]]: ``[x0, y0, x1, y1, ...]`` per connected part, in
        pixels; a pixel covers from its index to its index plus one.
    """
    # On the doubled grid the border pixels of an edge lie on either side of
    # it, even inside and odd outside; rounding up gives the edge itself.
    doubled: np.ndarray = mask.astype(np.uint8)
    doubled = doubled.repeat(2, axis=0).repeat(2, axis=1)
    contours, _ = cv2.findContours(doubled, cv2.RETR_EXTERNAL,
                                   cv2.CHAIN_APPROX_SIMPLE)
    polygons = []
    for contour in contours:
        shorter = cv2.approxPolyDP(contour, 1.0, closed=True)
        # nothing is left of a pixel or two
        kept = shorter if len(shorter) > 2 else contour
        polygons.append(((kept + 1) // 2).reshape(-1).tolist())
    return polygons


def _make_image(parameters: DatasetParameters, folder: Path, split: Split,
                index: int) -> tuple[dict, list[dict]]:
    """Draw and write one image; its random numbers are its own.

    Returns:
        tuple[dict, list[dict]]: COCO's image entry with ``captions``, and
        the annotations without ids.
    """
    rng = np.random.default_rng([parameters.seed, split.number, index])
    classes, weights = _drawable(parameters.vocabulary, split)
    scene = draw_scene(rng, classes, weights, split.style, parameters.size)
    captions = write_captions(rng, scene, split.most_captions)
    image_id = split.image_id(index)
    name = f'{image_id:012d}.jpg'
    _, jpeg = cv2.imencode('.jpg', scene.image, [cv2.IMWRITE_JPEG_QUALITY, 92])
    (folder / split.folder / name).write_bytes(jpeg.tobytes())
    height, width = scene.image.shape[:2]
    image = dict(
        id=image_id,
        file_name=name,
        height=height,
        width=width,
        captions=captions)
    if parameters.caption_noise and split == WEB:
        # a last number of its own: the image is the same without noise
        rng = np.random.default_rng([parameters.seed, split.number, index, 2])
        image['partial_captions'] = write_partial_captions(
            rng, scene, split.most_captions)
    # LVIS knows polygons only; COCO's run lengths are exact
    segment = trace_mask if parameters.vocabulary == 'lvis' else encode_mask
    annotations = [
        dict(
            image_id=image_id,
            category_id=obj.cls.id,
            bbox=list(obj.box),
            area=obj.area,
            iscrowd=0,
            segmentation=segment(obj.mask)) for obj in scene.objects
    ]
    return image, annotations


#: Which images of which split: the first one, and the one behind the last.
PartOfSplit = tuple[Split, int, int]


def split_parts(counts: Mapping[Split, int]) -> Iterator[PartOfSplit]:
    """The parts that the images of some splits are drawn in.

    Args:
        counts (Mapping[Split, int]): How many images each has.
    """
    for split, count in counts.items():
        for first in range(0, count, CHUNK):
            yield split, first, min(first + CHUNK, count)


def draw_part(parameters: DatasetParameters, folder: Path,
              part: PartOfSplit) -> DrawnSplit:
    """Draw some images of a split.

    Args:
        folder (Path): It has the split's folder.
    """
    split, first, end = part
    images, annotations = zip(*(_make_image(parameters, folder, split, index)
                                for index in range(first, end)))
    return DrawnSplit(split.folder, list(images), sum(annotations, []))
