# Licensed under the Apache License, Version 2.0.
"""Trained weights of a CLIP averaged with its original ones."""
from pathlib import Path

import torch
from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from torch import Tensor

from mmdet_clim.checks import check_range
from mmdet_clim.engine.checkpoints import save_atomically
from mmdet_clim.registry import HOOKS

VISUAL = 'image_tower.visual.'


@HOOKS.register_module()
class WeightAveragingHook(Hook):
    r"""Save a refined CLIP for open_clip, averaged with the original.

    Saved and validated is :math:`\alpha\,\text{trained} + (1 - \alpha)\,
    \text{original}` (REFERENCE.md, section 4: 0.7 for ViT-B/16, 0.5 for
    RN50x64). The training goes on from the trained weights, which are what
    MMEngine's own checkpoints hold, those of ``save_best`` too. The original
    is the CLIP that ``image_tower.pretrained`` names, also in a run that
    begins with ``load_from`` or is resumed.

    The file holds the whole CLIP, text tower too, and is what
    ``open_clip.create_model(name, pretrained=FILE)`` reads.

    Args:
        alpha (float): The weight of the trained tower.
        filename (str): The file in the work dir, written at the end of the
            training.
        interval (int, optional): Write it every this many iterations too.
        half (bool): In half precision, at half the size.

    Raises:
        ValueError: If ``alpha`` or ``interval`` is out of its range.
        TypeError: At the start, if the model is no ``CLIMOnCLIP``, or not of
            open_clip.
    """

    def __init__(self,
                 alpha: float = 0.7,
                 filename: str = 'open_clip.pt',
                 interval: int | None = None,
                 half: bool = False) -> None:
        check_range(0, 1, alpha=alpha)
        check_range(1, interval=interval)
        self.alpha = alpha
        self.filename = filename
        self.interval = interval
        self.half = half
        self._trained: dict[str, Tensor] = {}

    def before_train(self, runner) -> None:
        """Make sure that the model is one that can be saved so."""
        # The models are not imported where a hook of detectors is.
        from mmdet_clim.models.backbones import DenseImageTower
        from mmdet_clim.models.clip_refinement import CLIMOnCLIP
        if not isinstance(_model(runner), CLIMOnCLIP):
            raise TypeError('model: WeightAveragingHook expects a CLIMOnCLIP, '
                            f'got {type(_model(runner)).__name__}')
        tower = _model(runner).image_tower
        if not isinstance(tower, DenseImageTower):
            raise TypeError('image_tower: WeightAveragingHook saves a CLIP of '
                            'open_clip, expected a DenseImageTower, got '
                            f'{type(tower).__name__}')

    def after_train_iter(self,
                         runner,
                         batch_idx: int,
                         data_batch: dict | None = None,
                         outputs: dict | None = None) -> None:
        """Save where it is time to."""
        if self.interval and self.every_n_train_iters(runner, self.interval):
            self._save(runner)

    def after_train(self, runner) -> None:
        """Save."""
        self._save(runner)

    def before_val(self, runner) -> None:
        """Put the averaged weights in the trained ones' place."""
        visual = _model(runner).image_tower.visual
        self._trained = {
            name: value.clone()
            for name, value in visual.state_dict().items()
        }
        visual.load_state_dict(_model(runner).averaged_tower(self.alpha))

    def before_save_checkpoint(self, runner, checkpoint: dict) -> None:
        """Save the trained weights also where a validation saves.

        ``save_best`` writes its checkpoint, and that of the iteration anew,
        while the averaged weights are in the model.
        """
        for name, value in self._trained.items():
            checkpoint['state_dict'][VISUAL + name] = value.cpu()

    def after_val(self, runner) -> None:
        """Put the trained weights back."""
        _model(runner).image_tower.visual.load_state_dict(self._trained)
        self._trained = {}

    def _save(self, runner) -> None:
        if not is_main_process():
            return
        weights = _model(runner).open_clip_state_dict(self.alpha)
        if self.half:
            weights = {
                name: value.half() if value.dtype == torch.float32 else value
                for name, value in weights.items()
            }
        path = Path(runner.work_dir) / self.filename
        save_atomically(weights, path)
        runner.logger.info(
            f'{type(self).__name__}: {self.alpha:g} * trained + '
            f'{1 - self.alpha:g} * original, for open_clip: {path}')


def _model(runner):
    model = runner.model
    return model.module if is_model_wrapper(model) else model
