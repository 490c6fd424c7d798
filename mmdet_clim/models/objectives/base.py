# Licensed under the Apache License, Version 2.0.
"""The branch that objectives work with, and what they share."""
from abc import ABCMeta, abstractmethod
from functools import cached_property

import torch
from mmdet.structures import DetDataSample, SampleList
from mmdet.structures.bbox import get_box_tensor
from mmengine.model import BaseModule
from mmengine.structures import InstanceData
from torch import Tensor, nn

from ..region_readers import BaseRegionReader, ExtractedImages, ReadingStage
from ..text_encoders import BaseTextEncoder
from .tile_batch import Proposals, Regions, TileBatch, TileProposals, as_rois


class BranchContext:
    """One branch of a training step, shared by its objectives.

    Args:
        detector (nn.Module): The detector that learns.
        reader (BaseRegionReader): Reads its regions.
        text_encoder (BaseTextEncoder): Strings to unit vectors.
        images (Tensor): Shape (N, 3, H, W).
        data_samples (list[DetDataSample]): N packed mosaics.
    """

    def __init__(self, detector: nn.Module, reader: BaseRegionReader,
                 text_encoder: BaseTextEncoder, images: Tensor,
                 data_samples: SampleList) -> None:
        self.detector = detector
        self.reader = reader
        self.text_encoder = text_encoder
        self.images = images
        self.data_samples = data_samples
        self._assigned: dict[tuple, TileProposals] = {}

    @cached_property
    def feats(self) -> ExtractedImages:
        """What the detector made of the images."""
        return self.reader.extract_feat(self.detector, self.images,
                                        self.data_samples)

    @cached_property
    def tiles(self) -> TileBatch:
        """The tiles of all images."""
        return TileBatch(self.data_samples)

    @cached_property
    def proposals(self) -> Proposals:
        """The detector's proposals, those of the first stage."""
        return Proposals.of_images(
            self.reader.propose(self.detector, self.feats))

    @cached_property
    def readings(self) -> list[ReadingStage]:
        """The stages as the reader gives them."""
        return self.reader.stages(self.detector, self.feats)

    @property
    def stages(self) -> list['BranchStage']:
        """The stages in which the detector reads regions."""
        return [BranchStage(self, i) for i in range(len(self.readings))]

    def assigned(self, stage: int, min_overlap: float,
                 max_proposals: int) -> TileProposals:
        """The proposals of each tile in one stage.

        Objectives that look alike at proposals share them. Of a stage's
        proposals no more are handed on than tiles could keep, those that
        tiles do keep first.

        Args:
            stage (int): The stage, from 0.
            min_overlap (float): See :meth:`TileBatch.assign`.
            max_proposals (int): See :meth:`TileBatch.assign`.
        """
        key = (stage, min_overlap, max_proposals)
        if key not in self._assigned:
            proposals = self.proposals
            if stage > 0:
                proposals = self._refined(stage - 1, min_overlap,
                                          max_proposals)
            self._assigned[key] = self.tiles.assign(proposals, min_overlap,
                                                    max_proposals)
        return self._assigned[key]

    @torch.no_grad()
    def _refined(self, stage: int, min_overlap: float,
                 max_proposals: int) -> Proposals:
        """The proposals that a stage hands on, as it regresses them."""
        found = self.assigned(stage, min_overlap, max_proposals)
        before = found.proposals
        limits = [count * max_proposals for count in self.tiles.counts]
        counts = [min(n, most) for n, most in zip(before.counts, limits)]
        if not any(counts):
            return before
        image, index = found.likely(limits)
        boxes = before.boxes[image, index]
        refined = self.readings[stage].refine(as_rois(image, boxes))
        return Proposals.of_rows(
            refined.to(boxes), before.scores[image, index], counts)


