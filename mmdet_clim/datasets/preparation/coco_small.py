# Licensed under the Apache License, Version 2.0.
"""A small open-vocabulary split out of COCO's val2017."""
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import cv2

from mmdet_clim.files import atomic_path
from mmdet_clim.progress import track
from mmdet_clim.seeds import seed_sequence

from ..coco_annotations import CaptionChecker, CocoChecker, check_coco
from ..image_files import read_image_file
from .coco_json import write_coco
from .counts import FileCounts
from .job import Job, file_stamp, run_job
from .ov_coco import ClassSplit, captions_of_images, tagged_images

#: What is read of COCO: its photographs, boxes and captions.
COCO_IMAGES = 'val2017'
COCO_BOXES = 'annotations/instances_val2017.json'
COCO_CAPTIONS = 'annotations/captions_val2017.json'
#: What is read of photographs that were split before.
SPLIT_IMAGES = 'images'
SPLIT_BASE = 'instances_train_base.json'
SPLIT_NOVEL = 'instances_train_novel_oracle.json'
SPLIT_VAL = 'instances_val.json'
SPLIT_CAPTIONS = 'captions_train.json'

#: What is made, below ``annotations``.
TRAIN_BASE = 'instances_train2017_base.json'
TRAIN_ALL = 'instances_train2017_all.json'
TRAIN_CAPTIONS = 'captions_train2017_tags.json'
VAL = 'instances_val2017.json'
OUTPUTS = (TRAIN_BASE, TRAIN_ALL, TRAIN_CAPTIONS, VAL)
SUMMARY = 'coco_small_summary.json'
#: Where photographs go that are made smaller.
IMAGES = 'images'
LONG_SIDE = 256
JPEG_QUALITY = 92
#: Of COCO's photographs, and of the training photographs for a development
#: set.
EVALUATION_SHARE = 0.3


@dataclass
class Photographs:
    """Photographs with what is known of them, by the id of the image.

    Args:
        folder (Path): Where the files are.
        images (dict[int, dict]): Their entries.
        val (set[int]): Those for evaluation.
        boxes (dict[int, list[dict]]): Annotations of both.
        captions (dict[int, list[str]]): At least of training photographs.
        counts (FileCounts): What was dropped and repaired.
    """

    folder: Path
    images: dict[int, dict]
    val: set[int]
    boxes: dict[int, list[dict]]
    captions: dict[int, list[str]]
    split: ClassSplit
    counts: FileCounts

    def of(self, val: bool) -> dict[int, dict]:
        """Entries of the images for evaluation, or of the others."""
        return {i: e for i, e in self.images.items() if (i in self.val) == val}


def held_out(image_ids: Iterable[int], purpose: str, seed: int) -> set[int]:
    """Images that are drawn for evaluation.

    Whether an image is does not depend on which others there are.

    Args:
        purpose (str): Draws of another purpose have nothing to do with these.
    """
    limit = EVALUATION_SHARE * 2**32
    return {
        i
        for i in image_ids
        if seed_sequence(purpose, seed, i).generate_state(1)[0] < limit
    }


def read_photographs(source: Path, seed: int) -> Photographs:
    """Read COCO's val2017, or photographs that were split before.

    Args:
        source (Path): COCO's folder, or one that holds ``images`` and
            ``instances_val.json`` beside the other three files.
        seed (int): Of the split of COCO's.

    Raises:
        FileNotFoundError: If it is neither.
        ValueError: If a file of it is wrong.
    """
    if (source / COCO_BOXES).is_file():
        names = [COCO_BOXES]
        others = COCO_BOXES, COCO_CAPTIONS, COCO_IMAGES
    elif (source / SPLIT_VAL).is_file():
        names = [SPLIT_BASE, SPLIT_NOVEL, SPLIT_VAL]
        others = SPLIT_NOVEL, SPLIT_CAPTIONS, SPLIT_IMAGES
    else:
        raise FileNotFoundError(
            f'{source}: expected COCO with {COCO_BOXES}, or photographs that '
            f'are split, with {SPLIT_VAL}; found neither')
    counts = FileCounts([], 'boxes')
    contents = {}
    for name in names:
        checker = CocoChecker(str(source / name))
        contents[name] = check_coco(source / name, checker)
        counts.add_repairs(checker)
    found = _read(source, contents, *others, counts)
    if names == [COCO_BOXES]:
        return replace(found, val=held_out(found.images, 'coco_small', seed))
    base, val = ({image['id']
                  for image in contents[name]['images']}
                 for name in (SPLIT_BASE, SPLIT_VAL))
    both = sorted(base & val)
    if both:
        raise ValueError(
            f'{source}: {len(both)} images are for training and evaluation, '
            f'in both {SPLIT_BASE} and {SPLIT_VAL}, such as id {both[0]}')
    return replace(found, val=val)


