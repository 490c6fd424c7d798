# Licensed under the Apache License, Version 2.0.
"""OV-COCO's files out of COCO's."""
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from mmdet_clim.progress import track

from ..coco_annotations import CaptionChecker, read_categories
from ..coco_words import OTHER_PHRASES, coco_words
from ..ov_coco import OVCocoDataset
from ..text_files import clean_captions
from .captioned_images import Part, TagClasses, captioned_entries
from .coco_json import CocoFile, write_boxes, write_coco
from .counts import FileCounts
from .job import Job, file_stamp, run_job

TRAIN = 'instances_train2017.json'
VAL = 'instances_val2017.json'
CAPTIONS = 'captions_train2017.json'
TRAIN_BASE = 'instances_train2017_base.json'
CAPTIONS_TAGS = 'captions_train2017_tags.json'
SUMMARY = 'ov_coco_{}_summary.json'
#: Which images a val file holds: all of them, or Detic's, which hold an
#: object of one of the 65 classes (``OVCocoMetric``'s names).
PROTOCOLS = ('all_images', 'detic')
GROUPS = ('base', 'novel', 'all')


def val_name(group: str, protocol: str) -> str:
    """File name of the val annotations of a group of classes.

    Args:
        group (str): 'base', 'novel' or 'all'.
        protocol (str): 'all_images' or 'detic'.
    """
    suffix = '_detic' if protocol == 'detic' else ''
    return f'instances_val2017_{group}{suffix}.json'


@dataclass(frozen=True)
class ClassSplit:
    """The categories of a COCO file, and which are base and novel.

    Args:
        names (dict[int, str]): Every category of the file, by id.
        categories (list[dict]): Entries of the 65 classes, in file order.
        ids (dict[str, frozenset[int]]): Category ids of each group: 'base',
            'novel', and 'all' of both.
    """

    names: dict[int, str]
    categories: list[dict]
    ids: dict[str, frozenset[int]]

    @property
    def class_names(self) -> list[str]:
        """Names of the 65 classes."""
        return [category['name'] for category in self.categories]

    def named(self, group: str) -> dict[int, str]:
        """The names of a group, by id."""
        return {i: n for i, n in self.names.items() if i in self.ids[group]}

    @classmethod
    def of(cls, categories: Mapping[int, dict], path: Path) -> 'ClassSplit':
        """Find OV-COCO's classes in a file by their names.

        Args:
            categories (Mapping[int, dict]): Those of the file, by id.

        Raises:
            ValueError: If a class is missing.
        """
        meta = OVCocoDataset.METAINFO
        wanted = dict(base=meta['base_classes'], novel=meta['novel_classes'])
        found = {c['name']: number for number, c in categories.items()}
        missing = sorted(set(sum(wanted.values(), ())) - set(found))
        if missing:
            raise ValueError(
                f"{path}: key 'categories': {len(missing)} of the 65 classes "
                f'of OV-COCO are missing: {missing}; it has {sorted(found)}')
        ids = {
            group: frozenset(found[name] for name in names)
            for group, names in wanted.items()
        }
        ids['all'] = ids['base'] | ids['novel']
        return cls({
            i: c['name']
            for i, c in categories.items()
        }, [c for i, c in categories.items() if i in ids['all']], ids)


def prepare_boxes(source: Path, folder: Path,
                  files: Mapping[str, tuple[str, str]]) -> dict:
    """Write parts of a file of boxes.

    Args:
        source (Path): ``instances_train2017.json`` or
            ``instances_val2017.json``.
        folder (Path): Where the parts go.
        files (Mapping[str, tuple[str, str]]): By name, the group of classes
            whose boxes a part has, and the protocol of its images.

    Returns:
        dict: Counts by file name.
    """
    coco = CocoFile(source, folder)
    split = ClassSplit.of(coco.categories, source)
    group_of = {i: of for of in ('base', 'novel') for i in split.ids[of]}
    holding = None
    if any(protocol == 'detic' for _, protocol in files.values()):
        holding = {
            annotation['image_id']
            for annotation in coco.entries('annotations')
            if annotation['category_id'] in group_of
        }
    counts = {}
    for name, (group, protocol) in files.items():
        counts[name] = write_boxes(
            coco, folder / name, split.categories, split.named(group),
            lambda i: f"boxes of {group_of.get(i, 'other')} classes",
            holding if protocol == 'detic' else None)
    return counts


def captions_of_images(annotations: Iterable[dict], path: Path,
                       counts: FileCounts) -> dict[int, list[str]]:
    """The captions of each image by its id.

    Args:
        counts (FileCounts): Counts what is repaired and left out.

    Raises:
        ValueError: If there is no caption.
    """
    captions: dict[int, list[str]] = {}
    for entry in annotations:
        kept = clean_captions([entry['caption']], counts.dropped)
        if kept:
            captions.setdefault(entry['image_id'], []).extend(kept)
    if not captions:
        raise ValueError(f'{path}: expected at least one caption that is not '
                         'empty, got none')
    return captions


