# Licensed under the Apache License, Version 2.0.

import numpy as np
from mmcv.transforms import BaseTransform
from mmcv.transforms.utils import cache_randomness

from mmdet_clim.checks import check_range
from mmdet_clim.datasets.vocabulary import build_vocabulary
from mmdet_clim.registry import TRANSFORMS


@TRANSFORMS.register_module()
class BaseClassPrompt(BaseTransform):
    """Tell a grounding detector which classes a boxed image is trained on.

    The prompt of GLIP and Grounding DINO holds the names of the image's own
    classes and of others which it does not show. A novel class among those
    would be learned as absent wherever it stands, so that none is: all are
    base classes.

    All base classes stand in the order of the vocabulary, so that the
    language model encodes one prompt for a batch; a random choice of them in
    random order.

    Required Keys:

    - gt_bboxes_labels ((n,), int64, indices of the vocabulary)

    Modified Keys:

    - gt_bboxes_labels: indices of ``text``

    Added Keys:

    - text (tuple[str]), custom_entities (True)

    Args:
        vocabulary: Anything that ``build_vocabulary`` reads, with the classes
            that the labels index, and which of them are base.
        num_negatives (int, optional): Classes that the image does not show;
            all the other base classes if None. Long vocabularies need a
            number: mmdet cuts off what the language model does not take.

    Raises:
        ValueError: If ``num_negatives`` is negative.
    """

    def __init__(self, vocabulary, num_negatives: int | None = None) -> None:
        check_range(0, num_negatives=num_negatives)
        self.vocabulary = build_vocabulary(vocabulary)
        self.num_negatives = num_negatives
        self._base = np.flatnonzero(self.vocabulary.is_base)

    @cache_randomness
    def _random_classes(self, shown: np.ndarray) -> np.ndarray:
        """The prompt's classes."""
        if self.num_negatives is None:
            return self._base
        absent = np.random.permutation(np.setdiff1d(self._base, shown))
        chosen = np.concatenate([shown, absent[:self.num_negatives]])
        return np.random.permutation(chosen)

    def transform(self, results: dict) -> dict:
        """Add the prompt to one sample.

        Raises:
            ValueError: If a box has the label of a class that is not base.
        """
        labels = results['gt_bboxes_labels']
        shown = np.unique(labels)
        novel = np.setdiff1d(shown, self._base)
        if len(novel):
            names = [self.vocabulary.names[label] for label in novel]
            raise ValueError('gt_bboxes_labels: expected boxes of base '
                             f'classes, got boxes of {names}')
        classes = self._random_classes(shown)
        place: np.ndarray = np.zeros(len(self.vocabulary), dtype=np.int64)
        place[classes] = np.arange(len(classes))
        results['gt_bboxes_labels'] = place[labels]
        results['text'] = tuple(self.vocabulary.names[c] for c in classes)
        results['custom_entities'] = True
        return results

    def __repr__(self) -> str:
        return (f'{type(self).__name__}(classes={len(self.vocabulary)}, '
                f'num_negatives={self.num_negatives})')
