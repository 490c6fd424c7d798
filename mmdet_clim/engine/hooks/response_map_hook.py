# Licensed under the Apache License, Version 2.0.
from collections.abc import Sequence

import mmcv
import numpy as np
import torch
from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from torch import Tensor

from mmdet_clim.checks import check_range
from mmdet_clim.datasets.image_files import read_image_file
from mmdet_clim.registry import HOOKS
from mmdet_clim.visualization import (
    ModelView,
    picture_grid,
    response_rows,
    view_model,
)


@HOOKS.register_module()
class ResponseMapHook(Hook):
    """Show where the model answers to words, before and after training.

    Before the first iteration and at each validation, the model in training
    looks at the given images. The picture goes to every backend of the
    runner's visualizer as ``responses``: of each image a row as it was at the
    start of this run, and one as it is, on a scale that both share.

    Args:
        images (Sequence[str]): Files.
        texts (Sequence[str]): Words or sentences, embedded as they are.
        size (int): Longer side in pixels at which the model sees an image.
        side (int): Longer side of a map in the picture, in pixels.

    Raises:
        ValueError: If there is no image or no text, or a size is below 1.
        FileNotFoundError: At the start of the run, if an image is not there.
        TypeError: Likewise, if the model does not classify by text.
    """

    # After hooks that put averaged weights in place for the validation.
    priority = 'LOW'

    def __init__(self,
                 images: Sequence[str],
                 texts: Sequence[str],
                 size: int = 640,
                 side: int = 224) -> None:
        for name, values in (('images', images), ('texts', texts)):
            if isinstance(values, str) or not len(values):
                raise ValueError(f'{name}: expected a list with at least one, '
                                 f'got {values!r}')
        check_range(1, size=size, side=side)
        self.images = tuple(images)
        self.texts = tuple(texts)
        self.size = size
        self.side = side
        self._loaded: list[np.ndarray] = []
        # Iteration -> maps of each image; of the start of the run.
        self._start: dict[int, list[Tensor]] = {}
        self._view: ModelView | None = None

    def before_run(self, runner) -> None:
        """Read the images."""
        self._loaded = [
            mmcv.imrescale(read_image_file(path), (self.size, self.size))
            for path in self.images
        ]

    def before_train(self, runner) -> None:
        """Draw how the model answers at the start."""
        if is_main_process():
            self._start = {runner.iter: self._responses(runner.model)}
            self._draw(runner, self._start)

    def before_val_epoch(self, runner) -> None:
        """Draw how it answers now, below how it answered at the start."""
        # The validation of a run that begins with one has the start's maps.
        if is_main_process() and runner.iter not in self._start:
            self._draw(
                runner, {
                    **self._start, runner.iter: self._responses(runner.model)
                })

    @torch.no_grad()
    def _responses(self, model) -> list[Tensor]:
        """Maps (T, H, W) of each image."""
        model = model.module if is_model_wrapper(model) else model
        if self._view is None:
            # A reader may have weights of its own, which are drawn.
            with torch.random.fork_rng(devices=[]):
                self._view = view_model(model)
        training = model.training
        model.eval()
        texts = self._view.encode_texts(self.texts)
        maps = []
        for image in self._loaded:
            seen = self._view.look(
                torch.from_numpy(image.transpose(2, 0, 1).copy()))
            maps.append(self._view.responses(seen, texts).cpu())
        model.train(training)
        return maps

    def _draw(self, runner, responses: dict[int, list[Tensor]]) -> None:
        rows, names = [], []
        for index, image in enumerate(self._loaded):
            rgb = image[..., ::-1]
            maps = [of_step[index] for of_step in responses.values()]
            rows += [[rgb, *row] for row in response_rows(rgb, maps)]
            names += [f'iteration {step}' for step in responses]
        picture = picture_grid(rows, ['', *self.texts], names, self.side)
        runner.visualizer.add_image('responses', np.asarray(picture),
                                    runner.iter)
