# Licensed under the Apache License, Version 2.0.
"""How well annotated regions are recognised."""
from collections import defaultdict
from collections.abc import Sequence

import numpy as np
import torch
from mmengine.evaluator import BaseMetric
from mmengine.logging import MMLogger
from terminaltables import AsciiTable
from torch import Tensor

from mmdet_clim.registry import METRICS

#: Group of classes to the key of the metainfo that names them.
GROUPS = dict(
    things='thing_classes',
    stuff='stuff_classes',
    base='base_classes',
    novel='novel_classes')


@METRICS.register_module()
class RegionClassificationMetric(BaseMetric):
    """Zero-shot classification of annotated regions, mean per class.

    Of each region, the classes are ordered by their cosine with its
    embedding, for each way the model read it by: 'roi' (the box on the dense
    features), 'mask' (their mean in the mask), 'crop' (the image embedding of
    the enlarged box). The top-k accuracy of a class is the share of its
    regions that have it among the first k; reported is the mean over the
    classes that have a region (REFERENCE.md, section 4), as a fraction in
    [0, 1], under the prefix ``region``: ``{way}_{group}_top{k}``.

    The groups are 'all' and, where the metainfo of the data set names them,
    'things' and 'stuff' (``thing_classes``, ``stuff_classes``), 'base' and
    'novel' (``base_classes``, ``novel_classes``). A group of which no class
    has a region is left out and named in the log. Of classes with equal
    cosines the first comes first; a cosine that is not a number is a miss.

    With fewer classes than k, every region is right: it is no error.

    Args:
        topk (Sequence[int]): The k.
        collect_device (str): 'cpu' or 'gpu'.
        prefix (str, optional): Replaces ``region``.

    Raises:
        ValueError: If ``topk`` is empty or holds less than 1; at the end, if
            there is not one region, or the model has other classes than the
            data set.

    Samples need ``gt_instances.labels`` (R,) and ``pred_regions`` with the
    cosines (R, C) by each way, as ``CLIMOnCLIP`` gives them. Others, such as
    captioned images, are passed over.
    """

    default_prefix = 'region'

    def __init__(self,
                 topk: Sequence[int] = (1, 5),
                 collect_device: str = 'cpu',
                 prefix: str | None = None) -> None:
        super().__init__(collect_device=collect_device, prefix=prefix)
        if not topk or min(topk) < 1:
            raise ValueError(
                f'topk: expected numbers of at least 1, got {topk}')
        self.topk = tuple(topk)

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        """Keep the place of the true class of each region.

        Args:
            data_batch (dict): Not used.
            data_samples (Sequence[dict]): Samples of the batch.
        """
        num_classes = len(self._meta('classes'))
        for sample in data_samples:
            if 'pred_regions' not in sample:
                # One entry per sample: MMEngine counts them to drop those
                # that fill up the last batch of a distributed run.
                self.results.append(None)
                continue
            labels = sample['gt_instances']['labels']
            places = {}
            for way, cosines in sample['pred_regions'].items():
                if cosines.shape[1] != num_classes:
                    raise ValueError(
                        f'vocabulary: the model has {cosines.shape[1]} '
                        f'classes, the data set {num_classes}; expected the '
                        'same')
                places[way] = true_class_places(cosines.cpu(),
                                                labels.cpu()).numpy()
                if sample.get('unreadable'):
                    # What it read of a grey image is wrong for every k.
                    places[way][:] = np.iinfo(places[way].dtype).max
            self.results.append((labels.cpu().numpy(), places))

    def compute_metrics(self, results: list[tuple | None]) -> dict:
        """Mean per class of each way and group.

        Args:
            results (list): Of each sample, labels (R,) and, by way, the
                places (R,); None for samples without regions.

        Returns:
            dict[str, float]: The metrics of the class docstring.
        """
        labels, places = defaultdict(list), defaultdict(list)
        for result in filter(None, results):
            for way, found in result[1].items():
                labels[way].append(result[0])
                places[way].append(found)
        if not labels:
            raise ValueError(
                f'RegionClassificationMetric: none of {len(results)} samples '
                'has an annotated region, expected at least one; does the '
                'pipeline load annotations?')
        classes = list(self._meta('classes'))
        metrics, rows = {}, []
        for way in labels:
            of_way = np.concatenate(labels[way]), np.concatenate(places[way])
            for group, members in self._groups(classes).items():
                row = self._accuracies(*of_way, members)
                if row is None:
                    MMLogger.get_current_instance().info(
                        f'region classification by {way}: no class of the '
                        f'group {group!r} has a region, left out')
                    continue
                counts, accuracies = row
                for k, accuracy in zip(self.topk, accuracies):
                    metrics[f'{way}_{group}_top{k}'] = accuracy
                rows.append([
                    way, group, *counts,
                    *(f'{100 * a:.1f}' for a in accuracies)
                ])
        head = ['by', 'classes', 'with regions', 'regions']
        head += [f'top-{k}' for k in self.topk]
        MMLogger.get_current_instance().info(
            'Region classification, mean per class in percent\n'
            f'{AsciiTable([head, *rows]).table}')
        return metrics

    def _accuracies(
            self, labels: np.ndarray, places: np.ndarray,
            members: Sequence[int]
    ) -> tuple[tuple[str, int], list[float]] | None:
        """(classes with regions, regions), and the top-k accuracies."""
        of_class = [places[labels == c] for c in members]
        of_class = [found for found in of_class if len(found)]
        if not of_class:
            return None
        accuracies = [
            float(np.mean([(found < k).mean() for found in of_class]))
            for k in self.topk
        ]
        counts = f'{len(of_class)}/{len(members)}', sum(map(len, of_class))
        return counts, accuracies

    def _groups(self, classes: list[str]) -> dict[str, list[int]]:
        """Class indices of each group."""
        groups = dict(all=list(range(len(classes))))
        for group, key in GROUPS.items():
            names = set((self.dataset_meta or {}).get(key) or ())
            if names and names != set(classes):
                groups[group] = [
                    i for i, name in enumerate(classes) if name in names
                ]
        return groups

    def _meta(self, key: str):
        meta = self.dataset_meta or {}
        if not meta.get(key):
            raise ValueError(
                f'dataset_meta[{key!r}]: RegionClassificationMetric needs it '
                f'of the data set, got {meta.get(key)!r} (keys: '
                f'{sorted(meta)})')
        return meta[key]


def true_class_places(cosines: Tensor, labels: Tensor) -> Tensor:
    """How many classes come before the true one.

    Args:
        cosines (Tensor): (R, C).
        labels (Tensor): (R,) class indices.

    Returns:
        Tensor: (R,) int64; behind every k where a cosine of the row is not a
        number.
    """
    own = cosines.gather(1, labels[:, None])
    index = torch.arange(cosines.shape[1])
    before = (cosines > own) | ((cosines == own) & (index < labels[:, None]))
    places = before.sum(1)
    places[cosines.isnan().any(1)] = torch.iinfo(places.dtype).max
    return places
