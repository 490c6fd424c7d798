# Licensed under the Apache License, Version 2.0.
import copy
from typing import List, Optional

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmdet_clim.models.roi_heads import ZeroShotClassifier

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
        self.seen: Optional[List[Tensor]] = None
        self.background = None
        if background:
            self.background = nn.Parameter(
                torch.randn(self.class_embeddings.shape[1]))
        self._stand_in_for(layer)

    def _stand_in_for(self, layer: nn.Module) -> None:
        """Take over the layer's place: its inputs, kernel and stride."""
        width = self.num_priors * self.class_embeddings.shape[1]
        if isinstance(layer, nn.Conv2d):
            self.projection = nn.Conv2d(
                layer.in_channels,
                width,
                layer.kernel_size,
                stride=layer.stride,
                padding=layer.padding,
                dilation=layer.dilation)
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