class AnnotatedContext(BranchContext):
    """A branch of images with boxes and without texts.

    An image is one tile. Its boxes are the first of its proposals, with a
    score of 1.

    Args:
        *args: As of :class:`BranchContext`, the samples with
            ``gt_instances``.
    """

    def __init__(self, *args) -> None:
        super().__init__(*args)
        annotated = [sample.gt_instances for sample in self.data_samples]
        self._boxes = [get_box_tensor(found.bboxes) for found in annotated]
        self.data_samples = [_as_tile(sample) for sample in self.data_samples]

    @cached_property
    def proposals(self) -> Proposals:
        """The boxes of each image, then the detector's proposals."""
        found = self.reader.propose(self.detector, self.feats)
        return Proposals.of_images([
            InstanceData(
                bboxes=torch.cat([boxes.to(of.bboxes), of.bboxes]),
                scores=torch.cat([of.scores.new_ones(len(boxes)), of.scores]))
            for boxes, of in zip(self._boxes, found)
        ])


def _as_tile(sample: DetDataSample) -> DetDataSample:
    """An image as a mosaic of one tile without texts."""
    tile = DetDataSample(metainfo=dict(sample.metainfo, mosaic_grid=(1, 1)))
    height, width = sample.img_shape[:2]
    boxes = get_box_tensor(sample.gt_instances.bboxes)
    tile.gt_instances = InstanceData(
        bboxes=boxes.new_tensor([[0., 0., width, height]]))
    return tile


class TilesAlone(BranchContext):
    """Tiles without a detector, in one stage, for pictures and tests.

    Args:
        data_samples (list[DetDataSample]): N packed mosaics.
        proposals (list[InstanceData], optional): ``bboxes`` (n, 4) and
            ``scores`` (n,), best first, of each; none by default.
        text_encoder (BaseTextEncoder, optional): Strings to unit vectors.
        images (Tensor, optional): Shape (N, 3, H, W).
    """

    def __init__(self,
                 data_samples: SampleList,
                 proposals: list[InstanceData] | None = None,
                 text_encoder: BaseTextEncoder | None = None,
                 images: Tensor | None = None) -> None:
        super().__init__(None, None, text_encoder, images, data_samples)
        nothing = self.tiles.boxes[0, :0]
        none = InstanceData(bboxes=nothing, scores=nothing[:, 0])
        self._given = proposals or [none] * len(data_samples)

    @cached_property
    def proposals(self) -> Proposals:
        """Those that were given."""
        return Proposals.of_images(self._given)

    @cached_property
    def readings(self) -> list[ReadingStage]:
        """One stage, in which nothing can be read."""
        return [ReadingStage(read=None)]


class BranchStage:
    """One of the stages in which a branch's regions are read.

    Args:
        context (BranchContext): The branch.
        index (int): Which stage, from 0.

    Attributes:
        read, read_as_text (Callable): As of :class:`ReadingStage`.
        weight (float): Weight of the stage's losses.
        count (int): How many stages there are.
        regions_before (Regions, optional): What the objective at work took in
            the stage before; None in the first.
    """

    def __init__(self, context: BranchContext, index: int) -> None:
        self.context = context
        self.index = index
        reading = context.readings[index]
        self.read, self.read_as_text = reading.read, reading.read_as_text
        self.weight = reading.weight
        self.count = len(context.readings)
        self.regions_before: Regions | None = None

    @property
    def is_last(self) -> bool:
        """Whether no stage of the same step follows.

        What an objective remembers of a step, such as a queue of texts,
        changes in the last stage alone.
        """
        return self.index == self.count - 1

    def tile_proposals(self,
                       min_overlap: float = 0.3,
                       max_proposals: int = 128) -> TileProposals:
        """The stage's proposals by tile; see :meth:`TileBatch.assign`."""
        return self.context.assigned(self.index, min_overlap, max_proposals)

    def largest_in_tiles(self,
                         min_overlap: float = 0.3,
                         max_proposals: int = 128) -> Tensor:
        """The largest likely object of each tile, (N, K, 4)."""
        return self.tile_proposals(min_overlap, max_proposals).largest(
            self.context.tiles.boxes)

    def largest_refined(self,
                        min_overlap: float = 0.3,
                        max_proposals: int = 128) -> Tensor:
        """The largest in each tile of what became of the regions before.

        Returns:
            Tensor: Shape (N, K, 4): of the boxes that the stage before made
            of the regions which the objective took there, clamped to the tile
            that holds most of each, the largest; the tile's own box where it
            has none. In the first stage, of the proposals.
        """
        before, tiles = self.regions_before, self.context.tiles
        if before is None:
            return self.largest_in_tiles(min_overlap, max_proposals)
        if not len(before):
            return tiles.boxes
        with torch.no_grad():
            boxes = self.context.readings[self.index - 1].refine(before.rois)
        counts = before.image.bincount(minlength=len(tiles.counts))
        candidates = Proposals.of_rows(boxes, torch.ones_like(boxes[:, 0]),
                                       counts.tolist())
        return tiles.assign(candidates, min_overlap,
                            max_proposals).largest(tiles.boxes)


