# Licensed under the Apache License, Version 2.0.
import logging
from contextlib import nullcontext
from typing import Mapping, Sequence, cast

import torch
from mmdet.models.detectors import BaseDetector
from mmdet.structures import SampleList
from mmengine.logging import print_log
from torch import Tensor, nn

from mmdet_clim.checks import check_loss_names
from mmdet_clim.registry import MODELS

from ..activation_checkpoints import check_checkpoints, not_reentrant
from ..connected_zero import connected_zero
from ..data_preprocessors import BOXES_BRANCH, BranchDataPreprocessor
from ..losses import CLIMRegionLoss
from ..losses.gather import exchange_counts
from ..modes import batch_norms
from ..objectives import AnnotatedContext, BranchContext
from ..region_readers import build_region_reader, features_once
from ..roi_heads import PseudoWordClassifier, ZeroShotClassifier
from ..text_encoders import (
    BaseTextEncoder,
    build_text_encoder,
    encode_classes,
    encoder_key,
)

DETECTOR_PREFIX = 'detector.'
# Classes by which two text encoders are compared, and the least cosine that
# their embeddings have if both are of one CLIP, with other prompts.
NUM_COMPARED = 8
LEAST_COSINE = 0.5
CERTAIN_LOGIT = 5.0  # a probability of 0.993


