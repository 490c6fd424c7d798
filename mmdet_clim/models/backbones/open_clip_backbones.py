# Licensed under the Apache License, Version 2.0.
"""Image towers of open_clip, by themselves and as backbones."""
import logging
from abc import abstractmethod
from typing import Sequence

import torch
from mmcv.cnn import build_norm_layer
from mmengine.logging import print_log
from mmengine.model import BaseModule
from torch import Tensor, nn

from mmdet_clim.checks import check_choice
from mmdet_clim.registry import MODELS

from ..frozen_tower import FrozenTower
from ..modes import evaluating
from ..open_clip_models import create_clip
from .image_tower import MODES, EncodedImages, ImageTower, TowerReader


@MODELS.register_module()
class DenseImageTower(ImageTower):
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
                 pretrained: str | None = None,
                 mode: str = 'value',
                 quick_gelu: bool | None = None) -> None:
        super().__init__()
        check_choice(MODES, mode=mode)
        clip = create_clip(model, pretrained, type(self).__name__)
        self.visual = clip.visual
        if quick_gelu is not None:
            # Late, as in create_clip.
            from ..open_clip_blocks import set_gelu
            set_gelu(self.visual, quick_gelu)
        self.mean = tuple(clip.visual.preprocess_cfg['mean'])
        self.std = tuple(clip.visual.preprocess_cfg['std'])
        self._reader = build_reader(self.visual, mode)
        self.mode = mode
        with torch.no_grad(), evaluating(self):
            one = self.encode_image(
                torch.zeros(1, 3, self.stride, self.stride))
        self.embed_dim = one.shape[1]


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
        from .open_clip_readers import ViTReader
        return ViTReader(visual, mode)
    if isinstance(visual, ModifiedResNet):
        from .open_clip_readers import ResNetReader
        return ResNetReader(visual, mode)
    if isinstance(visual, TimmModel):
        from .timm_readers import build_timm_reader
        reader = build_timm_reader(visual, mode)
        if reader is not None:
            return reader
        kind = f'{type(visual.trunk).__name__} of timm'
    raise ValueError(
        f'dense features cannot be read from a {kind} with this head: '
        'expected a VisionTransformer or a ModifiedResNet, or from timm a '
        'VisionTransformer, an Eva or a ConvNeXt without a pool of its own')


