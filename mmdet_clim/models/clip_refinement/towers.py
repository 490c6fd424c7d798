# Licensed under the Apache License, Version 2.0.
"""What CLIM on CLIP asks of its towers."""
from typing import Sequence

import torch
import torch.nn.functional as F
from mmdet.structures.bbox import bbox2roi, bbox_xyxy_to_cxcywh
from torch import Tensor, nn

from mmdet_clim.registry import MODELS

from ..backbones import EncodedImages, ImageTower
from ..open_clip_models import create_clip, model_name
from ..text_encoders.base import check_texts
from .objectives import crop_images


@MODELS.register_module()
class OpenCLIPTextTower(nn.Module):
    """Text tower of an open_clip model that is trained.

    For a CLIP trained from its beginning; the frozen one of every other
    training is ``OpenCLIPTextEncoder``.

    Args:
        model (str): Name of an open_clip model, or path of the ``.json`` of
            one.
        pretrained (str, optional): Path of a checkpoint, or a tag of the
            model. None: random weights.

    Raises:
        ValueError: If the model or the checkpoint is unknown.
    """

    def __init__(self, model: str, pretrained: str | None = None) -> None:
        super().__init__()
        import open_clip
        self.tower = create_clip(model, pretrained, type(self).__name__)
        self.tower.visual = nn.Identity()
        # The scale and the bias of the logits (SigLIP has one) are parameters
        # of the loss.
        for name, parameter in self.tower.named_parameters():
            if name in ('logit_scale', 'logit_bias'):
                parameter.requires_grad_(False)
        self.tokenizer = open_clip.get_tokenizer(model_name(model))

    def forward(self, texts: Sequence[str]) -> Tensor:
        """Encode texts.

        Args:
            texts (Sequence[str]): N texts, none of them empty.

        Returns:
            Tensor: (N, D) float32 unit vectors, with gradient.

        Raises:
            TypeError: If ``texts`` is one string or holds something else.
            ValueError: If a text is empty.
        """
        check_texts(texts)
        tokens = self.tokenizer(list(texts)).to(self.tower.logit_scale.device)
        embeddings = self.tower.encode_text(tokens)
        with torch.autocast(embeddings.device.type, enabled=False):
            return F.normalize(embeddings.float(), dim=-1)


ALL = 'all'


def tower_blocks(visual: nn.Module) -> list[nn.Module]:
    """The blocks of an open_clip image tower, first to last.

    Args:
        visual (nn.Module): ``visual`` of an open_clip model.

    Returns:
        list[nn.Module]: Transformer blocks of a ViT; the four stages of a
        ResNet; ``blocks`` or ``stages`` of a timm trunk.

    Raises:
        TypeError: If the tower is of another kind.
    """
    # open_clip imports torchvision, for which importing mmdet_clim prepares;
    # a project without CLIP need not have either.
    from open_clip.modified_resnet import ModifiedResNet
    from open_clip.timm_model import TimmModel
    from open_clip.transformer import VisionTransformer
    if isinstance(visual, VisionTransformer):
        return list(visual.transformer.resblocks)
    if isinstance(visual, ModifiedResNet):
        return [visual.layer1, visual.layer2, visual.layer3, visual.layer4]
    if isinstance(visual, TimmModel):
        parts = dict(visual.trunk.named_children())
        for name in ('blocks', 'stages'):
            if name in parts:
                return list(parts[name].children())
    raise TypeError(
        'image_tower: the blocks of a VisionTransformer, a ModifiedResNet or '
        "a timm trunk with 'blocks' or 'stages' can be unlocked, got "
        f'{type(visual).__name__}')


def unlock_blocks(visual: nn.Module, count: int | str) -> None:
    """Freeze an image tower but for its last blocks.

    What comes before, between and after the blocks (embeddings, last norm,
    projection) stays frozen. Of a ResNet, where the attention pool looks (its
    query, key and position) is trained with the last stage; what it gives
    (value and output) stays frozen. So it is in REFERENCE.md, section 4: the
    last 6 of 12 blocks of a ViT-B/16, layer4 and the pool of a RN50x64.

    Args:
        visual (nn.Module): ``visual`` of an open_clip model.
        count (int | str): The number of blocks, or 'all' for every weight.

    Raises:
        ValueError: If there are not so many blocks.
    """
    if count == ALL:
        visual.requires_grad_(True)
        return
    from open_clip.modified_resnet import ModifiedResNet
    blocks = tower_blocks(visual)
    if not isinstance(count, int) or not 0 <= count <= len(blocks):
        raise ValueError(f'unlocked_blocks: expected 0 to {len(blocks)} for '
                         f'this tower, or {ALL!r}, got {count!r}')
    visual.requires_grad_(False)
    for block in blocks[len(blocks) - count:]:
        block.requires_grad_(True)
    if count and isinstance(visual, ModifiedResNet):
        pool = visual.attnpool
        for part in (pool.q_proj, pool.k_proj, pool.positional_embedding):
            part.requires_grad_(True)


