# Licensed under the Apache License, Version 2.0.
"""A small open-vocabulary split out of COCO's val2017."""
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Dict, Iterable, List, Set, Tuple

import cv2

from mmdet_clim.files import atomic_path
from mmdet_clim.progress import track
from mmdet_clim.seeds import seed_sequence

from ..coco_words import OTHER_PHRASES, coco_words
from ..image_files import read_image_file
from ..tags import TagFinder
from .coco_json import CocoFile, write_coco
from .counts import FileCounts
from .job import Job, file_stamp, run_job
from .ov_coco import ClassSplit, read_captions

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
        train, val (dict[int, dict]): Entries of the images.
        boxes (dict[int, list[dict]]): Annotations of both.
        captions (dict[int, list[str]]): At least of training photographs.
        split (ClassSplit): The classes.
        dropped, noted (dict): What was dropped and repaired, with counts.
    """

    folder: Path
    train: Dict[int, dict]
    val: Dict[int, dict]
    boxes: Dict[int, List[dict]]
    captions: Dict[int, List[str]]
    split: ClassSplit
    dropped: Dict[str, int]
    noted: Dict[str, int]


def held_out(image_ids: Iterable[int], purpose: str, seed: int) -> Set[int]:
    """Images that are drawn for evaluation.

    Whether an image is does not depend on which others there are.

    Args:
        image_ids (Iterable[int]): All of them.
        purpose (str): Draws of another purpose have nothing to do with these.
        seed (int): Of the draw.
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
        coco = CocoFile(source / COCO_BOXES,
                        ('images', 'annotations', 'categories'))
        found = _read([coco], source / COCO_CAPTIONS, source / COCO_IMAGES,
                      ClassSplit.read(coco))
        chosen = held_out(found.train, 'coco_small', seed)
        return _move(found, chosen)
    if (source / SPLIT_VAL).is_file():
        keys = ('images', 'annotations', 'categories')
        novel = CocoFile(source / SPLIT_NOVEL, keys)
        val = CocoFile(source / SPLIT_VAL, keys)
        files = [CocoFile(source / SPLIT_BASE, keys), novel, val]
        both = sorted(set(files[0].image_ids()) & set(val.image_ids()))
        if both:
            raise ValueError(
                f'{source}: {len(both)} images are for training and '
                f'evaluation, in both {SPLIT_BASE} and {SPLIT_VAL}, such as '
                f'id {both[0]}')
        found = _read(files, source / SPLIT_CAPTIONS, source / SPLIT_IMAGES,
                      ClassSplit.read(novel))
        return _move(found, val.image_ids())
    raise FileNotFoundError(
        f'{source}: expected COCO with {COCO_BOXES}, or photographs that are '
        f'split, with {SPLIT_VAL}; found neither')


def _read(files: List[CocoFile], captions: Path, folder: Path,
          split: ClassSplit) -> Photographs:
    """All photographs of some files, as training ones."""
    if not folder.is_dir():
        raise FileNotFoundError(f'{folder}: no such folder; expected the '
                                'photographs there')
    images: Dict[int, dict] = {}
    boxes: Dict[int, List[dict]] = {}
    counts = FileCounts([], 'boxes')
    for file in files:
        images.update((image['id'], image) for image in file.images())
        named = {c['id']: c['name'] for c in file.categories().values()}
        for box in file.boxes():
            if named[box['category_id']] != split.names.get(
                    box['category_id']):
                raise ValueError(
                    f'{file.path}: category_id {box["category_id"]} is '
                    f'{named[box["category_id"]]!r}, expected '
                    f'{split.names.get(box["category_id"])!r} as in the '
                    'other files')
            if box['category_id'] in split.ids['all']:
                boxes.setdefault(box['image_id'], []).append(box)
            else:
                counts.dropped['boxes of other classes'] += 1
        counts.dropped.update(file.dropped)
        counts.noted.update({
            f'{what}: repaired': n
            for what, n in file.repaired.items()
        })
    coco = CocoFile(captions, ('images', 'annotations'))
    unknown = sorted(set(coco.image_ids()) - set(images))
    if unknown:
        raise ValueError(
            f'{captions}: {len(unknown)} of its images have no entry in '
            f'{[str(file.path) for file in files]}, such as id {unknown[0]}')
    texts = read_captions(coco, coco.image_ids(), counts)
    return Photographs(folder, images, {}, boxes, texts, split,
                       dict(counts.dropped), dict(counts.noted))


def _move(photographs: Photographs, val: Iterable[int]) -> Photographs:
    """The same with some of the training photographs for evaluation."""
    val = set(val)
    train = photographs.train
    return replace(
        photographs,
        train={
            i: image
            for i, image in train.items() if i not in val
        },
        val={
            i: image
            for i, image in train.items() if i in val
        })