def _read(source: Path, contents: dict[str, dict], classes: str, captions: str,
          images: str, counts: FileCounts) -> Photographs:
    """All photographs of some files, as training ones.

    Args:
        source (Path): The folder of all that is named.
        contents (dict[str, dict]): Boxes, by the name of the file.
        classes, captions, images (str): The file that has all categories,
            that of the captions, and the folder of the photographs.
        counts (FileCounts): Of what is dropped and repaired.
    """
    folder = source / images
    if not folder.is_dir():
        raise FileNotFoundError(f'{folder}: no such folder; expected the '
                                'photographs there')
    split = ClassSplit.of(
        {c['id']: c
         for c in contents[classes]['categories']}, source / classes)
    entries: dict[int, dict] = {}
    boxes: dict[int, list[dict]] = {}
    for name, content in contents.items():
        entries.update((image['id'], image) for image in content['images'])
        named = {c['id']: c['name'] for c in content['categories']}
        for box in content['annotations']:
            number = box['category_id']
            if named[number] != split.names.get(number):
                raise ValueError(
                    f'{source / name}: category_id {number} is '
                    f'{named[number]!r}, expected '
                    f'{split.names.get(number)!r} as in the other files')
            if number in split.ids['all']:
                boxes.setdefault(box['image_id'], []).append(box)
            else:
                counts.dropped['boxes of other classes'] += 1
    path = source / captions
    texts = check_coco(path, CaptionChecker(str(path)))
    unknown = sorted({image['id'] for image in texts['images']} - set(entries))
    if unknown:
        raise ValueError(
            f'{path}: {len(unknown)} of its images have no entry in '
            f'{list(contents)}, such as id {unknown[0]}')
    found = captions_of_images(texts['annotations'], path, counts)
    return Photographs(folder, entries, set(), boxes, found, split, counts)


def development(photographs: Photographs, seed: int) -> Photographs:
    """The training photographs alone, a part of them for evaluation.

    To choose settings on; the photographs for evaluation are left out.
    """
    train = photographs.of(val=False)
    return replace(
        photographs,
        images=train,
        val=held_out(train, 'coco_small development', seed))


