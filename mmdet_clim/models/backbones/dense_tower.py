# Licensed under the Apache License, Version 2.0.
"""Dense and regional features of the image tower of any open_clip model."""

from torch import nn

from mmdet_clim.checks import check_choice
from mmdet_clim.models.open_clip_models import create_clip
from mmdet_clim.registry import MODELS

from .image_tower import MODES, ImageTower, TowerReader, width_of


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
            from mmdet_clim.models.open_clip_blocks import set_gelu
            set_gelu(self.visual, quick_gelu)
        self.mean = tuple(clip.visual.preprocess_cfg['mean'])
        self.std = tuple(clip.visual.preprocess_cfg['std'])
        self._reader = build_reader(self.visual, mode)
        self.mode = mode
        self.embed_dim = width_of(self)


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