def tagged_images(images: Iterable[dict], captions: Mapping[int, list[str]],
                  split: ClassSplit, counts: FileCounts) -> Iterator[dict]:
    """Entries of captioned images with the classes that they name, counted.

    Args:
        images (Iterable[dict]): Those of a COCO file.
        captions (Mapping[int, list[str]]): By the id of the image.
        split (ClassSplit): The classes. The phrases of those that are not
            OV-COCO's are no tags, but keep 'hot dog' from naming a dog.
        counts (FileCounts): Of tags.
    """
    others = [n for i, n in split.names.items() if i not in split.ids['all']]
    classes = TagClasses(split.class_names,
                         [c['id'] for c in split.categories],
                         list(map(coco_words, split.class_names)),
                         (*OTHER_PHRASES, *others))

    def parts() -> Iterator[Part]:
        for image in images:
            part, texts = Part(), captions.get(image['id'])
            if texts is None:
                part.drop('images without a caption', image['file_name'])
            else:
                part.samples.append(
                    dict(image, captions=texts, tags=classes.find(texts)))
            yield part

    return captioned_entries(parts(), classes, counts)


def prepare_captions(source: Path, classes: Path, folder: Path) -> dict:
    """Write the captions per image, with the classes that they name.

    Args:
        source (Path): ``captions_train2017.json``.
        classes (Path): ``instances_train2017.json``, for its categories.
        folder (Path): Where ``captions_train2017_tags.json`` goes.

    Returns:
        dict: Counts by file name.
    """
    split = ClassSplit.of(read_categories(classes), classes)
    coco = CocoFile(source, folder, CaptionChecker(str(source)))
    counts = FileCounts(split.class_names, 'tags')
    captions = captions_of_images(coco.entries('annotations'), source, counts)
    images = tagged_images(coco.entries('images'), captions, split, counts)
    write_coco(folder / CAPTIONS_TAGS,
               dict(coco.header, images=images, categories=split.categories))
    return {CAPTIONS_TAGS: counts.as_dict()}


_TRAIN_FILES = {TRAIN_BASE: ('base', 'all_images')}
_VAL_FILES = {val_name(g, p): (g, p) for p in PROTOCOLS for g in GROUPS}
#: Of each part: the source files, what is made of them, and by what.
PARTS: dict[str, tuple[tuple[str, ...], Iterable[str], Callable]] = {
    'train':
    ((TRAIN, ), _TRAIN_FILES, partial(prepare_boxes, files=_TRAIN_FILES)),
    'val': ((VAL, ), _VAL_FILES, partial(prepare_boxes, files=_VAL_FILES)),
    'captions': ((CAPTIONS, TRAIN), (CAPTIONS_TAGS, ), prepare_captions),
}


def prepare_ov_coco(annotations: Path,
                    out: Path,
                    parts: tuple[str, ...] = tuple(PARTS),
                    overwrite: bool = False) -> tuple[dict, bool]:
    """Make OV-COCO's annotation files.

    Args:
        annotations (Path): COCO's folder of that name.
        out (Path): Where the files go, each part with
            ``ov_coco_{part}_summary.json``.
        parts (tuple[str]): Which ones: 'train', 'val', 'captions'.
        overwrite (bool): Replace files of other origin.

    Returns:
        tuple[dict, bool]: The summary, and False if all was made before.

    Raises:
        FileExistsError: If a file of other origin is in the way.
        FileNotFoundError: If one of COCO's files is missing.
        ValueError: If a value in them is wrong, they contradict themselves,
            or lack a class.
    """
    annotations, out = Path(annotations), Path(out)
    stamps = {
        name: file_stamp(annotations / name, "COCO 2017's annotations")
        for part in parts
        for name in PARTS[part][0]
    }
    files: dict = {}
    made = False
    for part in track(parts, 'OV-COCO'):
        sources, outputs, prepare = PARTS[part]
        paths = [annotations / name for name in sources]
        job = Job(
            tool='prepare_ov_coco',
            folder=out,
            outputs=tuple(outputs),
            summary=SUMMARY.format(part),
            inputs={name: stamps[name]
                    for name in sources},
            parameters=dict(part=part))
        make = partial(prepare, *paths)
        summary, made_now = run_job(
            job, lambda folder, make=make: dict(files=make(folder)), overwrite)
        files.update(summary['files'])
        made = made or made_now
    meta = OVCocoDataset.METAINFO
    return dict(
        tool='prepare_ov_coco',
        base_classes=len(meta['base_classes']),
        novel_classes=len(meta['novel_classes']),
        files=files), made
