# Licensed under the Apache License, Version 2.0.
"""Several trainings one after the other, each done once."""
import os
import subprocess
import sys
from pathlib import Path
from typing import Mapping, Optional, Sequence

from mmengine.logging import print_log

FINISHED = 'finished'


def finish_training(tool: Path,
                    config: Path,
                    work_dir: Path,
                    seed: int,
                    options: Sequence[str] = (),
                    environment: Optional[Mapping[str, str]] = None) -> Path:
    """Train a config to its end, going on where a stopped run was.

    Args:
        tool (Path): The project's ``tools/train.py``.
        config (Path): What to train.
        work_dir (Path): Of this run alone; a file ``finished`` in it says
            that there is nothing left to do.
        seed (int): Of all randomness.
        options (Sequence[str]): For ``--cfg-options``, as ``key=value``.
        environment (Mapping[str, str], optional): Environment variables
            beside those of this process.

    Returns:
        Path: The last checkpoint.

    Raises:
        subprocess.CalledProcessError: If the training failed.
    """
    done = work_dir / FINISHED
    if not done.exists():
        print_log(f'=== {config.stem}, seed {seed} -> {work_dir}')
        subprocess.run([
            sys.executable,
            str(tool),
            str(config), '--work-dir',
            str(work_dir), '--resume', '--cfg-options',
            f'randomness.seed={seed}', *options
        ],
                       check=True,
                       env={
                           **os.environ,
                           **(environment or {})
                       })
        done.touch()
    return Path((work_dir / 'last_checkpoint').read_text().strip())
