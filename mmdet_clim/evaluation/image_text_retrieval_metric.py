# Licensed under the Apache License, Version 2.0.
"""How well images and captions find each other."""
from collections.abc import Sequence

import torch
from mmengine.evaluator import BaseMetric
from mmengine.logging import MMLogger
from terminaltables import AsciiTable
from torch import Tensor

from mmdet_clim.registry import METRICS

#: Rows of the matrix of cosines that are held at a time.
CHUNK = 1024


@METRICS.register_module()
class ImageTextRetrievalMetric(BaseMetric):
    """Recall of image-text retrieval in both directions.

    ``image_to_text_r{k}`` is the share of images that have a caption of
    theirs among the k nearest of all captions; ``text_to_image_r{k}`` the
    share of captions that have an image of theirs among the k nearest; as
    fractions in [0, 1], under the prefix ``retrieval``. A caption also
    belongs to every other image that has the same words as one of its
    captions.

    It shows what a refinement of the dense features costs the whole image:
    measure the original CLIP and the refined one alike.

    Args:
        topk (Sequence[int]): The k.
        collect_device (str): 'cpu' or 'gpu'.
        prefix (str, optional): Replaces ``retrieval``.

    Raises:
        ValueError: If ``topk`` is empty or holds less than 1; at the end, if
            there is not one pair, or an embedding is not finite.

    Samples need ``captions`` and ``pred_pair`` with ``image`` (1, D) and
    ``texts`` (1, K, D), unit vectors, as ``CLIMOnCLIP`` gives them. Others
    are passed over.
    """

    default_prefix = 'retrieval'

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
        """Keep the embeddings.

        Args:
            data_batch (dict): Not used.
            data_samples (Sequence[dict]): Samples of the batch.
        """
        for sample in data_samples:
            if 'pred_pair' not in sample:
                # One entry per sample: MMEngine counts them to drop those
                # that fill up the last batch of a distributed run.
                self.results.append(None)
                continue
            pair = sample['pred_pair']
            captions = [c for tile in sample['captions'] for c in tile]
            self.results.append(
                (pair['image'][0].cpu(), pair['texts'][0].cpu(), captions))

    def compute_metrics(self, results: list[tuple | None]) -> dict:
        """Recall in both directions.

        Args:
            results (list): Of each sample, the image (D,), the texts (K, D)
                and the K captions; None for samples without captions.

        Returns:
            dict[str, float]: The metrics of the class docstring.
        """
        captioned = [result for result in results if result is not None]
        if not captioned:
            raise ValueError('ImageTextRetrievalMetric: expected at least one '
                             'captioned image, got none')
        images = torch.stack([image for image, _, _ in captioned])
        texts = torch.cat([of_image for _, of_image, _ in captioned])
        if not (images.isfinite().all() and texts.isfinite().all()):
            raise ValueError('pred_pair: expected finite embeddings, got inf '
                             'or NaN')
        # Captions of the same words have one number.
        numbers: dict[str, int] = {}
        of_image = [[numbers.setdefault(c, len(numbers)) for c in captions]
                    for _, _, captions in captioned]
        of_text = torch.tensor([n for row in of_image for n in row])
        has = torch.zeros(len(images), len(numbers), dtype=torch.bool)
        for row, own in zip(has, of_image):
            row[own] = True
        relevant = has[:, of_text]
        metrics = {}
        for name, value in (('image_to_text',
                             recalls(images, texts, relevant, self.topk)),
                            ('text_to_image',
                             recalls(texts, images, relevant.t(), self.topk))):
            metrics.update({
                f'{name}_r{k}': r
                for k, r in zip(self.topk, value)
            })
        rows = [['from', *(f'R@{k}' for k in self.topk)]]
        for name in ('image_to_text', 'text_to_image'):
            rows.append([
                name.replace('_', ' '),
                *(f'{100 * metrics[f"{name}_r{k}"]:.1f}' for k in self.topk)
            ])
        MMLogger.get_current_instance().info(
            f'Retrieval among {len(images)} images and {len(texts)} captions '
            f'in percent\n{AsciiTable(rows).table}')
        return metrics


def recalls(queries: Tensor, candidates: Tensor, relevant: Tensor,
            topk: Sequence[int]) -> list[float]:
    """Share of queries with a relevant one among the k nearest.

    Args:
        queries (Tensor): (Q, D) unit vectors.
        candidates (Tensor): (M, D) unit vectors.
        relevant (Tensor): bool (Q, M).
        topk (Sequence[int]): The k; more than M count as M.

    Returns:
        list[float]: One recall per k.
    """
    deepest = min(max(topk), len(candidates))
    hits = []
    for start in range(0, len(queries), CHUNK):
        rows = slice(start, start + CHUNK)
        nearest = (queries[rows] @ candidates.t()).topk(deepest, dim=1)[1]
        hits.append(relevant[rows].gather(1, nearest))
    first = torch.cat(hits).cumsum(1) > 0
    return [first[:, min(k, deepest) - 1].float().mean().item() for k in topk]
