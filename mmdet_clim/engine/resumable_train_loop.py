# Licensed under the Apache License, Version 2.0.
"""Training by iterations that goes on where it was stopped."""
import errno
from collections.abc import Iterator
from pathlib import Path

from mmengine.runner import IterBasedTrainLoop
from torch import nn
from torch.utils.data import DataLoader

from mmdet_clim.datasets.draws import DrawnSamples, batch_size_contradiction
from mmdet_clim.datasets.multi_source import MultiSourceSampler
from mmdet_clim.registry import LOOPS

NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class _NotStarted:
    """Stands for a data loader whose workers should not start yet."""

    def __init__(self, dataloader: DataLoader) -> None:
        self.dataset = dataloader.dataset

    def __iter__(self) -> Iterator:
        return iter(())


@LOOPS.register_module()
class ResumableTrainLoop(IterBasedTrainLoop):
    """MMEngine's loop by iterations, which resumes at no cost.

    MMEngine makes the data of all finished iterations again and throws it
    away, 39 ms of CPU time for each of the OV-COCO recipe. Here the sampler
    goes to its place, whatever the iteration; samples depend on the place
    alone (:mod:`mmdet_clim.datasets.draws`), and mosaics load the partners
    that they would have in their caches. A validation that was stopped is
    done again.

    With another sampler than ``MultiSourceSampler``, or another data set
    than those of this project, the loop is MMEngine's.

    Args:
        runner (Runner): Of this training.
        dataloader (DataLoader | dict): The data, or its config.
        **kwargs: Of :class:`mmengine.runner.IterBasedTrainLoop`.

    Raises:
        ValueError: If the batch sizes of the loader and of its sampler
            differ.
        RuntimeError: When the disk is full.
    """

    def __init__(self, runner, dataloader: DataLoader | dict,
                 **kwargs) -> None:
        if isinstance(dataloader, dict):
            dataloader = runner.build_dataloader(
                dataloader,
                seed=runner.seed,
                diff_rank_seed=runner._randomness_cfg.get(
                    'diff_rank_seed', False))
        # DataLoader makes a batch sampler of what it is given.
        sampler = getattr(dataloader.batch_sampler, 'sampler', None)
        self._has_places = False
        if not isinstance(sampler, MultiSourceSampler) or \
                not isinstance(dataloader.dataset, DrawnSamples):
            super().__init__(runner, dataloader, **kwargs)
            return
        self._has_places = True
        loader_size = dataloader.batch_sampler.batch_size
        if sampler.batch_size not in (None, loader_size):
            raise ValueError(
                batch_size_contradiction(loader_size, sampler.batch_size))
        self._seed_at_start = runner.seed
        super().__init__(runner, _NotStarted(dataloader), **kwargs)
        self.dataloader = dataloader
        self.dataloader_iterator = self._batches(sampler)

    def _batches(self, sampler: MultiSourceSampler) -> Iterator:
        """The batches from this iteration on."""
        if sampler.seed == self._seed_at_start:
            # Without a seed in the config it is that of the checkpoint.
            sampler.seed = self.runner.seed
        iteration = self._iter
        while True:
            sampler.start_at(iteration)
            for batch in self.dataloader:
                iteration += 1
                yield batch

    def run(self) -> nn.Module:
        """Train.

        Returns:
            nn.Module: The trained model.
        """
        try:
            return self._run() if self._has_places else super().run()
        except OSError as error:
            if error.errno not in NO_SPACE:
                raise
            last = Path(self.runner.work_dir) / 'last_checkpoint'
            kept = last.read_text() if last.exists() else 'none'
            raise RuntimeError(
                f'{error.filename or self.runner.work_dir}: cannot be '
                f'written in iteration {self._iter + 1}, {error.strerror}. '
                f'The last complete checkpoint: {kept}. Free disk space and '
                'run the same command with --resume') from None

    def _run(self) -> nn.Module:
        self.runner.call_hook('before_train')
        self.runner.call_hook('before_train_epoch')
        if self._iter > 0:
            # A run that was killed in it has a checkpoint from before it.
            self._validate_if_due()
        while self._iter < self._max_iters and not self.stop_training:
            self.runner.model.train()
            self.run_iter(next(self.dataloader_iterator))
            self._validate_if_due()
        self.runner.call_hook('after_train_epoch')
        self.runner.call_hook('after_train')
        return self.runner.model

    def _validate_if_due(self) -> None:
        self._decide_current_val_interval()
        hub = self.runner.message_hub
        if (self.runner.val_loop is None or self._iter < self.val_begin
                or self._iter % self.val_interval != 0
                and self._iter != self._max_iters
                or hub.runtime_info.get('last_validation') == self._iter):
            return
        # In the checkpoints that the validation writes, not in one before.
        hub.update_info('last_validation', self._iter)
        self.runner.val_loop.run()
