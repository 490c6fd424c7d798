# Licensed under the Apache License, Version 2.0.
"""Any network of timm that gives feature maps, as a backbone."""
import difflib
from pathlib import Path
from typing import Any, Mapping, Sequence

import torch
from mmengine.model import BaseModule
from torch import Tensor, nn

from mmdet_clim.registry import MODELS

from ..frozen_tower import FrozenTower, fingerprint
from ..modes import batch_norms
from ..other_packages import errors_alone, package_folder, the_only_one
from .feature_cache import FeatureCache

WEIGHT_SUFFIXES = ('.pth', '.pt')
#: Where trainings keep the weights in a checkpoint.
NESTED = ('state_dict', 'model')


@MODELS.register_module()
class TimmBackbone(BaseModule):
    """A network of timm as a backbone of detectors.

    Whatever timm builds with ``features_only``: ResNets, EfficientNets,
    ConvNeXts, Swins, and vision transformers, whose maps have one size. The
    maps are timm's own, as (N, C, h, w).

    A frozen network is in no ``parameters()``, optimiser, DDP bucket or
    checkpoint, and in evaluation mode whatever happens around it: the config
    says where its weights come from, and a checkpoint holds the few MB that
    were trained. Its maps can be kept on the disk, see
    :class:`~mmdet_clim.models.backbones.feature_cache.FeatureCache`: a
    training on a CPU then costs no more than what is trained.

    Args:
        model (str): A name of ``timm.list_models()``.
        out_indices (Sequence[int], optional): Which of timm's maps, counted
            from 0, finest first; all by default.
        checkpoint (str, optional): A file of the network's weights, by timm's
            names, or under other names in the order of timm's, in which case
            every shape has to agree.
        package (str, optional): Instead of ``checkpoint``, an installed
            Python package that holds one such file. It is searched, not
            imported.
        pretrained (bool): Instead of both, whether timm fetches its own
            weights.
        frozen (bool): Whether the network stays as it is.
        norm_eval (bool): Whether batch norms keep their statistics in
            training; of a network that is not frozen.
        cache_dir (str, optional): Where the maps of a frozen network are
            kept; by default they are not.
        max_cached_images (int): How many images are kept there.
        model_args (Mapping): Further arguments of ``timm.create_model``,
            such as ``dict(dynamic_img_size=True)`` for a ViT.

    Attributes:
        out_channels (list[int]): Channels of each map.
        strides (list[int]): Pixels per cell of each map.
        mean, std (tuple[float]): By which RGB values in [0, 1] are to be
            normalised, as timm has it for the network.

    Raises:
        ValueError: If timm has no such network, it gives no such maps, the
            weights do not fit, or arguments contradict each other.
        FileNotFoundError: If there are no such weights.

    Example:
        >>> backbone = TimmBackbone('resnet18', out_indices=(2, 3, 4))
        >>> [tuple(m.shape) for m in backbone(torch.rand(1, 3, 64, 64))]
        [(1, 128, 8, 8), (1, 256, 4, 4), (1, 512, 2, 2)]
    """

    def __init__(self,
                 model: str,
                 out_indices: Sequence[int] | None = None,
                 checkpoint: str | None = None,
                 package: str | None = None,
                 pretrained: bool = False,
                 frozen: bool = False,
                 norm_eval: bool = True,
                 cache_dir: str | None = None,
                 max_cached_images: int = 10000,
                 model_args: Mapping[str, Any] | None = None,
                 init_cfg: dict | None = None) -> None:
        super().__init__(init_cfg=init_cfg)
        if sum([checkpoint is not None, package is not None, pretrained]) > 1:
            raise ValueError(
                'expected at most one of checkpoint, package and pretrained, '
                f'got checkpoint={checkpoint!r}, package={package!r}, '
                f'pretrained={pretrained}')
        if cache_dir and not frozen:
            raise ValueError('cache_dir: only maps of a frozen network can be '
                             'kept, expected frozen=True')
        if package is not None:
            checkpoint = str(find_weight_file(package))
        network = _create(model, out_indices, checkpoint, pretrained,
                          dict(model_args or {}))
        self.out_channels: list[int] = network.feature_info.channels()
        self.strides: list[int] = network.feature_info.reduction()
        self.mean = tuple(network.pretrained_cfg['mean'])
        self.std = tuple(network.pretrained_cfg['std'])
        # Of a Swin the channels are last.
        self._channels_last = str(vars(network).get('output_fmt',
                                                    'NCHW')).endswith('NHWC')
        self.frozen = frozen
        self.norm_eval = norm_eval
        self.timm_model = FrozenTower(network) if frozen else network
        self.cache: FeatureCache | None = None
        if cache_dir:
            self.cache = FeatureCache(
                cache_dir,
                f'{model}-{fingerprint(network, self.strides)[:16]}',
                max_images=max_cached_images)

    @property
    def network(self) -> nn.Module:
        """The network of timm, frozen or not."""
        return self.timm_model.tower if self.frozen else self.timm_model

    def train(self, mode: bool = True) -> 'TimmBackbone':
        """Set the mode, batch norms as ``norm_eval`` says."""
        super().train(mode)
        if mode and self.norm_eval:
            for norm in batch_norms(self):
                norm.eval()
        return self

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Images (N, 3, H, W), normalised, to maps (N, C, h, w)."""
        if not self.frozen:
            return self._maps(images)
        with torch.no_grad():
            if self.cache is not None and len(images):
                return self.cache(images, self._maps)
            return self._maps(images)

    def _maps(self, images: Tensor) -> tuple[Tensor, ...]:
        maps = self.network(images)
        if self._channels_last:
            maps = [m.permute(0, 3, 1, 2) for m in maps]
        # mmcv's RoIAlign reads the memory as if it were contiguous.
        return tuple(m.contiguous() for m in maps)


def find_weight_file(package: str) -> Path:
    """Find the one file of weights inside an installed package.

    Args:
        package (str): Import name. The package is not imported.

    Raises:
        FileNotFoundError: If the package is missing or has no such file.
        ValueError: If it has several.
    """
    files = package_folder(package).rglob('*')
    return the_only_one(package,
                        (f for f in files if f.suffix in WEIGHT_SUFFIXES),
                        f'files that end in {WEIGHT_SUFFIXES}', 'checkpoint')


def _create(model: str, out_indices: Sequence[int] | None,
            checkpoint: str | None, pretrained: bool,
            model_args: dict[str, Any]) -> nn.Module:
    """The network, with its weights."""
    # timm imports torchvision, for which importing mmdet_clim prepares.
    import timm
    if not timm.is_model(model):
        close = difflib.get_close_matches(model, timm.list_models(), n=3)
        hint = f' (did you mean {close}?)' if close else ''
        raise ValueError(f'model={model!r} is not a timm model{hint}')
    if out_indices is not None:
        model_args['out_indices'] = tuple(out_indices)
    if checkpoint is not None:
        weights = _named_weights(model, checkpoint)
        model_args['pretrained_cfg_overlay'] = dict(
            source='', state_dict=weights)
    try:
        # Of weights of the head, which feature maps do not need.
        with errors_alone('timm.models._builder'):
            return timm.create_model(
                model,
                features_only=True,
                pretrained=pretrained or checkpoint is not None,
                **model_args)
    except (RuntimeError, AssertionError, IndexError, AttributeError) as error:
        raise ValueError(
            f'model={model!r}, out_indices={out_indices}: timm cannot build '
            'this model with these feature maps '
            f'({str(error).strip().partition(chr(10))[0] or "no reason given"}'
            ')') from error


def _named_weights(model: str, checkpoint: str) -> dict[str, Tensor]:
    """The weights of a file under timm's names."""
    import timm

    # The engine knows the models, and is imported after them.
    from mmdet_clim.engine.checkpoints import read_checkpoint
    held = read_checkpoint(checkpoint)
    for key in NESTED:
        if isinstance(held.get(key), Mapping):
            held = held[key]
    with torch.random.fork_rng(devices=[]):
        whole = timm.create_model(model)
    own = whole.state_dict()
    classifier = whole.pretrained_cfg.get('classifier') or ()
    heads = (classifier, ) if isinstance(classifier, str) else classifier
    needed = [
        name for name in own if not name.endswith('num_batches_tracked')
        and name.rpartition('.')[0] not in heads
    ]
    missing = [name for name in needed if name not in held]
    if not missing:
        return dict(held)
    shapes = [tuple(value.shape) for value in held.values()]
    if len(missing) == len(needed) and \
            shapes == [tuple(value.shape) for value in own.values()]:
        return dict(zip(own, held.values()))
    raise ValueError(
        f'checkpoint={checkpoint!r} does not have the weights of '
        f'model={model!r}: {len(missing)} of {len(needed)} are missing, '
        f'such as {missing[:3]}; it has {len(held)}, such as '
        f'{list(held)[:3]}')
