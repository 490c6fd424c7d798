# Licensed under the Apache License, Version 2.0.
"""Our detector as its config has it, without the weights of a CLIP."""
import copy
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from mmdet_clim.models.objectives import BagReader
from mmdet_clim.models.open_clip_models import (
    SELF_CONTAINED,
    create_clip,
    model_name,
)
from mmdet_clim.models.text_encoders import BaseTextEncoder
from mmdet_clim.registry import MODELS

#: Types in a config, without their scope.
TEXT_ENCODER = 'OpenCLIPTextEncoder'
BACKBONES = ('OpenCLIPViT', 'OpenCLIPResNet')
# Of torch.nn.init, and of tensors.
INITIALISERS = ('kaiming_uniform_', 'normal_', 'uniform_')
OBJECTIVES = dict(
    RegionCaptionObjective='caption',
    RegionTagObjective='tag',
    BagOfRegionsObjective='bag',
    BagDistillationObjective='distillation')


class UnreadTextEncoder(BaseTextEncoder):
    """Stands for a CLIP's text encoder where no text is to be read.

    Embeddings of classes are in no state dict, so that names and shapes of a
    detector's weights show without encoding 1,203 names per head, and without
    CLIP at hand.

    Args:
        dim (int): Width of an embedding.
        word_dim (int): Width of a word vector.
        max_words (int): Words of a sequence.
    """

    #: Nothing that it makes is worth a file.
    is_slow = False

    def __init__(self, dim: int, word_dim: int, max_words: int) -> None:
        super().__init__(nn.Embedding(2, word_dim), cache_size=0)
        self.dim = dim
        self._max_words = max_words

    @property
    def max_words(self) -> int:
        return self._max_words

    def forward(self, texts: Sequence[str]) -> Tensor:
        """Vectors (N, dim) that differ."""
        return torch.randn(
            len(texts), self.dim, generator=torch.Generator().manual_seed(0))

    def _encode(self, texts: list[str]) -> Tensor:
        return self(texts)

    def _word_table(self) -> Tensor:
        return self.tower.weight

    def _encode_words(self, words: Tensor, lengths: Tensor,
                      value_path: bool) -> Tensor:
        return words.new_ones(len(words), self.dim)


def build_without_clip(cfg: dict) -> nn.Module:
    """Build a detector with the names and shapes of its weights.

    Args:
        cfg (dict): Of the detector. Text encoders of open_clip become
            :class:`UnreadTextEncoder`; image towers get no weights.

    Returns:
        nn.Module: The detector, which predicts nothing of use.
    """
    cfg = copy.deepcopy(cfg)
    _leave_clip_out(cfg)
    with _without_weights():
        return MODELS.build(cfg)


def empty_clip(model: str) -> nn.Module:
    """A CLIP with the names and shapes of its weights.

    Args:
        model (str): As :func:`create_clip` takes it.
    """
    with _without_weights():
        return create_clip(model, None, 'empty_clip')


@contextmanager
def _without_weights() -> Iterator[None]:
    """Build modules without initial values, and without a warning of it."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with _NoRandomNumbers():
            yield
    finally:
        logging.disable(before)


class _NoRandomNumbers(TorchFunctionMode):
    """Zeros in their place: they take longer than all else of a detector."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func.__name__ in INITIALISERS:
            tensor = args[0] if args else kwargs['tensor']
            tensor.detach().zero_()
            return tensor
        return func(*args, **kwargs)


def _clip_config(model: str) -> dict[str, Any]:
    """open_clip's configuration of a model, by its name or file.

    Raises:
        FileNotFoundError, ValueError: See :func:`model_name`.
        ValueError: If there is no such model.
    """
    import open_clip  # late, as create_clip does
    config = open_clip.get_model_config(model_name(model))
    if config is None:
        raise ValueError(
            f'model={model!r} is not an open_clip model; expected '
            f'one of {open_clip.list_models()}')
    return config


def _leave_clip_out(node: Any) -> None:
    if isinstance(node, (list, tuple)):
        for child in node:
            _leave_clip_out(child)
    if not isinstance(node, dict):
        return
    kind = str(node.get('type')).rpartition('.')[2]
    if kind in BACKBONES and not node['model'].startswith(SELF_CONTAINED):
        node['pretrained'] = None
    if kind == TEXT_ENCODER and not node['model'].startswith(SELF_CONTAINED):
        config = _clip_config(node['model'])
        text = config['text_cfg']
        width = text.get('width', config['embed_dim'])
        inner = node.get('before_projection', False)
        node.clear()
        node.update(
            type=UnreadTextEncoder,
            dim=width if inner else config['embed_dim'],
            word_dim=width,
            max_words=text.get('context_length', 77) - 2)
        return
    for child in node.values():
        _leave_clip_out(child)


class ObjectivePart(NamedTuple):
    """A part of an objective that learns and that published files hold.

    Args:
        prefix (str): Of the names of its weights in the wrapper.
        weights (dict[str, Tensor]): By what follows the prefix.
    """
    prefix: str
    weights: dict[str, Tensor]


def objective_parts(cfg: Mapping) -> dict[str, ObjectivePart]:
    """Parts of a wrapper's objectives that published files hold.

    Args:
        cfg (Mapping): Of the model, wrapped or not.

    Returns:
        dict[str, ObjectivePart]: Of ``'caption'`` and ``'tag'``, where the
        bias is learned; of ``'bag'`` and ``'distillation'``, the position of
        a region in a bag.
    """
    parts: dict[str, ObjectivePart] = {}
    for name, objective in (cfg.get('objectives') or {}).items():
        kind = OBJECTIVES.get(str(objective['type']).rpartition('.')[2])
        loss = objective.get('loss') or {}
        if kind in ('bag', 'distillation'):
            with _without_weights():
                position = BagReader(**objective['bags']).position
            part = ObjectivePart(f'objectives.{name}.reader.position.',
                                 position.state_dict())
        elif kind and loss.get('bias') is not None and loss.get(
                'learn_bias', True):
            part = ObjectivePart(f'objectives.{name}.region_loss.',
                                 dict(bias=torch.tensor(0.)))
        else:
            continue
        parts.setdefault(kind, part)
    return parts
