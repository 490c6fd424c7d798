# Licensed under the Apache License, Version 2.0.
"""Several trainings one after the other in one process, each done once."""
import copy
import gc
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.hooks import Hook, LoggerHook

from .config_checks import check_options
from .fingerprint import open_run, run_fingerprint
from .runner import begin_with, build_runner

#: Called with what is counted, how many are done, how many there are.
Report = Callable[[str, int, int], None]


def resolve_run(config: Path, work_dir: Path, seed: int,
                options: Mapping[str, Any]) -> Config:
    """The config of a run, as it is trained.

    Args:
        config (Path): The file.
        work_dir (Path): Of this run alone.
        seed (int): Of all randomness.
        options (Mapping): Settings that override the config's, by keys in
            dots, as ``--cfg-options`` has them.

    Returns:
        Config: With all of them.

    Raises:
        KeyError: If an option is none.
    """
    cfg = Config.fromfile(config)
    cfg.work_dir = str(work_dir)
    cfg.randomness = dict(cfg.get('randomness', {}), seed=seed)
    check_options(cfg, options)
    cfg.merge_from_dict(dict(options))
    return cfg


def finish_training(cfg: Config,
                    overwrite: bool = False,
                    report: Report | None = None) -> Path:
    """Train a config to its end, going on where a stopped run was.

    Args:
        cfg (Config): Of :func:`resolve_run`.
        overwrite (bool): Begin anew whatever the work dir holds.
        report (Callable, optional): Is told each ``'iteration'`` and each
            batch of the ``'validation'``.

    Returns:
        Path: The last checkpoint.

    Raises:
        FileExistsError: If the work dir holds a run of another config, seed
            or version.
    """
    work_dir = Path(cfg.work_dir)
    with open_run(work_dir, run_fingerprint(cfg), overwrite) as finished:
        if not finished:
            _train(copy.deepcopy(cfg), report)
            # The processes that load its data end with the runner.
            gc.collect()
    last = Path((work_dir / 'last_checkpoint').read_text().strip())
    # The folder may have been moved since.
    here = work_dir / last.name
    return here if here.is_file() else last


def _train(cfg: Config, report: Report | None) -> None:
    if cfg.get('visualizer'):
        # One of the same name would write into the run before.
        cfg.visualizer.name = f'{cfg.work_dir} {time.time_ns()}'
    runner = build_runner(cfg)
    begin_with(runner, resume=True)
    watch = _ReportHook(report)
    runner.register_hook(watch, 'VERY_LOW')
    runner.train()
    if runner.val_loop is not None and watch.validated_at != runner.iter:
        # It was stopped between the last checkpoint and its validation.
        for hook in runner.hooks:
            if isinstance(hook, LoggerHook):
                hook.log_metric_by_epoch = False
        runner.val()


class _ReportHook(Hook):
    """Says how far a run is."""

    def __init__(self, report: Report | None) -> None:
        self.report = report or (lambda what, done, total: None)
        self.validated_at = -1

    def before_train(self, runner) -> None:
        self.report('iteration', runner.iter, runner.max_iters)

    def after_train_iter(self,
                         runner,
                         batch_idx: int,
                         data_batch: dict | None = None,
                         outputs: dict | None = None) -> None:
        self.report('iteration', runner.iter + 1, runner.max_iters)

    def after_val_iter(self,
                       runner,
                       batch_idx: int,
                       data_batch: dict | None = None,
                       outputs: Any = None) -> None:
        self.report('validation', batch_idx + 1, len(runner.val_dataloader))

    def after_val_epoch(self, runner, metrics: dict | None = None) -> None:
        self.validated_at = runner.iter
