# Licensed under the Apache License, Version 2.0.
"""Pretrained weights of a part of a model, which have to fit it."""
from mmengine.model.weight_init import PretrainedInit, update_init_info
from mmengine.registry import WEIGHT_INITIALIZERS
from mmengine.runner.checkpoint import _load_checkpoint_with_prefix
from torch import nn

from .checkpoints import load_weights, read_checkpoint


@WEIGHT_INITIALIZERS.register_module(name='Pretrained', force=True)
class FittingPretrainedInit(PretrainedInit):
    """``init_cfg=dict(type='Pretrained')`` that refuses what does not fit.

    It takes the place of MMEngine's, which leaves random those weights that
    have another shape, or all of them where no name is one of the part's.
    Arguments are MMEngine's.

    Raises:
        ValueError: If a weight has another shape, or none fits.
    """

    def __call__(self, module: nn.Module) -> None:
        """Load the weights into a part of a model."""
        if self.prefix is None:
            weights = read_checkpoint(self.checkpoint)
        else:
            weights = _load_checkpoint_with_prefix(
                self.prefix, self.checkpoint, map_location='cpu')
        load_weights(module, weights, self.checkpoint, needs_all=False)
        if hasattr(module, '_params_init_info'):
            update_init_info(module, init_info=self._get_init_info())
