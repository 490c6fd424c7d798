# Licensed under the Apache License, Version 2.0.
"""Distributed runs on machines without an accelerator."""
from datetime import timedelta

from mmengine.config import Config
from mmengine.device import get_device
from torch import distributed


def prepare_cpu_processes(cfg: Config) -> None:
    """Let torchrun's processes train and test on CPUs.

    MMEngine 0.10 gives every process that torchrun starts a GPU, and stops
    where there is none. This joins the process group with gloo before the
    runner does, which then leaves it as it is, and has the model wrapped
    without a GPU. Nothing is changed for one process, with an accelerator,
    or for other launchers.

    Args:
        cfg (Config): The config of the run, with ``launcher``. The timeout in
            ``env_cfg.dist_cfg`` holds, in seconds; its backend, normally
            nccl, is for GPUs. Gets a ``model_wrapper_cfg`` where it has none.
    """
    if cfg.get('launcher', 'none') != 'pytorch' or get_device() != 'cpu':
        return
    timeout = cfg.get('env_cfg', {}).get('dist_cfg', {}).get('timeout')
    distributed.init_process_group(
        'gloo',
        timeout=None if timeout is None else timedelta(seconds=timeout))
    wrapper = cfg.get('model_wrapper_cfg')
    if wrapper is None:
        wrapper = dict(
            type='MMDistributedDataParallel',
            broadcast_buffers=False,
            find_unused_parameters=cfg.get('find_unused_parameters', False))
    cfg.model_wrapper_cfg = {'device_ids': None, **wrapper}
