# Licensed under the Apache License, Version 2.0.
"""mmdet's evaluation of COCO on a file that was checked."""
import io
from collections.abc import Sequence
from contextlib import redirect_stdout

from mmdet.datasets.api_wrappers import COCO
from mmdet.evaluation import CocoMetric
from mmengine.fileio import get_local_path

from mmdet_clim.datasets.coco_annotations import read_coco
from mmdet_clim.registry import METRICS

from .unreadable import without_unreadable


@METRICS.register_module()
class CheckedCocoMetric(CocoMetric):
    """:class:`mmdet.CocoMetric` with an annotation file that is checked.

    The file is repaired as that of a dataset is, boxes apart that reach out
    of their image: COCO's evaluation takes them as they are. Annotations are
    numbered from 1, as that takes an id of 0 for "no match". The detections
    of an image that could not be read do not count. Labels are the classes of
    the dataset's metainfo by their names, whatever order the file has them
    in and whether it has them all; mmdet takes the file's order.

    Args:
        ann_file (str, optional): As in mmdet.
        sort_categories (bool): As in mmdet.
        backend_args (dict, optional): File backend of ``ann_file``.
        **kwargs: Of :class:`mmdet.CocoMetric`.

    Raises:
        ValueError: If ``ann_file`` cannot be repaired, or has no annotations
            and something is to be measured.
    """

    def __init__(self,
                 ann_file: str | None = None,
                 sort_categories: bool = False,
                 backend_args: dict | None = None,
                 **kwargs) -> None:
        super().__init__(backend_args=backend_args, **kwargs)
        if ann_file is None:
            return
        with get_local_path(ann_file, backend_args=backend_args) as path:
            content = read_coco(
                path, shown=ann_file, need_names=False, need_sizes=False)
        if not content['annotations'] and not self.format_only:
            raise ValueError(f"{ann_file}: key 'annotations' is empty, "
                             'expected what detections are measured against')
        for number, entry in enumerate(content['annotations'], 1):
            entry['id'] = number
        if sort_categories:
            content['categories'].sort(key=lambda category: category['id'])
        self._coco_api = COCO()
        self._coco_api.dataset = content
        # It prints while it builds its index.
        with redirect_stdout(io.StringIO()):
            self._coco_api.createIndex()
        self._coco_api.img_ann_map = self._coco_api.imgToAnns
        self._coco_api.cat_img_map = self._coco_api.catToImgs

    @property
    def ground_truth(self) -> dict:
        """The content of ``ann_file``, checked."""
        return self._coco_api.dataset

    def compute_metrics(self, results: list[tuple[dict,
                                                  dict]]) -> dict[str, float]:
        """Evaluate the collected detections.

        Args:
            results (list[tuple[dict, dict]]): Ground truth and prediction of
                each image.

        Returns:
            dict[str, float]: As in mmdet.
        """
        if self._coco_api is not None and self.cat_ids is None:
            categories = self._coco_api.cats
            ids = {c['name'].strip(): i for i, c in categories.items()}
            # Some of mmdet's own names end with a blank.
            classes = [name.strip() for name in self.dataset_meta['classes']]
            for name in classes:
                if name not in ids:
                    ids[name] = max(categories, default=0) + 1
                    categories[ids[name]] = dict(id=ids[name], name=name)
            self.cat_ids = [ids[name] for name in classes]
        return super().compute_metrics(results)

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        """Keep the detections of a batch; see ``without_unreadable``.

        Args:
            data_batch (dict): Not used.
            data_samples (Sequence[dict]): Samples with ``pred_instances``.
        """
        super().process(data_batch, without_unreadable(data_samples))