class OpenCLIPBackbone(BaseModule):
    """What both backbones share: the tower, frozen or not, and its taps.

    A frozen tower is in no ``parameters()``, optimiser, DDP bucket or
    checkpoint, and in evaluation mode whatever happens around it: a detector
    with a CLIP of 300 MB saves the few MB that were trained, and its config
    says where the tower comes from. The checkpoint holds one number of the
    tower, by which loading it beside another tower is noticed and reported.

    Args:
        model (str): See :class:`DenseImageTower`.
        pretrained (str, optional): See :class:`DenseImageTower`.
        mode (str): How regions are read; see :class:`DenseImageTower`.
        quick_gelu (bool, optional): See :class:`DenseImageTower`. What was
            trained on a tower needs it as it was then.
        taps (Sequence[int]): Which of the tower's maps are used.
        frozen (bool): Whether the tower stays as it is. What the maps do not
            depend on stays in any case.

    Raises:
        ValueError: If a tap is out of range.
    """

    def __init__(self,
                 model: str,
                 pretrained: str | None = None,
                 mode: str = 'value',
                 quick_gelu: bool | None = None,
                 taps: Sequence[int] | None = None,
                 frozen: bool = True,
                 init_cfg: dict | None = None) -> None:
        super().__init__(init_cfg=init_cfg)
        tower = DenseImageTower(model, pretrained, mode, quick_gelu)
        self.taps = tuple(taps or self.default_taps(tower.num_taps))
        wrong = [tap for tap in self.taps if not 0 <= tap < tower.num_taps]
        if wrong:
            raise ValueError(f'taps: {model!r} has maps 0 to '
                             f'{tower.num_taps - 1}, got {self.taps}')
        self.frozen = frozen
        self.image_tower = FrozenTower(tower) if frozen else tower
        if not frozen:
            freeze_unread(tower, self.taps)
        self.register_buffer('tower_sum',
                             sum_of_weights(tower) if frozen else None)

    @staticmethod
    @abstractmethod
    def default_taps(num_taps: int) -> Sequence[int]:
        """Which maps are used where the config does not say."""

    @property
    def tower(self) -> DenseImageTower:
        """The tower, frozen or not."""
        return self.image_tower.tower if self.frozen else self.image_tower

    def encode(self, images: Tensor) -> tuple[list[Tensor], EncodedImages]:
        """Run the tower once.

        Args:
            images (Tensor): Shape (N, 3, H, W), normalised.

        Returns:
            tuple[list[Tensor], EncodedImages]: The maps of :attr:`taps`, and
            what :meth:`region_features_of` reads.
        """
        if not self.frozen:
            return self.tower.encode(images, self.taps)
        with torch.no_grad(), self.image_tower.full_speed():
            return self.tower.encode(images, self.taps)

    @torch.no_grad()
    def region_features_of(self, encoded: EncodedImages,
                           rois: Tensor) -> Tensor:
        """Unit vectors (R, D) of regions, without gradient.

        Args:
            encoded (EncodedImages): What :meth:`encode` gave.
            rois (Tensor): Shape (R, 5): image index, then absolute xyxy
                pixels of the network's input.
        """
        return self.tower.region_features_of(encoded, rois)

    def pyramid(self, maps: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """The tapped maps as levels of a feature pyramid, contiguous."""
        # Maps of tokens have the channels last in memory, and convolutions
        # keep that. mmcv's RoIAlign reads the memory as if it were contiguous.
        return tuple(x.contiguous() for x in maps)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Images (N, 3, H, W) to the levels of a feature pyramid."""
        return self.pyramid(self.encode(images)[0])

    def _load_from_state_dict(self, state_dict, prefix: str, *args) -> None:
        own = None if self.tower_sum is None else self.tower_sum.clone()
        super()._load_from_state_dict(state_dict, prefix, *args)
        if own is None:
            return
        saved = self.tower_sum.item()
        # Sums in another order differ by rounding.
        if abs(saved - own.item()) > 1e-6 * own.item():
            print_log(
                'The checkpoint was trained on another image tower: a '
                f'thousand times the sum of its weights was {saved}, that of '
                f'the tower which the config names is {own.item()}.',
                'current', logging.WARNING)
        self.tower_sum.copy_(own)


def freeze_unread(tower: DenseImageTower, taps: Sequence[int]) -> None:
    """Freeze what no map of a tower depends on, such as its last projection.

    DDP would wait for its gradients.

    Args:
        tower (DenseImageTower): The tower.
        taps (Sequence[int]): Which of its maps are used.
    """
    side = 2 * tower.stride
    learned = [p for p in tower.parameters() if p.requires_grad]
    with torch.enable_grad(), evaluating(tower):
        maps, _ = tower.encode(learned[0].new_zeros(1, 3, side, side), taps)
        grads = torch.autograd.grad(
            sum(x.sum() for x in maps), learned, allow_unused=True)
    for parameter, grad in zip(learned, grads):
        parameter.requires_grad_(grad is not None)


def sum_of_weights(module: nn.Module) -> Tensor:
    """A number by which two networks can be told apart.

    Returns:
        Tensor: int64, which ``model.half()`` leaves alone: a thousand times
        the sum of all absolute values.
    """
    total = sum(value.double().abs().sum().item()
                for value in module.state_dict().values())
    return torch.tensor(round(1000 * total))


@MODELS.register_module()
class OpenCLIPViT(OpenCLIPBackbone):
    """A vision transformer of open_clip as a backbone of four levels.

    The maps after four blocks, all of one size, become levels of 4, 8, 16 and
    32 pixels (of a patch size of 16): by two deconvolutions with a norm and
    GELU between them, by one, as they are, and by max-pooling (REFERENCE.md,
    section 5).

    Args:
        taps (Sequence[int], optional): After which blocks, counted from 0.
            Defaults to thirds and the middle of the depth: 3, 5, 7 and 11 of
            12 blocks. The map after the last block is that which ``mode``
            gives.
        norm_cfg (dict, optional): The norm between two deconvolutions.
            Defaults to a group norm of 32 groups.
        **kwargs: Of :class:`OpenCLIPBackbone`.

    Raises:
        ValueError: If the tower has no maps of one size.
    """

    def __init__(self, *args, norm_cfg: dict | None = None, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        norm_cfg = norm_cfg or dict(type='GN', num_groups=32)
        strides = {self.tower.tap_strides[tap] for tap in self.taps}
        if len(self.taps) != 4 or len(strides) != 1:
            raise ValueError(
                'OpenCLIPViT: expected four taps of a vision transformer, got '
                f'taps={self.taps} of strides {sorted(strides)}')
        width = self.tower.tap_channels[self.taps[0]]
        self.out_channels = [width] * 4
        stride = strides.pop()
        self.strides = [stride / 4, stride / 2, stride, stride * 2]
        self.levels = nn.ModuleList([
            nn.Sequential(
                nn.ConvTranspose2d(width, width, 2, 2),
                build_norm_layer(norm_cfg, width)[1], nn.GELU(),
                nn.ConvTranspose2d(width, width, 2, 2)),
            nn.ConvTranspose2d(width, width, 2, 2),
            nn.Identity(),
            nn.MaxPool2d(2, ceil_mode=True)
        ])

    @staticmethod
    def default_taps(num_taps: int) -> Sequence[int]:
        """3, 5, 7, 11 of 12 blocks, and alike in other depths."""
        return [max(num_taps * part // 6 - 1, 0)
                for part in (2, 3, 4)] + [num_taps - 1]

    def pyramid(self, maps: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Maps (N, C, h, w) of one size to four levels, contiguous."""
        maps = super().pyramid(maps)
        return tuple(level(x) for level, x in zip(self.levels, maps))


@MODELS.register_module()
class OpenCLIPResNet(OpenCLIPBackbone):
    """A ResNet or ConvNeXt of open_clip as a backbone: its four stages.

    Args:
        taps (Sequence[int], optional): Which stages, counted from 0.
            Defaults to all four, of strides 4, 8, 16 and 32.
        **kwargs: Of :class:`OpenCLIPBackbone`.
    """

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.out_channels = [self.tower.tap_channels[tap] for tap in self.taps]
        self.strides = [self.tower.tap_strides[tap] for tap in self.taps]

    @staticmethod
    def default_taps(num_taps: int) -> Sequence[int]:
        """All of them."""
        return range(num_taps)
