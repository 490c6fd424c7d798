# Licensed under the Apache License, Version 2.0.
from typing import Dict, List, Mapping, Optional, Sequence, Union

import torch
from mmdet.models.detectors import BaseDetector
from mmdet.structures import SampleList
from mmdet.structures.bbox import bbox2roi
from mmengine.logging import print_log
from mmengine.structures import InstanceData
from mmengine.utils.dl_utils.parrots_wrapper import _BatchNorm
from torch import Tensor, nn

from mmdet_clim.models.data_preprocessors import (
    BOXES_BRANCH,
    BranchDataPreprocessor,
)
from mmdet_clim.models.objectives import (
    BaseRegionObjective,
    GroundingObjective,
)
from mmdet_clim.models.region_readers import (
    ReadingStage,
    build_region_reader,
)
from mmdet_clim.registry import MODELS

DETECTOR_PREFIX = 'detector.'


@MODELS.register_module()
class CLIMDetector(BaseDetector):
    """Train any detector with CLIM beside its own losses.

    A training batch holds samples of several branches. Those of ``boxes`` go
    to the wrapped detector's own loss, under its own names; those of every
    other branch go to that branch's objectives, whose losses and metrics are
    named ``{branch}.{objective}.loss`` and so on. At test time the wrapper is
    transparent. A checkpoint of the plain detector loads as it is; the other
    way goes through ``tools/checkpoints/strip_wrapper.py``.

    Args:
        detector (dict): Config of any mmdet detector.
        objectives (dict): Name to config of a region objective.
        text_encoder (dict, optional): Config of the frozen text encoder; None
            where no objective needs one, as ``GroundingObjective``.
        region_reader (dict, optional): Config of the region reader. Defaults
            to the one that fits the detector.
        branches (dict, optional): Branch to the names of its objectives.
            Defaults to every objective on ``mosaic``.
        data_preprocessor (dict, optional): Config of the preprocessor.
            Defaults to the detector's own, applied to each branch.
        norm_eval (bool): Whether the batch norms of the detector use their
            stored statistics in training. Mosaics and captioned images have
            other statistics than the images at test time: a batch norm that
            follows them loses the detector (base AP50 94 to 31 in 300 steps
            in a trial). Set it to False only where that is wanted.
        init_cfg (dict, optional): Config of the initialisation.

    Raises:
        ValueError: If there is no objective, a branch names one that does not
            exist, or a name would be mistaken for another loss.
        TypeError: If no region reader fits the detector, or an objective
            needs a text encoder and there is none.
    """

    def __init__(self,
                 detector: dict,
                 objectives: Mapping[str, dict],
                 text_encoder: Optional[dict] = None,
                 region_reader: Optional[dict] = None,
                 branches: Optional[Mapping[str, Sequence[str]]] = None,
                 data_preprocessor: Optional[dict] = None,
                 norm_eval: bool = True,
                 init_cfg: Optional[dict] = None) -> None:
        branches = _check_branches(objectives, branches)
        detector = MODELS.build(detector)
        super().__init__(
            data_preprocessor=data_preprocessor
            or BranchDataPreprocessor(detector.data_preprocessor),
            init_cfg=init_cfg)
        self.detector = detector
        self.text_encoder = text_encoder and MODELS.build(text_encoder)
        # Without one, nothing reads the reader's embeddings.
        dim = self.text_encoder.dim if text_encoder else 1
        self.region_reader = build_region_reader(region_reader, detector, dim)
        self.objectives = nn.ModuleDict({
            name: MODELS.build(cfg)
            for name, cfg in objectives.items()
        })
        for name, objective in self.objectives.items():
            if isinstance(objective, GroundingObjective):
                objective.check(self.region_reader)
            elif text_encoder is None:
                raise TypeError(f'text_encoder: objectives.{name}, a '
                                f'{type(objective).__name__}, needs one, got '
                                'None')
        self.branches = branches
        self.norm_eval = norm_eval
        self.register_load_state_dict_pre_hook(_accept_plain_detector)
        num_norms = len(list(self._batch_norms()))
        if num_norms and norm_eval:
            print_log(
                f'CLIMDetector keeps the statistics of {num_norms} batch '
                'norms of the detector (norm_eval=True)', 'current')
        elif num_norms:
            print_log(
                f'CLIMDetector: {num_norms} batch norms may follow the '
                'statistics of mosaics (norm_eval=False)',
                'current',
                level=30)

    def _batch_norms(self):
        return (module for module in self.detector.modules()
                if isinstance(module, _BatchNorm))

    def train(self, mode: bool = True) -> 'CLIMDetector':
        """Set the mode, batch norms as ``norm_eval`` says."""
        super().train(mode)
        if mode and self.norm_eval:
            for module in self._batch_norms():
                module.eval()
        return self

    def forward(self,
                inputs: Union[Tensor, Dict[str, Tensor]],
                data_samples: Union[SampleList, Dict[str, SampleList],
                                    None] = None,
                mode: str = 'tensor'):
        """Losses of all branches; a plain tensor goes to the detector."""
        if isinstance(inputs, Mapping):
            if mode != 'loss':
                raise ValueError(
                    f'mode: branches have only a loss, got mode={mode!r}')
            return self.loss(inputs, data_samples)
        return self.detector(inputs, data_samples, mode)

    def loss(self, batch_inputs: Dict[str, Tensor],
             batch_data_samples: Dict[str, SampleList]) -> Dict[str, Tensor]:
        """Losses and metrics of all branches.

        Args:
            batch_inputs (dict[str, Tensor]): Branch to images (N, 3, H, W).
            batch_data_samples (dict[str, list]): Branch to N samples.

        Returns:
            dict: The detector's own losses for ``boxes``, and
            ``{branch}.{objective}.{value}``.

        Raises:
            ValueError: If the batch has a branch that is not configured.
        """
        unknown = set(batch_inputs) - {BOXES_BRANCH} - set(self.branches)
        if unknown:
            raise ValueError(
                f'branches: the batch holds {sorted(unknown)}, configured are '
                f'{sorted({BOXES_BRANCH} | set(self.branches))}')
        losses = {}
        if BOXES_BRANCH in batch_inputs:
            losses.update(
                self.detector.loss(batch_inputs[BOXES_BRANCH],
                                   batch_data_samples[BOXES_BRANCH]))
        for branch in self.branches:
            if branch in batch_inputs:
                losses.update(
                    self.branch_loss(branch, batch_inputs[branch],
                                     batch_data_samples[branch]))
        if len(batch_inputs) <= len(self.branches):
            # Under DDP every rank must reach the same parameters.
            losses['absent_branches.loss'] = sum(
                param.sum() * 0 for param in self.parameters()
                if param.requires_grad)
        return losses

    def branch_loss(self, branch: str, inputs: Tensor,
                    data_samples: SampleList) -> Dict[str, Tensor]:
        """Losses and metrics of the objectives of one branch.

        Where the reader has several stages, a loss is the sum over them with
        the stages' weights, and a metric their average.

        Args:
            branch (str): Name of the branch.
            inputs (Tensor): Images (N, 3, H, W).
            data_samples (list[DetDataSample]): N packed mosaics.
        """
        objectives = {
            name: self.objectives[name]
            for name in self.branches[branch]
        }
        feats = self.region_reader.extract_feat(self.detector, inputs)
        losses: Dict[str, Tensor] = {}
        for name, objective in list(objectives.items()):
            if isinstance(objective, GroundingObjective):
                del objectives[name]
                values = objective.loss(self.region_reader, self.detector,
                                        feats, data_samples)
                losses.update({
                    f'{branch}.{name}.{key}': value
                    for key, value in values.items()
                })
        if not objectives:
            return losses
        if any(o.needs_proposals for o in objectives.values()):
            proposals = self.region_reader.propose(self.detector, feats,
                                                   data_samples)
        else:
            proposals = [
                InstanceData(
                    bboxes=inputs.new_zeros(0, 4), scores=inputs.new_zeros(0))
            ] * len(data_samples)
        if any(o.needs_images for o in objectives.values()):
            for sample, image in zip(data_samples, inputs):
                sample.network_input = image
        for stage in self.region_reader.stages(self.detector, feats, proposals,
                                               data_samples):
            for key, value in self._stage_loss(objectives, stage,
                                               data_samples).items():
                key = f'{branch}.{key}'
                losses[key] = losses[key] + value if key in losses else value
        return losses

    def _stage_loss(self, objectives: Dict[str, BaseRegionObjective],
                    stage: ReadingStage,
                    data_samples: SampleList) -> Dict[str, Tensor]:
        """One stage's summand of each loss and metric of a branch."""
        samples = {
            name: [
                objective.sample(*pair)
                for pair in zip(stage.proposals, data_samples)
            ]
            for name, objective in objectives.items()
        }
        rois = [bbox2roi([s.bboxes for s in of]) for of in samples.values()]
        embeddings = stage.read(torch.cat(rois))
        summands = {}
        for (name, objective), regions in zip(
                objectives.items(), embeddings.split([len(r) for r in rois])):
            values = objective.loss(regions, samples[name], self.text_encoder,
                                    stage.is_last)
            for key, value in values.items():
                # Losses are weighted sums over stages, metrics averages.
                share = stage.weight if 'loss' in key else 1 / stage.count
                summands[f'{name}.{key}'] = value * share
        return summands

    def predict(self, batch_inputs: Tensor,
                batch_data_samples: SampleList) -> SampleList:
        """The wrapped detector's own prediction."""
        return self.detector.predict(batch_inputs, batch_data_samples)

    def _forward(self,
                 batch_inputs: Tensor,
                 batch_data_samples: Optional[SampleList] = None):
        return self.detector(batch_inputs, batch_data_samples, 'tensor')

    def extract_feat(self, batch_inputs: Tensor):
        """The wrapped detector's own feature maps."""
        return self.detector.extract_feat(batch_inputs)


