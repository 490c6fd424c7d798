# Licensed under the Apache License, Version 2.0.
from abc import ABCMeta, abstractmethod
from typing import Dict, Optional

from mmengine.model import BaseModule
from torch import Tensor, nn

from mmdet_clim.models.losses import CLIMRegionLoss
from mmdet_clim.models.region_readers import BaseRegionReader
from mmdet_clim.models.text_encoders import BaseTextEncoder
from mmdet_clim.registry import MODELS

from .context import BranchContext, BranchStage
from .tile_batch import Regions, TileBatch


class BaseObjective(BaseModule, metaclass=ABCMeta):
    """What a branch of a ``CLIMDetector`` is trained for."""

    #: Whether it compares with captions or tags, which images with boxes lack.
    needs_texts = True

    def check(self, name: str, detector: nn.Module, reader: BaseRegionReader,
              text_encoder: Optional[BaseTextEncoder]) -> None:
        """Raise a TypeError if it can not train this detector.

        Args:
            name (str): By which the config has the objective.
            detector (nn.Module): The detector.
            reader (BaseRegionReader): Its reader.
            text_encoder (BaseTextEncoder, optional): Of the texts.
        """

    @abstractmethod
    def losses(self, context: BranchContext) -> Dict[str, Tensor]:
        """The losses and metrics of one step.

        Args:
            context (BranchContext): The branch. What is not asked for is not
                computed.

        Returns:
            dict: Losses, whose names hold "loss", and metrics, whose names do
            not.
        """


def build_region_loss(cfg: dict) -> CLIMRegionLoss:
    """Build the loss of regions and texts that are gathered already.

    Args:
        cfg (dict): Config of the loss.

    Raises:
        ValueError: If it gathers them itself. A text that two ranks have
            would then be a negative of its own regions.
    """
    loss = MODELS.build(cfg)
    if loss.gather:
        raise ValueError('loss: expected gather=False, as regions of one rank '
                         'and a text that two have belong together, got '
                         'gather=True')
    return loss


class BaseRegionObjective(BaseObjective):
    """Which regions of mosaics meet which texts.

    Once per stage in which the detector reads regions, :meth:`sample` chooses
    regions, the reader embeds them, and :meth:`compare` gives the losses.
    """

    #: Whether it compares regions that are words as such, in sentences of its
    #: own.
    takes_words = False

    def check(self, name: str, detector: nn.Module, reader: BaseRegionReader,
              text_encoder: Optional[BaseTextEncoder]) -> None:
        """Raise a TypeError if there are no texts to compare with."""
        if text_encoder is None:
            raise TypeError(f'text_encoder: objectives.{name}, a '
                            f'{type(self).__name__}, needs one, got None')

    def losses(self, context: BranchContext) -> Dict[str, Tensor]:
        """See the base class.

        Where there are several stages, a loss is the sum over them with the
        stages' weights, and a metric their average.
        """
        totals: Dict[str, Tensor] = {}
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
                context: BranchContext, is_last: bool) -> Dict[str, Tensor]:
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