@MODELS.register_module()
class CLIMDetector(BaseDetector):
    """Train any detector with CLIM beside its own losses.

    A training batch holds samples of several branches. Those of ``boxes`` go
    to the wrapped detector's own loss, under its own names; those of every
    other branch go to that branch's objectives, whose losses and metrics are
    named ``{branch}.{objective}.loss`` and so on. An objective that needs no
    texts may also be one of ``boxes``. At test time the wrapper is
    transparent. A checkpoint of the plain detector loads as it is; the other
    way goes through ``tools/checkpoints/strip_wrapper.py``.

    Args:
        detector (dict): Config of any mmdet detector.
        objectives (dict): Name to config of a region objective.
        text_encoder (dict, optional): Config of the frozen text encoder.
            Defaults to that of the detector's own classifier, read to the
            end (without ``before_projection``). None where it has none, and
            no objective needs one, as ``GroundingObjective``.
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
        frozen (Sequence[str]): Parts of the names of the detector's weights
            that stay as they are, such as ``backbone``. A learning rate of
            zero would do that too, but compute their gradients and count
            them where the norm of all is clipped.
        init_cfg (dict, optional): Config of the initialisation.

    Raises:
        ValueError: If there is no objective, a branch names one that does not
            exist, a part of the detector is checkpointed by fairscale
            (``num_cp``), a name would be mistaken for another loss, texts
            and classes are embedded by two encoders of different spaces,
            an objective of ``boxes`` needs texts, or no weight is called as
            ``frozen`` says.
        TypeError: If no region reader fits the detector, or an objective
            needs a text encoder and there is none.
    """

    def __init__(self,
                 detector: dict,
                 objectives: Mapping[str, dict],
                 text_encoder: dict | None = None,
                 region_reader: dict | None = None,
                 branches: Mapping[str, Sequence[str]] | None = None,
                 data_preprocessor: dict | None = None,
                 norm_eval: bool = True,
                 frozen: Sequence[str] = (),
                 init_cfg: dict | None = None) -> None:
        branches = _check_branches(objectives, branches)
        built: nn.Module = MODELS.build(detector)
        check_checkpoints(built)
        own = BranchDataPreprocessor(built.data_preprocessor)
        super().__init__(data_preprocessor or own, init_cfg)
        self.detector = built
        _freeze(built, frozen)
        parts = built.modules()
        classifiers = [m for m in parts if isinstance(m, ZeroShotClassifier)]
        if text_encoder is None and classifiers:
            text_encoder = _without(classifiers[0].text_encoder_cfg,
                                    'before_projection')
        # None where no objective needs one.
        self.text_encoder = cast(
            BaseTextEncoder, text_encoder and build_text_encoder(text_encoder))
        # Without one, nothing reads the reader's embeddings.
        dim = self.text_encoder.dim if text_encoder else 1
        self.region_reader = build_region_reader(region_reader, built, dim)
        if not list(self.region_reader.parameters()):
            # What is read is what the detector classifies by.
            for classifier in classifiers:
                _check_one_space(classifier, cast(dict, text_encoder),
                                 self.text_encoder)
        made = {name: MODELS.build(cfg) for name, cfg in objectives.items()}
        self.objectives = nn.ModuleDict(made)
        for name, objective in self.objectives.items():
            objective.check(name, built, self.region_reader, self.text_encoder)
            if classifiers and not list(self.region_reader.parameters()):
                _compare_biases(name, objective, classifiers)
            if objective.needs_texts and name in branches.get(
                    BOXES_BRANCH, ()):
                raise ValueError(
                    f'branches: {BOXES_BRANCH!r} has images with boxes and '
                    f'no texts, which objectives.{name}, a '
                    f'{type(objective).__name__}, needs')
        self.branches = branches
        self.norm_eval = norm_eval
        self.register_load_state_dict_pre_hook(_accept_plain_detector)
        num_norms = len(batch_norms(built))
        if num_norms:
            done = 'keep their statistics' if norm_eval else \
                'may follow the statistics of mosaics'
            print_log(
                f'CLIMDetector: {num_norms} batch norms of the detector '
                f'{done} (norm_eval={norm_eval})', 'current',
                logging.INFO if norm_eval else logging.WARNING)

    def train(self, mode: bool = True) -> 'CLIMDetector':
        """Set the mode, batch norms as ``norm_eval`` says."""
        super().train(mode)
        if mode and self.norm_eval:
            for norm in batch_norms(self.detector):
                norm.eval()
        return self

    def forward(self,
                inputs: Tensor | dict[str, Tensor],
                data_samples: SampleList | dict[str, SampleList] | None = None,
                mode: str = 'tensor'):
        """Losses of all branches; a plain tensor goes to the detector."""
        if isinstance(inputs, Mapping):
            if mode != 'loss':
                raise ValueError(
                    f'mode: branches have only a loss, got mode={mode!r}')
            return self.loss(
                cast(dict[str, Tensor], inputs),
                cast(dict[str, SampleList], data_samples))
        return self.detector(inputs, data_samples, mode)

    def loss(self, batch_inputs: dict[str, Tensor],
             batch_data_samples: dict[str, SampleList]) -> dict[str, Tensor]:
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
        self._check_ranks(batch_inputs)
        unknown = set(batch_inputs) - {BOXES_BRANCH} - set(self.branches)
        if unknown:
            raise ValueError(
                f'branches: the batch contains {sorted(unknown)}, expected '
                f'only {sorted({BOXES_BRANCH} | set(self.branches))}')
        losses = {}
        # Objectives of `boxes` read the maps that the detector learns from.
        sharing = features_once(self.detector) \
            if BOXES_BRANCH in self.branches else nullcontext()
        with not_reentrant(), sharing:
            if BOXES_BRANCH in batch_inputs:
                losses.update(
                    self.detector.loss(batch_inputs[BOXES_BRANCH],
                                       batch_data_samples[BOXES_BRANCH]))
            for branch in self.branches:
                if branch in batch_inputs:
                    losses.update(
                        self.branch_loss(branch, batch_inputs[branch],
                                         batch_data_samples[branch]))
        if len(batch_inputs) < len({BOXES_BRANCH, *self.branches}):
            # Under DDP every rank must reach the same parameters.
            losses['absent_branches.loss'] = connected_zero([self])
        return losses

    def _check_ranks(self, batch_inputs: Mapping[str, Tensor]) -> None:
        """Refuse a batch whose branches are not those of all ranks.

        A rank would wait for ever for what another one does not compute.
        """
        branches = list(dict.fromkeys([BOXES_BRANCH, *self.branches]))
        table = exchange_counts(*(name in batch_inputs for name in branches))
        for name, present in zip(branches, table):
            if len(set(present)) > 1:
                lacking = [r for r, has in enumerate(present) if not has]
                raise ValueError(
                    f'branches: expected {name!r} in the batch of every rank '
                    f'or of none, missing on ranks {lacking}; a '
                    'MultiSourceSampler draws from each source for every '
                    'batch')

    def branch_loss(self, branch: str, inputs: Tensor,
                    data_samples: SampleList) -> dict[str, Tensor]:
        """Losses and metrics of the objectives of one branch.

        Args:
            branch (str): Name of the branch.
            inputs (Tensor): Images (N, 3, H, W).
            data_samples (list[DetDataSample]): N packed mosaics; of
                ``boxes``, N images with their boxes.
        """
        kind = AnnotatedContext if branch == BOXES_BRANCH else BranchContext
        context = kind(self.detector, self.region_reader, self.text_encoder,
                       inputs, data_samples)
        return {
            f'{branch}.{name}.{key}': value
            for name in self.branches[branch]
            for key, value in self.objectives[name].losses(context).items()
        }

    def predict(self, batch_inputs: Tensor,
                batch_data_samples: SampleList) -> SampleList:
        """The wrapped detector's own prediction."""
        return self.detector.predict(batch_inputs, batch_data_samples)

    def _forward(self,
                 batch_inputs: Tensor,
                 batch_data_samples: SampleList | None = None):
        return self.detector(batch_inputs, batch_data_samples, 'tensor')

    def extract_feat(self, batch_inputs: Tensor):
        """The wrapped detector's own feature maps."""
        return self.detector.extract_feat(batch_inputs)