def _make_smaller(photographs: Photographs, out: Path) -> Photographs:
    """Write the photographs at 256 pixels, unless they are so small.

    Boxes follow. One that is there already is not made again.
    """
    every = photographs.images
    longest = max(max(i['width'], i['height']) for i in every.values())
    if longest <= LONG_SIDE:
        return photographs
    smaller, boxes = {}, {}
    for number, entry in track(every.items(), 'photographs'):
        size = entry['width'], entry['height']
        factor = min(1., LONG_SIDE / max(size))
        new = tuple(max(1, round(side * factor)) for side in size)
        name = f'{number:012d}.jpg'
        if not (out / IMAGES / name).exists():
            path = photographs.folder / entry['file_name']
            image = read_image_file(path)
            if image.shape[1::-1] != size:
                raise ValueError(
                    f'{path}: {image.shape[1]}x{image.shape[0]} pixels, '
                    f'expected {size[0]}x{size[1]} as in the annotations')
            image = cv2.resize(image, new, interpolation=cv2.INTER_AREA)
            with atomic_path(out / IMAGES / name) as beside:
                beside.write_bytes(
                    cv2.imencode(
                        '.jpg', image,
                        [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1].tobytes())
        smaller[number] = dict(
            entry, file_name=name, width=new[0], height=new[1])
        across, down = (a / b for a, b in zip(new, size))
        boxes[number] = [
            _scaled(box, across, down)
            for box in photographs.boxes.get(number, ())
        ]
    return replace(
        photographs, folder=out / IMAGES, images=smaller, boxes=boxes)


def _scaled(box: dict, across: float, down: float) -> dict:
    """A box in a smaller image; masks do not follow."""
    x, y, width, height = box['bbox']
    return dict(
        {
            key: box[key]
            for key in ('id', 'image_id', 'category_id', 'iscrowd')
        },
        bbox=[x * across, y * down, width * across, height * down],
        area=box['area'] * across * down)


def _write_boxes(photographs: Photographs, images: dict[int, dict], path: Path,
                 group: str) -> dict:
    """Write images with the boxes of a group of classes, and count them."""
    names = photographs.split.named(group)
    counts = FileCounts(list(names.values()), 'boxes')
    counts.totals['images'] = len(images)
    kept: list[dict] = []
    for image in images:
        for box in photographs.boxes.get(image, ()):
            if box['category_id'] in names:
                counts.add_class(names[box['category_id']])
                kept.append(dict(box, id=len(kept) + 1))
    write_coco(
        path,
        dict(
            images=list(images.values()),
            annotations=iter(kept),
            categories=photographs.split.categories))
    return counts.as_dict()


def _write_captions(photographs: Photographs, path: Path) -> dict:
    """Write the captions of training photographs, with what they name."""
    split = photographs.split
    counts = FileCounts(split.class_names, 'tags')
    entries = list(
        tagged_images(
            photographs.of(val=False).values(), photographs.captions, split,
            counts))
    if not entries:
        raise ValueError(f'{path}: expected captions of training photographs, '
                         'got none')
    write_coco(path, dict(images=entries, categories=split.categories))
    return counts.as_dict()


def _link_images(out: Path, folder: Path) -> None:
    """Have photographs that are small already found beside the files."""
    place = out / IMAGES
    if place.is_symlink() and place.resolve() == folder.resolve():
        return
    if place.exists() or place.is_symlink():
        raise FileExistsError(f'{place}: already exists, expected nothing '
                              f'or a link to {folder}; give another folder')
    place.symlink_to(folder.resolve(), target_is_directory=True)


def prepare_coco_small(source: Path,
                       out: Path,
                       seed: int = 0,
                       for_development: bool = False,
                       overwrite: bool = False) -> tuple[dict, bool]:
    """Make the split of ``configs/coco_small``.

    Args:
        source (Path): COCO's folder with val2017 and its annotations; or
            photographs that are split already, see :func:`read_photographs`.
        out (Path): Gets ``images`` (a link, where they are small already) and
            ``annotations``.
        for_development (bool): Split the training photographs once more, to
            choose settings on; the photographs for evaluation are left out.
        overwrite (bool): Replace files of other origin.

    Returns:
        tuple[dict, bool]: The summary, and False if all was made before.

    Raises:
        FileExistsError: If a file of other origin is in the way.
        FileNotFoundError: If something is missing of the source.
        ValueError: If a value in it is wrong.
    """
    source, out = Path(source), Path(out)
    names = (COCO_BOXES, COCO_CAPTIONS, SPLIT_BASE, SPLIT_NOVEL, SPLIT_VAL,
             SPLIT_CAPTIONS)
    stamps = {
        name: file_stamp(source / name)
        for name in names if (source / name).is_file()
    }
    if not stamps:
        read_photographs(source, seed)
    job = Job(
        tool='prepare_coco_small',
        folder=out / 'annotations',
        outputs=OUTPUTS,
        summary=SUMMARY,
        inputs=stamps,
        parameters=dict(seed=seed, for_development=for_development))

    def make(folder: Path) -> dict:
        found = read_photographs(source, seed)
        if for_development:
            found = development(found, seed)
        found = _make_smaller(found, out)
        if found.folder != out / IMAGES:
            _link_images(out, found.folder)
        train, val = found.of(val=False), found.of(val=True)
        files = {
            TRAIN_BASE: _write_boxes(found, train, folder / TRAIN_BASE,
                                     'base'),
            TRAIN_ALL: _write_boxes(found, train, folder / TRAIN_ALL, 'all'),
            TRAIN_CAPTIONS: _write_captions(found, folder / TRAIN_CAPTIONS),
            VAL: _write_boxes(found, val, folder / VAL, 'all'),
        }
        return dict(
            tool='prepare_coco_small',
            dropped=dict(found.counts.dropped),
            noted=dict(found.counts.noted),
            files=files)

    return run_job(job, make, overwrite)
