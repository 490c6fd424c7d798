# Licensed under the Apache License, Version 2.0.
"""COCO panoptic annotations as named regions, things and stuff."""
import re
from collections.abc import Sequence
from pathlib import Path

from mmdet.datasets import CocoPanopticDataset
from mmdet.datasets.api_wrappers import COCOPanoptic

from mmdet_clim.registry import DATASETS

from .coco_annotations import PanopticChecker, check_coco
from .replacing import ReplacesUnreadable

# COCO's own marks of merged and remaining classes; no one writes captions
# with them.
_MARKS = re.compile(r'(-(other|merged|stuff))+$')


def spoken_name(name: str) -> str:
    """A COCO panoptic class name as one would say it.

    Args:
        name (str): Such as 'wall-other-merged', 'wall-brick', 'person'.

    Returns:
        str: Such as 'wall', 'wall brick', 'person'.
    """
    return _MARKS.sub('', name).replace('-', ' ')


class _SpokenPanoptic(COCOPanoptic):
    """The annotations with spoken names of their categories.

    mmdet numbers the classes by the ids that it is given for their names. A
    name that the file lacks has the id None here, so that those after it keep
    their numbers, and the file may list its categories in any order.
    """

    def __init__(self, annotation_file: str) -> None:
        super().__init__()
        self.dataset = check_coco(
            Path(annotation_file), PanopticChecker(annotation_file))
        self.createIndex()
        self.img_ann_map, self.cat_img_map = self.imgToAnns, self.catToImgs

    def get_cat_ids(
        self,
        cat_names: Sequence[str] = (),
        sup_names: Sequence[str] = (),
        cat_ids: Sequence[int] = ()
    ) -> list[int | None]:
        ids = {category['name']: i for i, category in self.cats.items()}
        return [ids.get(name) for name in cat_names]

    def createIndex(self) -> None:
        for category in self.dataset['categories']:
            category['name'] = spoken_name(category['name'])
        super().createIndex()


@DATASETS.register_module()
class CocoPanopticRegionDataset(ReplacesUnreadable, CocoPanopticDataset):
    """COCO panoptic images with class names that a text encoder knows.

    ``METAINFO`` holds ``classes`` (133), ``thing_classes`` (80),
    ``stuff_classes`` (53) and ``palette``; ``tree-merged`` is ``tree`` and so
    on. The regions come from ``LoadPanopticRegions``. The file is checked, as
    those of boxes are (:mod:`mmdet_clim.datasets.coco_annotations`).

    Args:
        ``*args``, ``**kwargs``: Of
            :class:`mmdet.datasets.CocoPanopticDataset`, and
            ``report_every``.

    Raises:
        ValueError: If the file cannot be repaired.
    """

    COCOAPI = _SpokenPanoptic
    METAINFO = dict(
        CocoPanopticDataset.METAINFO, **{
            key: tuple(map(spoken_name, CocoPanopticDataset.METAINFO[key]))
            for key in ('classes', 'thing_classes', 'stuff_classes')
        })
