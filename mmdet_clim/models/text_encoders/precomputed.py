# Licensed under the Apache License, Version 2.0.
"""Text embeddings out of files."""
import difflib
from collections import Counter
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmdet_clim.checks import check_range
from mmdet_clim.datasets.archives import load_stored, read_arrays
from mmdet_clim.registry import MODELS

from .base import BaseTextEncoder
from .prompts import (
    DEFAULT_TEMPLATES,
    Templates,
    build_text_encoder,
    fill_template,
    resolve_templates,
)


@MODELS.register_module()
class PrecomputedTextEncoder(BaseTextEncoder):
    """Texts and their vectors from a file, and no other texts.

    ``tools/embeddings/embed_classes.py`` writes such files, with class names
    as the texts; their prompt templates are averaged in already, so that
    ``encode_classes`` takes ``templates=('{}', )`` here.

    Args:
        file (str): ``.npz`` with the arrays ``names`` (N strings) and
            ``vectors`` (N, D), or ``.pth`` with a dict of ``names`` (list)
            and ``vectors`` (tensor). Neither may hold pickled objects.
        dim (int, optional): The width that the vectors must have.

    Raises:
        FileNotFoundError: If the file does not exist.
        ValueError: If its content is something else, the counts differ, a
            name is empty or given twice, a vector is zero or not finite, or
            the width is not ``dim``.

    Example:
        >>> encoder = PrecomputedTextEncoder('coco_65.npz')
        >>> encoder(['cat', 'dog']).shape
        torch.Size([2, 384])
    """

    is_slow = False

    def __init__(self, file: str, dim: int | None = None):
        names, vectors = load_vectors(file)
        if dim is not None and vectors.shape[1] != dim:
            raise ValueError(f'{file}: expected vectors of width dim={dim}, '
                             f'got {vectors.shape[1]}')
        table = nn.Embedding.from_pretrained(vectors)
        super().__init__(table, cache_size=0)
        self.dim = vectors.shape[1]
        self.file = str(file)
        self.names = names
        self._index = {name: i for i, name in enumerate(names)}

    def _encode(self, texts: list[str]) -> Tensor:
        for text in texts:
            if text not in self._index:
                close = difflib.get_close_matches(text, self.names, n=3)
                raise KeyError(
                    f'{text!r} is not among the {len(self.names)} texts of '
                    f'{self.file}; the closest are {close}')
        rows = [self._index[text] for text in texts]
        return self.tower(self._upload_rows(rows))


def load_vectors(file: str) -> tuple[list[str], Tensor]:
    """Read texts and their vectors.

    Args:
        file (str): ``.npz`` or ``.pth``, see
            :class:`PrecomputedTextEncoder`.

    Returns:
        tuple[list[str], Tensor]: N texts and (N, D) float32 vectors.

    Raises:
        FileNotFoundError: If the file does not exist.
        ValueError: If its content is wrong.
    """
    path = Path(file)
    if not path.is_file():
        raise FileNotFoundError(f'file={str(file)!r} does not exist')
    if path.suffix == '.npz':
        arrays = read_arrays(path, ('names', 'vectors'))
        texts, numbers = arrays['names'], arrays['vectors']
        if texts.dtype.kind != 'U' or numbers.dtype.kind not in 'fiu':
            raise ValueError(
                f'{file}: expected names as strings and vectors as numbers, '
                f'got {texts.dtype} and {numbers.dtype}')
        names = [str(name) for name in texts.tolist()]
        vectors = torch.from_numpy(numbers.astype(np.float32))
    elif path.suffix in ('.pth', '.pt'):
        content = load_stored(path)
        found = sorted(map(str, content)) if isinstance(content, dict) \
            else type(content).__name__
        if not {'names', 'vectors'} <= set(found):
            raise ValueError(f'{file}: expected a dict with names and '
                             f'vectors, got {found}')
        names = list(content['names'])
        vectors = torch.as_tensor(content['vectors']).float()
    else:
        raise ValueError(
            f'{file}: expected a .npz or .pth file, got {path.suffix!r}')
    _check_vectors(file, names, vectors)
    return names, vectors


def _check_vectors(file: str, names: list[str], vectors: Tensor) -> None:
    if vectors.dim() != 2 or len(vectors) != len(names) or not names:
        raise ValueError(
            f'{file}: expected vectors (N, D) for its {len(names)} names, '
            f'got {tuple(vectors.shape)}')
    wrong = [n for n in names if not isinstance(n, str) or not n.strip()]
    if wrong:
        raise ValueError(f'{file}: every name must be a non-empty string, '
                         f'got {wrong}')
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise ValueError(f'{file}: names must differ, given twice: {twice}')
    norms = vectors.norm(dim=1)
    good = norms.isfinite() & (norms > 0)
    if not good.all():
        bad = [name for name, is_good in zip(names, good) if not is_good]
        raise ValueError(
            f'{file}: expected finite, non-zero vectors, got others for {bad}')


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
        self.dim = self.tower.dim
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
    def reading(self) -> tuple:
        """What an embedding depends on beside the tower's weights."""
        return (self.tower.fingerprint, self.weight, [
            (text, vector.tolist()) for text, vector in self._examples.items()
        ])

    def _encode(self, texts: list[str]) -> Tensor:
        vectors = self.tower(texts)
        shown = [i for i, text in enumerate(texts) if text in self._examples]
        if shown:
            examples = torch.stack([self._examples[texts[i]] for i in shown])
            vectors = vectors.clone()
            vectors[shown] = (
                self.weight * examples.to(vectors) +
                (1 - self.weight) * vectors[shown])
        return vectors
