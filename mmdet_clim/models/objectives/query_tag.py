# Licensed under the Apache License, Version 2.0.

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmdet_clim.registry import MODELS

from ..families import family_of
from ..families.transformer import TransformerFamily
from ..host import upload
from ..losses.metrics import mean_count
from ..region_readers import BaseRegionReader
from ..roi_heads import ZeroShotClassifier
from ..text_encoders import DEFAULT_TEMPLATES, BaseTextEncoder, Templates
from .base import BranchContext
from .region_tag import RegionTagObjective
from .tile_batch import as_rois


@MODELS.register_module()
class QueryTagObjective(RegionTagObjective):
    r"""Teach a detection transformer the tags of tiles, and what is no object.

    A two-stage detector's proposals come with a score for being an object.
    Of a detection transformer, whose queries have none, the classes' scores
    say it, and boxes teach that of the base classes alone. So beside the loss
    of ``RegionTagObjective(regions='best')``, in which each tag meets the
    query that resembles it most, the detector's own classifier gets the loss
    by which such detectors classify: those queries are positives of their
    tags, and all queries considered are negatives of the classes that their
    tile has no tag of. Other pairs are ignored: a query with the other tags of
    its tile, and all classes in a tile without tags. The sum is divided by the
    number of tags.

    Args:
        loss (dict): See :class:`RegionTagObjective`.
        vocabulary: See :class:`RegionTagObjective`.
        query_loss (dict): Config of a loss of mmdet that takes one-hot
            targets and a weight of each, normally that of the detector's head:
            ``FocalLoss`` with ``use_sigmoid``.
        templates (str or Sequence[str]): See :class:`RegionTagObjective`.
        min_overlap (float): See :class:`RegionTagObjective`.
        max_proposals (int): Queries considered per tile.

    Raises:
        ValueError: See :class:`RegionTagObjective`, or if ``query_loss`` takes
            other arguments or gives no single number.
    """

    def __init__(self,
                 loss: dict,
                 vocabulary,
                 query_loss: dict,
                 templates: Templates = DEFAULT_TEMPLATES,
                 min_overlap: float = 0.3,
                 max_proposals: int = 10,
                 init_cfg: dict | None = None) -> None:
        super().__init__(
            loss,
            vocabulary,
            templates,
            num_compositions=0,
            regions='best',
            min_overlap=min_overlap,
            max_proposals=max_proposals,
            init_cfg=init_cfg)
        self.query_loss = MODELS.build(query_loss)
        # More rows than classes: what has one weight per row fails.
        one_hot = torch.tensor([[1, 0], [0, 1], [0, 0]])
        try:
            self.query_loss(
                torch.zeros(3, 2), one_hot, one_hot.float(),
                avg_factor=1.).item()
        except Exception as error:
            raise ValueError(
                'query_loss: expected a loss of mmdet that takes one-hot '
                "targets and a weight of each, such as dict(type='mmdet."
                f"FocalLoss', use_sigmoid=True), got {query_loss}: {error}"
            ) from error

    def check(self, name: str, detector: nn.Module, reader: BaseRegionReader,
              text_encoder: BaseTextEncoder | None) -> None:
        """Raise a TypeError if there are no queries that are classified."""
        super().check(name, detector, reader, text_encoder)
        source = getattr(reader, 'source', None)
        if not isinstance(family_of(detector),
                          TransformerFamily) or source != 'query':
            raise TypeError(
                f'objectives.{name}: {type(self).__name__} needs a DETR-like '
                'detector with a bbox_head of type mmdet_clim.ZeroShotHead, '
                "and region_reader=dict(type='mmdet_clim.DenseFeatureReader', "
                f"source='query'), got {type(detector).__name__} and "
                f'{type(reader).__name__}(source={source!r})')

    def losses(self, context: BranchContext) -> dict[str, Tensor]:
        """The tags' loss, and ``query.loss``; see the base class."""
        stage, = context.stages
        tiles = context.tiles
        regions = self.sample(tiles, stage)
        found = stage.tile_proposals(self.min_overlap, self.max_proposals)
        image, place = self._considered(tiles, found)
        considered = as_rois(image, found.boxes[image, place])
        embeddings = stage.read_as_text(torch.cat([regions.rois, considered]))
        of_tags = embeddings[:len(regions)]
        values = self.compare(of_tags, regions, context, stage.is_last)

        assert regions.tags is not None
        num_classes = len(self.classes)
        own = upload(F.one_hot(regions.tags, num_classes), embeddings)
        tags = upload(tiles.tag_table(num_classes), embeddings)
        of_tile = (found.owns[image, place][..., None] & tags[image]).any(1)
        absent = of_tile.any(1, keepdim=True) & ~of_tile
        texts = self.classes(context.text_encoder).to(embeddings.device)
        classifier: ZeroShotClassifier = context.feats.seen['classifier']
        values['query.loss'] = self.query_loss(
            classifier.text_log_odds(embeddings, texts),
            F.pad(own, (0, 0, 0, len(considered))),
            torch.cat([own, absent]).float(),
            avg_factor=mean_count(of_tags))
        return values
