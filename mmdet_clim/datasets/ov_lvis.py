# Licensed under the Apache License, Version 2.0.
"""OV-LVIS: frequent and common classes of LVIS are base, rare ones novel."""
from collections import Counter
from functools import lru_cache
from pathlib import Path

from mmengine.fileio import get_local_path

from mmdet_clim.registry import DATASETS

from .coco_annotations import read_categories
from .ov_coco import OVCocoDataset
from .packed_boxes import PackedBoxes
from .palette import class_palette
from .vocabulary import ClassesFromFile

FREQUENCIES = ('r', 'c', 'f')
#: LVIS v1's classes, and how many of them are base and novel (REFERENCE.md,
#: section 7).
LVIS_V1_CLASSES = 1203
LVIS_V1_SPLIT = (866, 337)


def class_name(category_name: str) -> str:
    """A category's name as the class name that goes into a prompt.

    Example:
        >>> class_name('bat_(animal)')
        'bat (animal)'
    """
    return category_name.replace('_', ' ')


def check_split(base: int, novel: int, where: str) -> None:
    """Raise if 1203 classes are not those of LVIS v1.

    Args:
        base, novel (int): Classes of each kind.
    """
    if base + novel == LVIS_V1_CLASSES and (base, novel) != LVIS_V1_SPLIT:
        raise ValueError(
            f'{where}: {LVIS_V1_CLASSES} classes are LVIS v1, expected '
            f'{LVIS_V1_SPLIT} base and novel classes, got {(base, novel)}')


@DATASETS.register_module()
class OVLVISDataset(ClassesFromFile, OVCocoDataset):
    """LVIS annotations, rare classes novel, common and frequent ones base.

    The classes come from a file, in the order of their category ids, so that
    LVIS v1 and smaller data sets of its format work alike. Their names are
    those of the file with blanks for underscores: they go into prompts. The
    metainfo holds ``classes``, ``base_classes``, ``novel_classes``,
    ``image_counts`` (training images that show each class), ``raw_names``
    (the names with their underscores) and ``palette``.
    A file of 1203 classes is taken for LVIS v1, whose 866 base and 337 novel
    classes are then checked.

    Images are found by the last two parts of ``coco_url``
    (``train2017/000000000009.jpg``) below ``data_prefix['img']``: LVIS takes
    its images from two folders of COCO. What :class:`OVCocoDataset` says of
    boxes, absent classes and unreadable images holds here too.

    Args:
        category_file (str, optional): JSON with ``categories``, or a list of
            them, each with ``id``, ``name``, ``frequency`` ('r', 'c', 'f')
            and ``image_count``. Defaults to ``ann_file``; a small file saves
            reading LVIS's large ones for the classes alone. Below
            ``data_root`` unless it is absolute.
        ``*args``, ``**kwargs``: Of :class:`OVCocoDataset`.

    Raises:
        ValueError: If the categories lack a key, a name stands twice, or
            the split of 1203 classes is not LVIS v1's.
    """

    METAINFO: dict = {}
    LVIS = True

    def __init__(self,
                 *args,
                 ann_file: str = '',
                 category_file: str | None = None,
                 data_root: str | None = None,
                 metainfo: dict | None = None,
                 **kwargs) -> None:
        source = Path(category_file or ann_file)
        if data_root and not source.is_absolute():
            source = Path(data_root) / source
        super().__init__(
            *args,
            ann_file=ann_file,
            data_root=data_root,
            metainfo=dict(self.read_metainfo(source), **(metainfo or {})),
            **kwargs)

    @classmethod
    def read_metainfo(cls, ann_file: str | Path) -> dict:
        """The classes of a file; see :class:`ClassesFromFile`."""
        with get_local_path(str(ann_file)) as path:
            stamp = Path(path).stat().st_mtime_ns
            raw, frequencies, counts = zip(*_read_categories(path, stamp))
        names = tuple(map(class_name, raw))
        base = tuple(n for n, f in zip(names, frequencies) if f != 'r')
        novel = tuple(n for n, f in zip(names, frequencies) if f == 'r')
        check_split(len(base), len(novel), str(ann_file))
        return dict(
            classes=names,
            base_classes=base,
            novel_classes=novel,
            image_counts=counts,
            raw_names=raw,
            palette=class_palette(len(names)))

    def _map_classes(self, packed: PackedBoxes) -> None:
        """Set ``cat_ids`` and ``cat2label`` by the names for prompts."""
        for category in packed.categories:
            category['name'] = class_name(category['name'])
        super()._map_classes(packed)


@lru_cache(maxsize=8)
def _read_categories(path: str, stamp: int) -> list[tuple[str, str, int]]:
    """Raw name, frequency and image count of each class, by its id.

    Several heads, objectives and datasets of one model ask for the same file;
    ``stamp`` tells a changed file from the one that was read.
    """
    found = read_categories(path)
    categories = [found[number] for number in sorted(found)]
    for category in categories:
        missing = {'frequency', 'image_count'} - set(category)
        if missing or category['frequency'] not in FREQUENCIES \
                or type(category['image_count']) is not int:
            raise ValueError(
                f"{path}: category {category['name']!r}: expected "
                "'id', 'name', 'image_count' (an integer) and 'frequency' "
                f'out of {FREQUENCIES}, got {category}')
    names = Counter(class_name(c['name']) for c in categories)
    twice: list[str] = [n for n, k in names.items() if k > 1]
    if twice:
        raise ValueError(f"{path}: key 'categories': expected each name once, "
                         f'got {twice} twice')
    return [(c['name'], c['frequency'], c['image_count']) for c in categories]
