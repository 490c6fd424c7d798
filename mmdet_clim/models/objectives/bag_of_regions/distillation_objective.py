# Licensed under the Apache License, Version 2.0.

import torch
from mmengine.dist import get_rank
from torch import Tensor, nn

from mmdet_clim.checks import check_range
from mmdet_clim.registry import MODELS

from ...crop_encoder import CropEncoder
from ...losses.gather import exchange_counts
from ...pseudo_words import write_regions
from ...region_readers import BaseRegionReader
from ...text_encoders import BaseTextEncoder
from ..base import BaseRegionObjective, BranchContext, BranchStage
from ..tile_batch import TileBatch, as_rois, union_boxes
from .contrast import BagContrast
from .likely_objects import LikelyObjects
from .reading import BagReader, SampledBags

CENTRE = 4  # of the grid of 3x3, in row-major order


@MODELS.register_module()
class BagDistillationObjective(BaseRegionObjective):
    r"""BARON's distillation: bags meet the crops that they are cut from.

    A bag is a likely object and some of its neighbours, boxes of the same
    size in a grid of 3x3 around it, clamped to the object's tile. Its
    embedding is contrasted with those that CLIP's image encoder gives to the
    crop around the bag; the crops of the other bags, and of a queue, are its
    negatives. In the same way each region alone, read with
    the value path in the text encoder's last block, is contrasted with its
    own crop and those of the step (REFERENCE.md, section 3).

    The paper names the constants and not the law of the draw. It is this:
    a neighbour of which the share :math:`s` lies inside of the tile is in a
    bag with probability :math:`p_0 s^\alpha`, and never if :math:`s` is less
    than the cut-off. Bags of one object that hold the same regions are one.

    Captions are not looked at, so it may be an objective of ``boxes``, whose
    annotated boxes then are likely objects too.

    Args:
        loss (dict): Config of the loss of bags, normally
            ``CLIMRegionLoss(kind='infonce')``.
        image_encoder (dict): Arguments of :class:`CropEncoder`.
        bags (dict): Arguments of :class:`BagReader`.
        object_loss (dict, optional): Config of the loss of single regions;
            None for none.
        queue (dict, optional): Config of the queues of past bags and crops.
        proposals (dict, optional): Arguments of :class:`LikelyObjects`.
        num_groups (int): Bags drawn around each object.
        base_prob (float): Chance :math:`p_0` of a neighbour that lies inside.
        alpha (float): Exponent :math:`\alpha`.
        cut_off (float): Least share of a neighbour inside of the tile.
        interval (float): Between neighbours, in widths and heights; they
            overlap where it is negative.
        gather (bool): As of :class:`BagOfRegionsObjective`.

    Raises:
        ValueError: If an argument is out of its range.
    """

    needs_texts = False

    takes_words = True

    def __init__(self,
                 loss: dict,
                 image_encoder: dict,
                 bags: dict,
                 object_loss: dict | None = None,
                 queue: dict | None = None,
                 proposals: dict | None = None,
                 num_groups: int = 3,
                 base_prob: float = 0.3,
                 alpha: float = 3.0,
                 cut_off: float = 0.3,
                 interval: float = -0.1,
                 gather: bool = False,
                 init_cfg: dict | None = None) -> None:
        super().__init__(init_cfg=init_cfg)
        check_range(1, num_groups=num_groups)
        check_range(0, 1, base_prob=base_prob, cut_off=cut_off)
        check_range(0, alpha=alpha)
        check_range(-1, without=(-1, ), interval=interval)
        self.reader = BagReader(**bags)
        self.contrast = BagContrast(loss, queue, gather)
        self.object_contrast = None if object_loss is None else BagContrast(
            object_loss, gather=gather)
        self.likely_objects = LikelyObjects(**(proposals or {}))
        self.image_encoder = CropEncoder(**image_encoder)
        self.num_groups = num_groups
        self.base_prob = base_prob
        self.alpha = alpha
        self.cut_off = cut_off
        self.interval = interval
        # A bag and its crop have a number that no others have, also not
        # those in the queues of a resumed run.
        self.register_buffer('num_bags', torch.zeros((), dtype=torch.int64))

    def check(self, name: str, detector: nn.Module, reader: BaseRegionReader,
              text_encoder: BaseTextEncoder | None) -> None:
        """Raise an error if the text encoder can not read the regions."""
        super().check(name, detector, reader, text_encoder)
        self.reader.check(text_encoder)
        if self.object_contrast is not None:  # has it a value path?
            words = torch.zeros(1, 1, self.reader.word_dim)
            text_encoder.encode_words(
                words, torch.tensor([1]), value_path=True)

    def sample(self, tiles: TileBatch, stage: BranchStage) -> SampledBags:
        """Likely objects with their neighbours; a few bags per object."""
        objects, image, tile = self.likely_objects(stage)
        boxes, drawn = self.neighbours(objects, tiles.boxes[image, tile])
        # A region is read once, whatever the number of its bags.
        region_object, cell = drawn.any(1).nonzero(as_tuple=True)
        # Of the groups (A, G, 9), those that no earlier one of the object is.
        same = (drawn[:, :, None] == drawn[:, None]).all(-1).tril(-1)
        bag_object, group = (~same.any(2)).nonzero(as_tuple=True)
        bags = drawn[bag_object, group][:, cell] & (
            bag_object[:, None] == region_object)
        bboxes = boxes[region_object, cell]
        around = union_boxes(bboxes, bags) if len(bags) else objects
        host = torch.stack([image[region_object], tile[region_object]]).cpu()
        return SampledBags(
            as_rois(image[region_object], bboxes),
            host[0],
            tiles.members(host[1]),
            bags=bags,
            bag_rois=as_rois(image[bag_object], around),
            is_core=cell == CENTRE,
            is_composed=torch.zeros(len(bags), dtype=torch.bool))

    def neighbours(self, objects: Tensor,
                   tiles: Tensor) -> tuple[Tensor, Tensor]:
        """A grid of 3x3 boxes around each object, and which of them to take.

        Args:
            objects (Tensor): Shape (A, 4), absolute xyxy.
            tiles (Tensor): Shape (A, 4): the tile of each.

        Returns:
            tuple[Tensor, Tensor]: Boxes (A, 9, 4), clamped to the tiles, in
            row-major order, and bool (A, num_groups, 9): the object itself,
            and the neighbours that each group draws.
        """
        steps = torch.tensor([-1., 0., 1.], device=objects.device)
        steps = torch.cartesian_prod(steps, steps).flip(1)
        size = (objects[:, 2:] - objects[:, :2])[:, None]
        moves = steps * (1 + self.interval) * size
        boxes = objects[:, None] + moves.repeat(1, 1, 2)
        low, high = tiles[:, None, :2], tiles[:, None, 2:]
        clamped = torch.cat(
            [boxes[..., :2].clamp(low, high), boxes[..., 2:].clamp(low, high)],
            -1)
        share = (clamped[..., 2:] - clamped[..., :2]).prod(-1) / size.prod(-1)
        chance = self.base_prob * share**self.alpha
        chance = chance.masked_fill(share < self.cut_off, 0)
        draw = torch.rand(
            len(objects), self.num_groups, 9, device=objects.device)
        centre = torch.arange(9, device=objects.device) == CENTRE
        return clamped, centre | (draw < chance[:, None])

    def compare(self, embeddings: Tensor, regions: SampledBags,
                context: BranchContext, is_last: bool) -> dict[str, Tensor]:
        """Compare the bags, and the regions, with their crops.

        Raises:
            ValueError: If image and text encoder have other widths.
        """
        encoder = context.text_encoder
        rois = regions.bag_rois
        if self.object_contrast is not None:
            rois = torch.cat([rois, regions.rois])
        crops = self.image_encoder(context.images, rois)
        if crops.shape[1] != encoder.dim:
            raise ValueError(
                f'image_encoder: expected the width {encoder.dim} of the text '
                f'encoder, got {crops.shape[1]}; both must be of one CLIP')
        num_bags = len(regions.bag_rois)
        crops, object_crops = crops.split([num_bags, len(rois) - num_bags])
        bags, bag = self.reader(embeddings, regions, encoder)
        ids = self._numbers(len(crops), is_last)
        values = self.contrast(bags, ids[bag][:, None], crops, ids, is_last)
        if self.object_contrast is not None:
            words = embeddings.unflatten(1, (self.reader.num_words, -1))
            written = write_regions(words, self.reader.drop_prob)
            objects = encoder.encode_words(*written, value_path=True)
            ids = self._numbers(len(objects), False)
            of_objects = self.object_contrast(objects, ids[:, None],
                                              object_crops, ids)
            values.update({f'object_{k}': v for k, v in of_objects.items()})
        return values

    def _numbers(self, count: int, remember: bool) -> Tensor:
        """Numbers of bags or regions, which none to compare with have."""
        counts, rank = [count], 0
        if self.contrast.gather:
            counts, rank = exchange_counts(count)[0], get_rank()
        first = self.num_bags + sum(counts[:rank])
        if remember:
            self.num_bags += sum(counts)
        return first + torch.arange(count, device=first.device)
