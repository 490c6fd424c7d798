# Licensed under the Apache License, Version 2.0.
"""Dense and regional features of the image tower of any open_clip model."""
from typing import List, Optional, Sequence, Tuple

import torch
from torch import Tensor, nn

from mmdet_clim.models.open_clip_models import create_clip
from mmdet_clim.registry import MODELS

from .tower_reader import MODES, EncodedImages, TowerReader, unit


@MODELS.register_module()
class DenseImageTower(nn.Module):
    """The image tower of an open_clip model, read densely.

    Images may have any size, also not square: positional embeddings are
    resized bicubically, and images are padded below and at the right with
    their mean colour until the last patch is whole.

    How a position or a region gets its embedding depends on the tower:

    - a ViT. 'value': the last block without attention between tokens;
      'attention': the last block as it is; 'masked_pool': the class token
      attends to the box alone in the last block.
    - ViT, EVA and SigLIP of timm: the same, without 'masked_pool'.
    - a ``ModifiedResNet``. 'value': of the dense map, the value path of the
      attention pool; 'attention': every position as its query; 'masked_pool':
      it attends to the box alone.
    - ConvNeXt of timm: its head, applied to every position, in both modes
      that it has, 'value' and 'attention'.

    A region is RoIAligned to 1x1 on the dense map of unit vectors; of a
    ``ModifiedResNet``, its last map is RoIAligned to the grid of the
    attention pool, which then pools it (REFERENCE.md, section 4).

    Args:
        model (str): Name of an open_clip model, path of a model
            configuration (``.json``), or ``local-dir:FOLDER``.
        pretrained (str, optional): Path of a checkpoint or a tag of the
            model. None: random weights; for tests only.
        mode (str): 'value', 'attention' or 'masked_pool'.
        quick_gelu (bool, optional): Of a ViT, run the weights with QuickGELU
            or with GELU, whatever ``model`` says. Defaults to what it says.

    Attributes:
        visual (nn.Module): The open_clip tower itself; its parameters are
            those of this module.
        embed_dim (int): Width D of the joint image-text space.
        mean, std (tuple[float]): By which RGB values in [0, 1] are to be
            normalised, as open_clip has it for the model.

    Raises:
        ValueError: If ``mode`` is another, ``quick_gelu`` is given for another
            tower than a ViT of open_clip, the names are unknown (the
            message lists what exists), the checkpoint is one of another
            architecture (the message says which keys differ), or the tower's
            structure allows no dense features.

    Example:
        >>> tower = DenseImageTower('ViT-B-16', 'openai')
        >>> tower.dense_features(torch.rand(1, 3, 512, 768)).shape
        torch.Size([1, 512, 32, 48])
    """

    def __init__(self,
                 model: str,
                 pretrained: Optional[str] = None,
                 mode: str = 'value',
                 quick_gelu: Optional[bool] = None) -> None:
        super().__init__()
        if mode not in MODES:
            raise ValueError(f'mode: expected one of {MODES}, got {mode!r}')
        clip = create_clip(model, pretrained, type(self).__name__)
        self.visual = clip.visual
        if quick_gelu is not None:
            # Late, as in create_clip.
            from mmdet_clim.models.open_clip_blocks import set_gelu
            set_gelu(self.visual, quick_gelu)
        self.mean = tuple(clip.visual.preprocess_cfg['mean'])
        self.std = tuple(clip.visual.preprocess_cfg['std'])
        self._reader = build_reader(self.visual, mode)
        self.mode = mode
        self.embed_dim = _width(self)

    @property
    def stride(self) -> int:
        """Pixels per position of the dense features."""
        return self._reader.stride

    @property
    def num_taps(self) -> int:
        """How many intermediate maps :meth:`encode` can give."""
        return self._reader.num_taps

    @property
    def tap_channels(self) -> Sequence[int]:
        """Channels of each intermediate map."""
        return self._reader.tap_channels

    @property
    def tap_strides(self) -> Sequence[int]:
        """Pixels per position of each intermediate map."""
        return self._reader.tap_strides

    def encode(
        self, images: Tensor, taps: Sequence[int] = ()
    ) -> Tuple[List[Tensor], EncodedImages]:
        """Run the tower once, for several of the methods below.

        Args:
            images (Tensor): Shape (N, 3, H, W), RGB, normalised.
            taps (Sequence[int]): Which intermediate maps are wanted: after
                which transformer block, or of which stage, counted from 0.

        Returns:
            tuple[list[Tensor], EncodedImages]: The maps (N, C, h, w) in that
            order, and what ``*_of`` methods read.
        """
        return self._reader.encode(images, taps)

    def image_embeddings_of(self, encoded: EncodedImages) -> Tensor:
        """Unit vectors (N, D) of whole images."""
        return unit(self._reader.whole(encoded))

    def dense_features_of(self, encoded: EncodedImages) -> Tensor:
        """Unit vectors (N, D, h, w) of all positions."""
        return unit(self._reader.dense(encoded))

    def region_features_of(self, encoded: EncodedImages,
                           rois: Tensor) -> Tensor:
        """Unit vectors (R, D) of regions.

        Args:
            encoded (EncodedImages): N images.
            rois (Tensor): Shape (R, 5): index of the image, then absolute
                xyxy pixels of the tower's input. Without regions, the result
                is empty and connected to the graph.
        """
        if len(rois) == 0:
            zero = encoded.features.float().sum() * 0
            return zero + zero.new_zeros(0, self.embed_dim)
        return unit(self._reader.regions(encoded, rois))

    def encode_image(self, images: Tensor) -> Tensor:
        """Unit vectors (N, D) of whole images of any size (N, 3, H, W)."""
        return self.image_embeddings_of(self.encode(images)[1])

    def dense_features(self, images: Tensor) -> Tensor:
        """Unit vectors (N, D, h, w) of images (N, 3, H, W)."""
        return self.dense_features_of(self.encode(images)[1])

    def region_features(self, images: Tensor, rois: Tensor) -> Tensor:
        """Unit vectors (R, D) of regions (R, 5) of images (N, 3, H, W)."""
        return self.region_features_of(self.encode(images)[1], rois)

    def forward(self, images: Tensor) -> Tensor:
        """The same as :meth:`dense_features`."""
        return self.dense_features(images)