#: How the embedding of a region is read.
REGION_WAYS = ('roi', 'mask', 'crop')
#: Factor on the sides of a box before its crop.
CROP_ENLARGE = 1.5
#: Crops that are encoded at a time.
CROP_BATCH = 64


def mask_embeddings(tower: ImageTower, encoded: EncodedImages,
                    masks: Tensor) -> Tensor:
    """By the mean of the dense features within a mask.

    A position weighs as much as of its area the mask covers.

    Args:
        tower (ImageTower): The tower.
        encoded (EncodedImages): One image of H x W, encoded by the tower.
        masks (Tensor): (R, H, W), 1 within the region.

    Returns:
        Tensor: (R, D) unit vectors; zero for an empty mask.
    """
    dense = tower.dense_features_of(encoded)
    height, width = (tower.stride * side for side in dense.shape[-2:])
    beyond = (0, width - masks.shape[-1], 0, height - masks.shape[-2])
    masks = F.pad(masks.to(dense), beyond)
    weights = F.avg_pool2d(masks[None], tower.stride)[0]
    pooled = torch.einsum('rhw,dhw->rd', weights, dense[0])
    return F.normalize(pooled, dim=1)


def crop_embeddings(tower: ImageTower, image: Tensor, boxes: Tensor,
                    enlarge: Tensor) -> Tensor:
    """By the image embedding of the crop of an enlarged box.

    Args:
        tower (ImageTower): The tower.
        image (Tensor): (1, 3, H, W), normalised.
        boxes (Tensor): (R, 4), absolute xyxy pixels of the image.
        enlarge (Tensor): Factor (R,) on both sides of each; what reaches out
            of the image is cut off.

    Returns:
        Tensor: (R, D) unit vectors.
    """
    boxes = enlarged(boxes, enlarge, image.shape[-2:])
    parts = boxes.split(CROP_BATCH)
    crops = (letterbox(image, part, tower.native_size) for part in parts)
    return torch.cat([tower.encode_image(of_part) for of_part in crops])


def letterbox(image: Tensor, boxes: Tensor, size: int) -> Tensor:
    """Cut boxes out of an image and fit each into the middle of a square.

    The longer side of a box fills the square; what the shorter one leaves
    over, above and below or at both sides, has the mean colour.

    Args:
        image (Tensor): (1, 3, H, W), normalised.
        boxes (Tensor): (R, 4), absolute xyxy pixels of the image.
        size (int): Side of the square in pixels.

    Returns:
        Tensor: (R, 3, size, size) float32.
    """
    centre, extent = bbox_xyxy_to_cxcywh(boxes).split(2, 1)
    side = extent.amax(1, keepdim=True)
    squares = torch.cat([centre - side / 2, centre + side / 2], 1)
    crops = crop_images(image, bbox2roi([squares]), size)
    # Of each pixel of the square how far it is from the middle, and how far
    # the box reaches, both as a share of the square's side.
    places = (torch.arange(size, device=crops.device) + 0.5) / size - 0.5
    inside = places.abs() <= (extent / side / 2).float()[..., None]
    across, down = inside[:, 0], inside[:, 1]
    return crops * (down[:, :, None] & across[:, None])[:, None]


def enlarged(boxes: Tensor, factor: Tensor, size: tuple[int, int]) -> Tensor:
    """Boxes (R, 4) around the same centres, within (height, width)."""
    centre, extent = bbox_xyxy_to_cxcywh(boxes).split(2, 1)
    half = extent * (factor[:, None] / 2)
    limit = boxes.new_tensor([size[1], size[0]])
    return torch.cat([(centre - half).clamp(min=0),
                      torch.minimum(centre + half, limit)], 1)
