# Licensed under the Apache License, Version 2.0.
"""Distributed runs: who started them, and machines without an accelerator."""
import os
from datetime import timedelta

from mmengine.config import Config
from mmengine.device import get_device
from torch import distributed

#: What the programs that start processes leave in their environment.
STARTERS = dict(
    pytorch=('torchrun', ('RANK', 'WORLD_SIZE', 'MASTER_ADDR')),
    slurm=('srun', ('SLURM_PROCID', 'SLURM_NTASKS', 'SLURM_NODELIST')),
    mpi=('mpirun', ('OMPI_COMM_WORLD_LOCAL_RANK', 'OMPI_COMM_WORLD_SIZE',
                    'MASTER_ADDR')))


def check_launcher(launcher: str) -> None:
    """See that the processes of a run are those that its launcher started.

    Args:
        launcher (str): Of ``--launcher``.

    Raises:
        ValueError: If nothing started them, or torchrun did and each would
            begin a run of its own in one work dir.
    """
    if launcher == 'none':
        processes = os.environ.get('WORLD_SIZE', '1')
        if processes != '1':
            raise ValueError(
                f'--launcher: expected pytorch in one of {processes} '
                'processes that torchrun started, got none')
        return
    program, names = STARTERS[launcher]
    missing = [name for name in names if name not in os.environ]
    if missing:
        raise ValueError(
            f'--launcher {launcher}: expected a process that {program} '
            f'started, got none of its {", ".join(missing)} in the '
            'environment')


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

    Raises:
        ValueError: See :func:`check_launcher`.
    """
    check_launcher(cfg.get('launcher', 'none'))
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