def _check_branches(
        objectives: Mapping[str, dict],
        branches: Mapping[str, Sequence[str]] | None) -> dict[str, list[str]]:
    if not objectives:
        raise ValueError('objectives: expected at least one, got none')
    if branches is None:
        branches = dict(mosaic=list(objectives))
    lists = {name: list(of) for name, of in branches.items()}
    for branch, names in lists.items():
        unknown = sorted(set(names) - set(objectives))
        if unknown or not names:
            raise ValueError(f'branches[{branch!r}]: expected names out of '
                             f'{sorted(objectives)}, got {names}')
    unused = set(objectives) - {n for of in lists.values() for n in of}
    if unused:
        raise ValueError(f'objectives: no branch uses {sorted(unused)}')
    check_loss_names('objectives and branches', (*objectives, *lists))
    return lists


def _freeze(detector: nn.Module, frozen: Sequence[str]) -> None:
    """Have no gradient of the weights that are called so."""
    weights = dict(detector.named_parameters())
    for part in frozen:
        named = [weight for name, weight in weights.items() if part in name]
        if not named:
            raise ValueError(
                f'frozen: no weight of {type(detector).__name__} has {part!r} '
                'in its name, expected a part such as '
                f'{", ".join(dict.fromkeys(n.split(".")[0] for n in weights))}'
            )
        for weight in named:
            weight.requires_grad_(False)


def _without(cfg: Mapping, *keys: str) -> dict:
    """A config without some of its keys."""
    return {key: value for key, value in cfg.items() if key not in keys}


def _compare_biases(name: str, objective: nn.Module,
                    classifiers: Sequence[ZeroShotClassifier]) -> None:
    """Warn where a loss keeps texts away only where the classifier is certain.

    A cosine at which the loss is undecided about a text should not be one at
    which the classifier is certain of it: such texts are never kept away.
    """
    for loss in objective.modules():
        if not isinstance(loss, CLIMRegionLoss) or loss.bias is None:
            continue
        bias = torch.as_tensor(loss.bias).item()
        undecided = -bias / loss.temperature
        of_head = classifiers[0].logit_bias
        start = 0. if of_head is None else of_head.item()
        logit = classifiers[0].temperature * undecided + start
        if logit > CERTAIN_LOGIT:
            print_log(
                f'objectives.{name}: its loss is undecided about a text at a '
                f'cosine of {undecided:.2f} (bias {bias:g}), where the '
                f'detector is certain of it already (bias {start:g}, a logit '
                f'of {logit:.1f}); expected bias={start:g} or '
                "kind='softmax', or the detector will take much for objects",
                'current', logging.WARNING)


def _check_one_space(classifier: ZeroShotClassifier, cfg: Mapping,
                     text_encoder: BaseTextEncoder) -> None:
    """Refuse texts that are of another space than the classes."""
    own = classifier.text_encoder_cfg
    # Where regions are words, what is compared is what the encoder takes.
    apart = ('before_projection', ) if isinstance(classifier,
                                                  PseudoWordClassifier) else ()
    if encoder_key(_without(cfg,
                            *apart)) == encoder_key(_without(own, *apart)):
        return
    names = classifier.vocabulary.names[:NUM_COMPARED]
    compared = classifier.vocabulary.subset(range(len(names)))
    try:
        texts = encode_classes(text_encoder, compared, classifier.templates)
    except KeyError:  # a file of texts, which lacks these
        return
    classes = classifier.class_embeddings[:NUM_COMPARED]
    if texts.shape[1] != classes.shape[1] or \
            (texts * classes.to(texts)).sum(1).mean() < LEAST_COSINE:
        raise ValueError(
            f'text_encoder: expected the same embeddings as those of the '
            "detector's own text encoder, which its regions are compared "
            f'with; that of {names[0]!r} differs; give None or '
            f'{dict(classifier.text_encoder_cfg)}, got {dict(cfg)}; or read '
            "regions with region_reader=dict(type='mmdet_clim."
            "DenseFeatureReader', source='neck'), which has a projection of "
            'its own')


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
