# Licensed under the Apache License, Version 2.0.
"""Classes that boxes show in place of, or beside, their names."""
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F

from mmdet_clim.datasets.box_formats import OwnBoxes
from mmdet_clim.models.region_readers import build_region_reader
from mmdet_clim.models.roi_heads import ZeroShotClassifier

from .checkpoints import save_atomically
from .finetune_keeping import KeptWords, boxes_of_image


def write_examples(kept: KeptWords, boxes: OwnBoxes, names: Sequence[str],
                   file: Path) -> int:
    """Write what the original detector reads in boxes of classes.

    Args:
        kept (KeptWords): With the original detector.
        boxes (OwnBoxes): The examples. Classes that are not of ``names`` are
            left out.
        names (Sequence[str]): The user's vocabulary.
        file (Path): For ``ExampleTextEncoder``: of each class the mean of the
            unit embeddings of its boxes.

    Returns:
        int: How many classes have examples.

    Raises:
        TypeError: If the detector does not read regions as it classifies
            them.
        ValueError: If no box is of one of the classes.
    """
    detector = kept.model
    classifiers = [
        m for m in detector.modules() if isinstance(m, ZeroShotClassifier)
    ]
    reader = classifiers and build_region_reader(
        None, detector, classifiers[-1].class_embeddings.shape[1])
    if not reader or list(reader.parameters()):
        raise TypeError(
            '--examples: expected a detector whose regions are classified by '
            f'text, got {type(detector).__name__}')
    total = torch.zeros(
        len(kept.names), classifiers[-1].class_embeddings.shape[1])
    count = torch.zeros(len(kept.names))
    loader = kept.boxes_loader(boxes)
    place = 0
    for batch in loader:
        with torch.no_grad():
            data = detector.data_preprocessor(batch, False)
            inputs, samples = data['inputs'], data['data_samples']
            truth = [
                boxes_of_image(loader.dataset, place + i)
                for i in range(len(samples))
            ]
            place += len(samples)
            rois = torch.cat([
                F.pad(
                    of.bboxes * torch.tensor(sample.scale_factor).repeat(2),
                    (1, 0),
                    value=float(image))
                for image, (of, sample) in enumerate(zip(truth, samples))
            ])
            labels = torch.cat([of.labels for of in truth])
            if not len(rois):
                continue
            feats = reader.extract_feat(detector, inputs, samples)
            read = reader.stages(detector,
                                 feats)[-1].read_as_text(rois.to(inputs))
            total.index_add_(0, labels, F.normalize(read.cpu().float(), dim=1))
            count.index_add_(0, labels, torch.ones(len(labels)))
    shown = [i for i, name in enumerate(kept.names[:len(names)]) if count[i]]
    if not shown:
        raise ValueError(
            f'--examples: expected boxes of some of {len(names)} classes of '
            'the vocabulary, got none')
    save_atomically(
        dict(
            names=[kept.names[i] for i in shown],
            vectors=F.normalize(total[shown], dim=1)), file)
    return len(shown)
