# Licensed under the Apache License, Version 2.0.
"""How long a training will take here, from a few of its steps."""
import time

import torch
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.optim import build_optim_wrapper
from mmengine.registry import init_default_scope
from mmengine.runner import Runner

from mmdet_clim.models.unset_weights import (
    not_a_number_in_new_memory,
    set_what_was_left_unset,
)
from mmdet_clim.registry import MODELS

from .checkpoints import load_weights


def time_training(cfg: Config, most: float = 2.) -> dict[str, float]:
    """Try a training and its validation for a few steps.

    Args:
        cfg (Config): Of the training, of data that are there. Nothing is
            written.
        most (float): No step is begun after so many seconds of training;
            the first, which is the slowest, is then the only one that counts.

    Returns:
        dict[str, float]: Seconds of a training ``'iteration'``, of a batch of
        the ``'validation'``, and until the first iteration (``'start'``).
    """
    init_default_scope(cfg.get('default_scope', 'mmdet'))
    began = time.monotonic()
    with not_a_number_in_new_memory():
        model = MODELS.build(cfg.model)
    set_what_was_left_unset(model)
    model.to(get_device()).train()
    if cfg.get('load_from'):
        load_weights(model, cfg.load_from, needs_all=False)
    optimizer = build_optim_wrapper(model, cfg.optim_wrapper)
    batches = iter(_loader(cfg.train_dataloader))
    start = time.monotonic() - began
    times: list[float] = []
    while len(times) < 3 and sum(times) < most:
        began = time.monotonic()
        batch = next(batches, None)
        if batch is None:
            break
        model.train_step(batch, optimizer)
        times.append(time.monotonic() - began)
    result = dict(start=start, iteration=min(times), validation=0.)
    if cfg.get('val_dataloader'):
        model.eval()
        began = time.monotonic()
        with torch.no_grad():
            model.val_step(next(iter(_loader(cfg.val_dataloader))))
        result['validation'] = time.monotonic() - began
    return result


def _loader(loader: dict):
    """A data loader in this process, so that its time counts as well."""
    return Runner.build_dataloader(
        dict(loader, num_workers=0, persistent_workers=False), seed=0)