def development(photographs: Photographs, seed: int) -> Photographs:
    """The training photographs alone, a part of them for evaluation.

    To choose settings on; the photographs for evaluation are left out.

    Args:
        photographs (Photographs): All of them.
        seed (int): Of the draw.
    """
    chosen = held_out(photographs.train, 'coco_small development', seed)
    return _move(replace(photographs, val={}), chosen)


def _make_smaller(photographs: Photographs, out: Path) -> Photographs:
    """Write the photographs at 256 pixels, unless they are so small.

    Boxes follow. One that is there already is not made again.
    """
    every = {**photographs.train, **photographs.val}
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
        photographs,
        folder=out / IMAGES,
        train={i: smaller[i]
               for i in photographs.train},
        val={i: smaller[i]
             for i in photographs.val},
        boxes=boxes)


def _scaled(box: dict, across: float, down: float) -> dict:
    """A box in a smaller image; masks do not follow."""
    x, y, width, height = box['bbox']
    kept = {
        key: box[key]
        for key in ('id', 'image_id', 'category_id', 'iscrowd') if key in box
    }
    return dict(
        kept,
        bbox=[x * across, y * down, width * across, height * down],
        area=box['area'] * across * down)


def _write_boxes(photographs: Photographs, images: Dict[int, dict], path: Path,
                 group: str) -> Dict:
    """Write images with the boxes of a group of classes, and count them."""
    split = photographs.split
    counts = FileCounts(
        [split.names[i] for i in split.names if i in split.ids[group]],
        'boxes')
    counts.totals['images'] = len(images)
    kept: List[Dict] = []
    for image in images:
        for box in photographs.boxes.get(image, ()):
            if box['category_id'] in split.ids[group]:
                counts.add_class(split.names[box['category_id']])
                kept.append(dict(box, id=len(kept) + 1))
    write_coco(
        path,
        dict(
            images=list(images.values()),
            annotations=iter(kept),
            categories=split.categories))
    return counts.as_dict()


def _write_captions(photographs: Photographs, path: Path) -> Dict:
    """Write the captions of training photographs, with what they name."""
    split = photographs.split
    counts = FileCounts(split.class_names, 'tags')
    words = {i: coco_words(split.names[i]) for i in split.ids['all']}
    others = [n for i, n in split.names.items() if i not in split.ids['all']]
    find_tags = TagFinder(words, (*OTHER_PHRASES, *others))
    entries = []
    for number, image in photographs.train.items():
        texts = photographs.captions.get(number)
        if texts is None:
            counts.dropped['images without a caption'] += 1
            continue
        tags = find_tags(texts)
        for tag in tags:
            counts.add_class(split.names[tag])
        entries.append(
            dict(
                id=number,
                file_name=image['file_name'],
                height=image['height'],
                width=image['width'],
                captions=texts,
                pos_category_ids=tags))
    if not entries:
        raise ValueError('no training photograph has a caption')
    counts.totals['images'] = len(entries)
    write_coco(path, dict(images=entries, categories=split.categories))
    return counts.as_dict()


def _link_images(out: Path, folder: Path) -> None:
    """Have photographs that are small already found beside the files."""
    place = out / IMAGES
    if place.is_symlink() and place.resolve() == folder.resolve():
        return
    if place.exists() or place.is_symlink():
        raise FileExistsError(f'{place}: is there already, expected nothing '
                              f'or a link to {folder}; give another folder')
    place.symlink_to(folder.resolve(), target_is_directory=True)


def prepare_coco_small(source: Path,
                       out: Path,
                       seed: int = 0,
                       for_development: bool = False,
                       overwrite: bool = False) -> Tuple[Dict, bool]:
    """Make the split of ``configs/coco_small``.

    Args:
        source (Path): COCO's folder with val2017 and its annotations; or
            photographs that are split already, see :func:`read_photographs`.
        out (Path): Gets ``images`` (a link, where they are small already) and
            ``annotations``.
        seed (int): Of the split.
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

    def make(folder: Path) -> Dict:
        found = read_photographs(source, seed)
        if for_development:
            found = development(found, seed)
        found = _make_smaller(found, out)
        if found.folder != out / IMAGES:
            _link_images(out, found.folder)
        train, val = found.train, found.val
        files = {
            TRAIN_BASE: _write_boxes(found, train, folder / TRAIN_BASE,
                                     'base'),
            TRAIN_ALL: _write_boxes(found, train, folder / TRAIN_ALL, 'all'),
            TRAIN_CAPTIONS: _write_captions(found, folder / TRAIN_CAPTIONS),
            VAL: _write_boxes(found, val, folder / VAL, 'all'),
        }
        return dict(
            tool='prepare_coco_small',
            dropped=found.dropped,
            noted=found.noted,
            files=files)

    return run_job(job, make, overwrite)
