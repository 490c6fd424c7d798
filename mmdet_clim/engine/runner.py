# Licensed under the Apache License, Version 2.0.
"""The runner of the tools: weights that fit, and no log before it runs."""
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.registry import RUNNERS
from mmengine.runner import (
    BaseLoop,
    IterBasedTrainLoop,
    Runner,
    find_latest_checkpoint,
)
from torch import nn
from torch.utils.data import DataLoader

from mmdet_clim.datasets.palette import class_palette

from .checkpoints import load_weights, read_checkpoint


class CLIMRunner(Runner):
    """MMEngine's runner, which loads weights that fit and no others.

    MMEngine replaces weights of another shape by random ones with a warning;
    see :func:`~mmdet_clim.engine.checkpoints.load_weights` for what is
    refused here. A training that begins with ``load_from`` may lack weights,
    and leaves out those that ``load_from_skip`` of the config names.

    Environment, config, hooks and the learning rate of each weight, often
    more than a thousand lines, are only in the log file. Other messages
    reach the screen once everything is built and loaded: if that fails, the
    error stands alone.
    """

    _begins_training = False
    # What a run begins with that finds nothing to resume.
    _first_weights: str | None = None

    def train(self) -> nn.Module:
        """Launch training; see MMEngine's runner."""
        self._begins_training = True
        model = super().train()
        self._end_loading()
        return model

    def val(self) -> dict:
        """Launch validation; see MMEngine's runner."""
        metrics = super().val()
        self._end_loading()
        return metrics

    def test(self) -> dict:
        """Launch testing; see MMEngine's runner."""
        metrics = super().test()
        self._end_loading()
        return metrics

    def _end_loading(self) -> None:
        """End the processes that load data.

        Were they left to the garbage collection, torch would wait five
        seconds for each: the queue that tells them to end is collected first.
        """
        for loop in (self._train_loop, self._val_loop, self._test_loop):
            if not isinstance(loop, BaseLoop):
                continue  # a config: it did not run
            if isinstance(loop, IterBasedTrainLoop):
                loop.dataloader_iterator = None
            # A loop of several data sets may have none now.
            loader = vars(loop).get('dataloader')
            if isinstance(loader, DataLoader):
                loader._iterator = None

    @staticmethod
    def build_dataloader(dataloader: DataLoader | dict, *args,
                         **kwargs) -> DataLoader:
        """Build a loader; where there is a GPU, of pinned memory by default.

        From there images reach the GPU without the host waiting.
        """
        if isinstance(dataloader, dict) and torch.cuda.is_available():
            dataloader = {'pin_memory': True, **dataloader}
        return Runner.build_dataloader(dataloader, *args, **kwargs)

    def build_logger(self, *args, **kwargs) -> logging.Logger:
        """Build the logger, quiet on the screen until all is ready."""
        logger = super().build_logger(*args, **kwargs)
        self._quiet = [
            _Held(handler) for handler in logger.handlers
            if not isinstance(handler, logging.FileHandler)
        ]
        return logger

    def load_or_resume(self) -> None:
        """Load or resume, and say what was held back."""
        if not self._has_loaded and self._resume:
            self._choose_what_to_resume()
        super().load_or_resume()
        self._colour_all_classes()
        if self._quiet:
            for held in self._quiet:
                held.release()
            self._quiet = []
            files = [
                handler.baseFilename for handler in self.logger.handlers
                if isinstance(handler, logging.FileHandler)
            ]
            if files:
                self.logger.info('environment, config and hooks: '
                                 f'{", ".join(files)}')

    def _colour_all_classes(self) -> None:
        """Have a colour for each class, where a data set has fewer."""
        meta = dict(self.visualizer.dataset_meta or {})
        if isinstance(meta.get('palette'), (list, tuple)):
            self.visualizer.dataset_meta = dict(
                meta,
                palette=class_palette(
                    len(meta.get('classes') or ()), meta['palette']))

    def _choose_what_to_resume(self) -> None:
        """The file that ``resume=True`` goes on from, or begins with.

        It is ``load_from`` where that is the state of a training, else the
        last checkpoint of the work dir; where there is none, the training
        begins with the weights of ``load_from``.
        """
        if self._load_from is not None and can_resume(self._load_from):
            return
        weights = self._load_from or self._first_weights
        found = latest_checkpoint(self.work_dir)
        self._resume = found is not None
        self._load_from = found or weights
        if self._load_from is None:
            self.logger.warning(
                f'resume: {self.work_dir} has no checkpoint and load_from is '
                'None, so the training starts from the initial weights')

    def load_checkpoint(self, filename: str, *args, **kwargs) -> dict:
        """Load weights; see ``load_weights`` for what is refused.

        Args:
            filename (str): A file, or an address that MMEngine knows.
            *args: Not used: tensors are read to the CPU, names are those of
                the model or of its wrapper.
            **kwargs: Not used.

        Returns:
            dict: The checkpoint.
        """
        checkpoint = dict(read_checkpoint(filename))
        if 'state_dict' not in checkpoint:
            checkpoint = dict(state_dict=checkpoint)
        if isinstance(checkpoint.get('meta'), dict):
            # MMEngine would run this text as Python when it resumes.
            checkpoint['meta'].pop('config', None)
        self.call_hook('after_load_checkpoint', checkpoint=checkpoint)
        begins = self._begins_training and not self._resume
        load_weights(
            self.model,
            checkpoint,
            filename,
            needs_all=not begins,
            skip=self.cfg.get('load_from_skip', ()) if begins else ())
        self._has_loaded = True
        self.logger.info(f'Load checkpoint from {filename}')
        return checkpoint