def build_reader(visual: nn.Module, mode: str) -> TowerReader:
    """The reader for a tower.

    Raises:
        ValueError: If none fits its structure.
    """
    # Late, as in create_clip: a project without CLIP need not have open_clip.
    from open_clip.modified_resnet import ModifiedResNet
    from open_clip.timm_model import TimmModel
    from open_clip.transformer import VisionTransformer
    kind = type(visual).__name__
    if isinstance(visual, VisionTransformer):
        from .vit_reader import ViTReader
        return ViTReader(visual, mode)
    if isinstance(visual, ModifiedResNet):
        from .resnet_reader import ResNetReader
        return ResNetReader(visual, mode)
    if isinstance(visual, TimmModel):
        from .timm_readers import build_timm_reader
        reader = build_timm_reader(visual, mode)
        if reader is not None:
            return reader
        kind = f'{type(visual.trunk).__name__} of timm'
    raise ValueError(
        f'no dense features of a {kind} with the head that it has: expected '
        'a VisionTransformer, a ModifiedResNet, or of timm a '
        'VisionTransformer, an Eva or a ConvNeXt without a pool of its own')


@torch.no_grad()
def _width(tower: DenseImageTower) -> int:
    """D, by asking the tower."""
    training = tower.training
    tower.eval()
    images = torch.zeros(1, 3, tower.stride, tower.stride)
    width = tower.encode_image(images).shape[1]
    tower.train(training)
    return width