class BaseObjective(BaseModule, metaclass=ABCMeta):
    """What a branch of a ``CLIMDetector`` is trained for."""

    #: Whether it compares with captions or tags, which images with boxes lack.
    needs_texts = True

    def check(self, name: str, detector: nn.Module, reader: BaseRegionReader,
              text_encoder: BaseTextEncoder | None) -> None:
        """Raise a TypeError if it can not train this detector.

        Args:
            name (str): By which the config has the objective.
            detector (nn.Module): The detector.
            reader (BaseRegionReader): Its reader.
            text_encoder (BaseTextEncoder, optional): Of the texts.
        """

    @abstractmethod
    def losses(self, context: BranchContext) -> dict[str, Tensor]:
        """The losses and metrics of one step.

        Args:
            context (BranchContext): The branch. What is not asked for is not
                computed.

        Returns:
            dict: Losses, whose names hold "loss", and metrics, whose names do
            not.
        """


class BaseRegionObjective(BaseObjective):
    """Which regions of mosaics meet which texts.

    Once per stage in which the detector reads regions, :meth:`sample` chooses
    regions, the reader embeds them, and :meth:`compare` gives the losses.
    """

    #: Whether it compares regions that are words as such, in sentences of its
    #: own.
    takes_words = False

    #: Rectangles of several tiles that it takes of each mosaic.
    num_compositions = 0

    def check(self, name: str, detector: nn.Module, reader: BaseRegionReader,
              text_encoder: BaseTextEncoder | None) -> None:
        """Raise a TypeError if there are no texts to compare with."""
        if text_encoder is None:
            raise TypeError(f'text_encoder: objectives.{name}, a '
                            f'{type(self).__name__}, needs one, got None')

    def losses(self, context: BranchContext) -> dict[str, Tensor]:
        """See the base class.

        Where there are several stages, a loss is the sum over them with the
        stages' weights, and a metric their average.
        """
        totals: dict[str, Tensor] = {}
        regions = None
        for stage in context.stages:
            stage.regions_before = regions
            regions = self.sample(context.tiles, stage)
            read = stage.read if self.takes_words else stage.read_as_text
            values = self.compare(
                read(regions.rois), regions, context, stage.is_last)
            for key, value in values.items():
                share = stage.weight if 'loss' in key else 1 / stage.count
                totals[key] = totals.get(key, 0) + value * share
        return totals

    @abstractmethod
    def sample(self, tiles: TileBatch, stage: BranchStage) -> Regions:
        """Choose regions of all images.

        Args:
            tiles (TileBatch): The tiles of the images.
            stage (BranchStage): Where an objective looks at proposals, it
                asks the stage for those.
        """

    @abstractmethod
    def compare(self, embeddings: Tensor, regions: Regions,
                context: BranchContext, is_last: bool) -> dict[str, Tensor]:
        """Compare regions with texts.

        Args:
            embeddings (Tensor): Embeddings (R, D) of the regions.
            regions (Regions): What :meth:`sample` gave.
            context (BranchContext): The branch.
            is_last (bool): False where another stage of the same step
                follows. What an objective remembers of a step, such as a
                queue of texts, changes in the last stage alone.

        Returns:
            dict: ``loss``, and metrics whose names do not contain "loss".
        """
