# Licensed under the Apache License, Version 2.0.
from typing import List

import torch
import torch.nn.functional as F
from torch import Tensor

from mmdet_clim.checks import check_range
from mmdet_clim.registry import MODELS

from .base import BaseTextEncoder
from .precomputed import load_vectors
from .shared import build_text_encoder
from .templates import (
    DEFAULT_TEMPLATES,
    Templates,
    fill_template,
    resolve_templates,
)


@MODELS.register_module()
class ExampleTextEncoder(BaseTextEncoder):
    r"""Encode texts, and the names of some classes by examples of them too.

    The embedding of a name is :math:`w\,v + (1 - w)\,t`, normalised, of the
    unit vectors :math:`v`, the mean of regions that show the class, and
    :math:`t`, that of the text. Other texts are those of ``encoder``.

    Args:
        encoder (dict): Config of the text encoder.
        file (str): Names of classes and their vectors, see
            ``PrecomputedTextEncoder``.
        templates (str or Sequence[str]): See ``resolve_templates``: prompts in
            which a name is one of these classes.
        weight (float): :math:`w`, from 0 to 1.

    Raises:
        ValueError: If the weight is out of its range, or the vectors have
            another width than those of the texts.
    """

    is_slow = False

    def __init__(self,
                 encoder: dict,
                 file: str,
                 templates: Templates = DEFAULT_TEMPLATES,
                 weight: float = 0.5) -> None:
        check_range(0, 1, weight=weight)
        templates = resolve_templates(templates)
        super().__init__(build_text_encoder(encoder))
        names, vectors = load_vectors(file)
        if vectors.shape[1] != self.dim:
            raise ValueError(f'{file}: expected vectors of width {self.dim}, '
                             f'got {vectors.shape[1]}')
        self.weight = weight
        vectors = F.normalize(vectors, dim=1)
        self._examples = {
            text: vector
            for name, vector in zip(names, vectors)
            for text in (name, *(fill_template(prompt, name)
                                 for prompt in templates))
        }

    @property
    def dim(self) -> int:
        """Width of a text embedding."""
        return self.tower.dim

    @property
    def reading(self) -> tuple:
        """What an embedding depends on beside the tower's weights."""
        return (self.tower.fingerprint, self.weight, [
            (text, vector.tolist()) for text, vector in self._examples.items()
        ])

    def _encode(self, texts: List[str]) -> Tensor:
        vectors = self.tower(texts)
        shown = [i for i, text in enumerate(texts) if text in self._examples]
        if shown:
            examples = torch.stack([self._examples[texts[i]] for i in shown])
            vectors = vectors.clone()
            vectors[shown] = (
                self.weight * examples.to(vectors) +
                (1 - self.weight) * vectors[shown])
        return vectors