def _check_branches(
        objectives: Mapping[str, dict],
        branches: Optional[Mapping[str,
                                   Sequence[str]]]) -> Dict[str, List[str]]:
    if not objectives:
        raise ValueError('objectives: expected at least one, got none')
    if branches is None:
        branches = dict(mosaic=list(objectives))
    branches = {name: list(of) for name, of in branches.items()}
    if BOXES_BRANCH in branches:
        raise ValueError(f"branches: {BOXES_BRANCH!r} is the detector's own "
                         'branch and takes no objectives')
    for branch, names in branches.items():
        unknown = sorted(set(names) - set(objectives))
        if unknown or not names:
            raise ValueError(f'branches[{branch!r}]: expected names out of '
                             f'{sorted(objectives)}, got {names}')
    unused = set(objectives) - {n for of in branches.values() for n in of}
    if unused:
        raise ValueError(f'objectives: no branch uses {sorted(unused)}')
    for name in (*objectives, *branches):
        # MMEngine sums every value whose name holds "loss".
        if 'loss' in name or '.' in name:
            raise ValueError('objectives and branches: a name may not hold '
                             f'"loss" or a dot, got {name!r}')
    return branches


def _accept_plain_detector(module: CLIMDetector, state_dict: dict, prefix: str,
                           *args) -> None:
    """Let a checkpoint of the plain detector load in the wrapper.

    What the wrapper adds stays as it is, and is not reported as missing.
    """
    own = [key for key in state_dict if key.startswith(prefix)]
    if any(key.startswith(prefix + DETECTOR_PREFIX) for key in own):
        return
    for key in own:
        name = prefix + DETECTOR_PREFIX + key[len(prefix):]
        state_dict[name] = state_dict.pop(key)
    for name, value in module.state_dict(prefix=prefix).items():
        if not name.startswith(prefix + DETECTOR_PREFIX):
            state_dict[name] = value