@contextmanager
def only_in_files() -> Iterator[None]:
    """Keep messages that are no warnings out of the screen.

    They are still written to log files.
    """
    logger = MMLogger.get_current_instance()
    levels = {
        handler: handler.level
        for handler in logger.handlers
        if not isinstance(handler, logging.FileHandler)
    }
    for handler, level in levels.items():
        handler.setLevel(max(level, logging.WARNING))
    try:
        yield
    finally:
        for handler, level in levels.items():
            handler.setLevel(level)


class _Held(logging.Filter):
    """Keeps the messages of a handler, except for warnings.

    Messages of several lines (environment, config, hooks), and one for each
    weight of the optimizer, are dropped.
    """

    def __init__(self, handler: logging.Handler) -> None:
        super().__init__()
        self.handler = handler
        self.records: list[logging.LogRecord] = []
        # A run that failed before has left its own.
        for other in handler.filters[:]:
            if isinstance(other, _Held):
                handler.removeFilter(other)
        handler.addFilter(self)

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether a record is written now."""
        if record.levelno >= logging.WARNING:
            return True
        text = record.getMessage().strip()
        if '\n' not in text and not text.startswith('paramwise_options'):
            self.records.append(record)
        return False

    def release(self) -> None:
        """Write all of it, and what comes at once from now on."""
        self.handler.removeFilter(self)
        for record in self.records:
            self.handler.handle(record)


def build_runner(cfg: Config) -> Runner:
    """Build the runner of a config: ``runner_type``, or ours.

    Args:
        cfg (Config): Of a whole run.
    """
    if 'runner_type' in cfg:
        return RUNNERS.build(cfg)
    return CLIMRunner.from_cfg(cfg)


def begin_with(runner: Runner,
               file: str | None = None,
               resume: bool = False) -> None:
    """Have a runner load a file in the place of what its config names.

    The config that it writes to the work dir still names its own
    ``load_from``, from which that config trains in another folder.

    Args:
        runner (Runner): That has loaded nothing.
        file (str, optional): The checkpoint. None, to resume: the last one
            of the work dir, or its own ``load_from`` where there is none.
        resume (bool): Whether to go on with its training.
    """
    if isinstance(runner, CLIMRunner):
        runner._first_weights = runner._load_from
    elif file is None and latest_checkpoint(runner.work_dir) is None:
        return
    runner._load_from = file
    runner._resume = resume


def latest_checkpoint(work_dir: str | Path) -> str | None:
    """The last checkpoint of a run, also in a folder that was moved.

    Args:
        work_dir (str or Path): Of the run.

    Returns:
        str or None: None if the run has none yet.

    Raises:
        FileNotFoundError: If the file that ``last_checkpoint`` names is gone.
    """
    found = find_latest_checkpoint(str(work_dir))
    if found is None or Path(found).is_file():
        return found
    moved = Path(work_dir, Path(found).name)
    if not moved.is_file():
        raise FileNotFoundError(
            f'resume: {found} does not exist, although '
            f'{Path(work_dir, "last_checkpoint")} names it; give the '
            'checkpoint to resume from as --resume FILE')
    return str(moved)


def can_resume(file: str) -> bool:
    """Whether a checkpoint holds the state of a training.

    Args:
        file (str): The checkpoint.

    Raises:
        FileNotFoundError, ValueError: See ``read_checkpoint``.
    """
    checkpoint = read_checkpoint(file, mmap=True)
    meta = checkpoint.get('meta')
    return 'message_hub' in checkpoint and isinstance(meta, dict) \
        and {'epoch', 'iter'} <= set(meta)
