# Licensed under the Apache License, Version 2.0.
"""Text embeddings that were computed before, in a file."""
import difflib
from collections import Counter
from pathlib import Path
from typing import List, Optional, Tuple

import numpy as np
import torch
from torch import Tensor, nn

from mmdet_clim.datasets.archives import load_stored, read_arrays
from mmdet_clim.registry import MODELS

from .base import BaseTextEncoder


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

    def __init__(self, file: str, dim: Optional[int] = None):
        names, vectors = load_vectors(file)
        if dim is not None and vectors.shape[1] != dim:
            raise ValueError(f'{file}: expected vectors of width dim={dim}, '
                             f'got {vectors.shape[1]}')
        table = nn.Embedding.from_pretrained(vectors)
        super().__init__(table, cache_size=0)
        self.file = str(file)
        self.names = names
        self._index = {name: i for i, name in enumerate(names)}

    @property
    def dim(self) -> int:
        return self.tower.embedding_dim

    def _encode(self, texts: List[str]) -> Tensor:
        for text in texts:
            if text not in self._index:
                close = difflib.get_close_matches(text, self.names, n=3)
                raise KeyError(
                    f'{text!r} is not among the {len(self.names)} texts of '
                    f'{self.file}; the closest are {close}')
        rows = [self._index[text] for text in texts]
        return self.tower(self._upload_rows(rows))


def load_vectors(file: str) -> Tuple[List[str], Tensor]:
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
        kinds = [arrays[key].dtype.kind for key in ('names', 'vectors')]
        if kinds[0] != 'U' or kinds[1] not in 'fiu':
            raise ValueError(
                f'{file}: expected names as strings and vectors as numbers, '
                f'got {arrays["names"].dtype} and {arrays["vectors"].dtype}')
        names = [str(name) for name in arrays['names'].tolist()]
        vectors = torch.from_numpy(arrays['vectors'].astype(np.float32))
    elif path.suffix in ('.pth', '.pt'):
        content = load_stored(path)
        if not isinstance(content, dict) or \
                not {'names', 'vectors'} <= content.keys():
            found = sorted(
                content, key=str) if isinstance(
                    content, dict) else type(content).__name__
            raise ValueError(f'{file}: expected a dict with names and '
                             f'vectors, got {found}')
        names = list(content['names'])
        vectors = torch.as_tensor(content['vectors']).float()
    else:
        raise ValueError(
            f'{file}: expected a .npz or .pth file, got {path.suffix!r}')
    _check_vectors(file, names, vectors)
    return names, vectors


def _check_vectors(file: str, names: List[str], vectors: Tensor) -> None:
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
    bad = [
        n for n, norm in zip(names, norms.tolist())
        if not (0 < norm < float('inf'))
    ]
    if bad:
        raise ValueError(
            f'{file}: expected finite, non-zero vectors, got others for '
            f'{bad}')
