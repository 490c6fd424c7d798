# Licensed under the Apache License, Version 2.0.
"""mmdet's box heads, classifying by text embeddings."""
from mmdet.models.roi_heads.bbox_heads import BBoxHead, ConvFCBBoxHead
from mmengine.model import BaseModule
from torch import Tensor, nn

from mmdet_clim.datasets.vocabulary import Vocabulary, build_vocabulary
from mmdet_clim.registry import MODELS

from .zero_shot_classifier import ZeroShotClassifier


class ZeroShotMixin:
    """What both heads share: the classifier as ``fc_cls``, its vocabulary.

    Args:
        vocabulary: Anything that ``build_vocabulary`` reads; it fixes
            ``num_classes`` and which classes the detection loss may use.
        classifier (dict): The other arguments of
            :class:`ZeroShotClassifier`, such as ``text_encoder``; of another
            classifier where it holds a ``type``.
        loss_cls (dict): Config of the classification loss, a
            :class:`~mmdet_clim.models.losses.BaseClassSigmoidLoss` unless it
            holds another ``type``.
        **kwargs: Arguments of the mmdet head.
    """

    fc_cls: ZeroShotClassifier

    def __init__(self,
                 *args,
                 vocabulary,
                 classifier: dict,
                 loss_cls: dict | None = None,
                 **kwargs) -> None:
        vocabulary = build_vocabulary(vocabulary)
        classifier = {'type': 'mmdet_clim.ZeroShotClassifier', **classifier}
        super().__init__(
            *args,
            num_classes=len(vocabulary),
            cls_predictor_cfg=dict(classifier, vocabulary=vocabulary),
            loss_cls={
                'type': 'mmdet_clim.BaseClassSigmoidLoss',
                **(loss_cls or {})
            },
            **kwargs)
        self.loss_cls.set_classes(self.fc_cls.class_texts)

    @property
    def vocabulary(self) -> Vocabulary:
        """The classes, in index order."""
        return self.fc_cls.vocabulary

    def set_vocabulary(self,
                       vocabulary,
                       embeddings: Tensor | None = None) -> None:
        """Replace the classes; see ``ZeroShotClassifier``.

        Raises:
            ValueError: If the head regresses boxes per class.
        """
        if not self.reg_class_agnostic and \
                len(build_vocabulary(vocabulary)) != self.num_classes:
            raise ValueError(
                'set_vocabulary: a head with reg_class_agnostic=False keeps '
                f'its {self.num_classes} classes')
        vocabulary = self.fc_cls.set_vocabulary(vocabulary, embeddings)
        self.num_classes = len(vocabulary)


@MODELS.register_module()
class ZeroShotBBoxHead(ZeroShotMixin, BBoxHead):
    """A box head of linear layers on pooled features, as Detic's C4 head.

    See :class:`ZeroShotMixin` for the arguments beside mmdet's own.
    ``reg_predictor_cfg=dict(type='mmdet_clim.MLPRegressor')`` gives the
    2048→2048→4 box regressor of REFERENCE.md, section 2.
    """

    def embed(self, x: Tensor) -> Tensor:
        """RoI features (N, C, H, W) to region embeddings (N, D)."""
        return self.fc_cls.embed(self._pool(x))

    def regress(self, x: Tensor) -> Tensor:
        """RoI features (N, C, H, W) to box deltas, as ``forward`` has them."""
        return self.fc_reg(self._pool(x))

    def _pool(self, x: Tensor) -> Tensor:
        if self.with_avg_pool:
            x = x.mean(dim=(2, 3))
        return x.flatten(1)


@MODELS.register_module()
class ZeroShotConvFCBBoxHead(ZeroShotMixin, ConvFCBBoxHead):
    """A box head with shared or separate conv and fc layers, as on FPN.

    See :class:`ZeroShotMixin` for the arguments beside mmdet's own.
    """

    def embed(self, x: Tensor) -> Tensor:
        """RoI features (N, C, H, W) to region embeddings (N, D)."""
        return self.fc_cls.embed(
            self._apply_layers(self._share(x), self.cls_convs, self.cls_fcs))

    def regress(self, x: Tensor) -> Tensor:
        """RoI features (N, C, H, W) to box deltas, as ``forward`` has them."""
        return self.fc_reg(
            self._apply_layers(self._share(x), self.reg_convs, self.reg_fcs))

    def _share(self, x: Tensor) -> Tensor:
        """What classification and regression have in common."""
        if self.num_shared_fcs:
            return self._apply_layers(x, self.shared_convs, self.shared_fcs)
        for conv in self.shared_convs:
            x = conv(x)
        return x

    def _apply_layers(self, x: Tensor, convs: nn.ModuleList,
                      fcs: nn.ModuleList) -> Tensor:
        for conv in convs:
            x = conv(x)
        if x.ndim > 2 and self.with_avg_pool:
            x = self.avg_pool(x)
        x = x.flatten(1)
        for fc in fcs:
            x = self.relu(fc(x))
        return x


@MODELS.register_module()
class MLPRegressor(BaseModule):
    """Box regression by two layers, for a head's ``reg_predictor_cfg``.

    Args:
        in_features (int): Width of the region features.
        out_features (int): Width of the box code.
    """

    def __init__(self, in_features: int, out_features: int) -> None:
        # The head sets std 0.001 on every layer of its regressor, which is
        # meant for the last one: the hidden layer would start near zero.
        super().__init__(
            init_cfg=dict(
                type='Normal', std=0.01, override=dict(name='hidden')))
        self.hidden = nn.Linear(in_features, in_features)
        self.out = nn.Linear(in_features, out_features)

    def forward(self, x: Tensor) -> Tensor:
        """Region features (N, in_features) to box codes (N, out_features)."""
        return self.out(self.hidden(x).relu())
