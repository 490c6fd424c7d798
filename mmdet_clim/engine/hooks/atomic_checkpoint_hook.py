# Licensed under the Apache License, Version 2.0.
"""Checkpoints that are whole whatever stops the training."""
import hashlib
import zipfile
import zlib
from collections import deque
from collections.abc import Collection
from pathlib import Path

import torch
from mmengine.dist import (
    all_gather_object,
    broadcast_object_list,
    get_rank,
    get_world_size,
    is_main_process,
)
from mmengine.fileio import LocalBackend, get_file_backend, register_backend
from mmengine.hooks import CheckpointHook
from mmengine.model import is_model_wrapper
from torch import nn

from mmdet_clim.files import atomic_path
from mmdet_clim.registry import HOOKS

BACKEND = 'mmdet_clim.atomic'
#: Of a checkpoint: what ranks have for themselves.
RANK_BUFFERS = 'rank_buffers'


class AtomicLocalBackend(LocalBackend):
    """MMEngine's local files, each written beside its place and renamed."""

    def put(self, obj: bytes, filepath: str | Path) -> None:
        """Write a file.

        Args:
            obj (bytes): What it holds.
            filepath (str | Path): Where.

        Raises:
            OSError: With the name of the file, if it can not be written.
        """
        try:
            with atomic_path(Path(filepath)) as beside:
                beside.write_bytes(obj)
        except OSError as error:
            # A full disk is found by `write`, which names no file.
            raise type(error)(error.errno, error.strerror,
                              str(filepath)) from error


register_backend(BACKEND, AtomicLocalBackend, force=True)


class _HeldRemovals:
    """A file backend that removes files when it is told to."""

    def __init__(self, backend: LocalBackend) -> None:
        self.backend = backend
        self._files: list[str] = []

    def __getattr__(self, name: str):
        return getattr(self.backend, name)

    def remove(self, path: str) -> None:
        self._files.append(path)

    def flush(self, kept: Collection[str]) -> None:
        """Remove them all, but for those that were written again."""
        for path in self._files:
            if path not in kept:
                self.backend.remove(path)


@HOOKS.register_module()
class AtomicCheckpointHook(CheckpointHook):
    """MMEngine's checkpoints, written so that one is always whole.

    A checkpoint, and ``last_checkpoint``, which names it, are written beside
    their places and renamed. Older checkpoints (``max_keep_ckpts``) and the
    best one before are removed after that. A process that is killed at any
    moment, or a disk that is full, so leaves the last checkpoint whole.

    A run that is resumed without a path (``--resume``) begins with the
    checkpoint that ``last_checkpoint`` names, or, where that is damaged, cut
    short or gone, with the newest one before it that is whole, and says so.

    Buffers of the model that differ between ranks, such as the running
    statistics of batch norms that are not synchronised, are saved of each
    rank, beside rank 0's, and go back to it in a run of as many ranks.

    Args:
        ``*args``, ``**kwargs``: Of :class:`mmengine.hooks.CheckpointHook`.
    """

    # Of the checkpoint that is being saved, by rank.
    _rank_buffers: list[dict] | None = None

    def before_run(self, runner) -> None:
        """Choose the checkpoint to resume from."""
        if not runner._resume or runner._load_from is not None:
            return
        chosen = [None]
        if is_main_process():
            chosen = [self._last_whole(runner)]
        broadcast_object_list(chosen)
        runner._load_from = chosen[0]

    def before_train(self, runner) -> None:
        """Find out where files go."""
        super().before_train(runner)
        if type(self.file_backend) is LocalBackend:
            self.backend_args = dict(backend=BACKEND)
            self.file_backend = get_file_backend(
                backend_args=dict(self.backend_args))

    def before_save_checkpoint(self, runner, checkpoint: dict) -> None:
        """Add the buffers that other ranks have."""
        if self._rank_buffers is not None:
            checkpoint[RANK_BUFFERS] = self._rank_buffers

    def after_load_checkpoint(self, runner, checkpoint: dict) -> None:
        """Take this rank's buffers where a run is resumed."""
        buffers = checkpoint.pop(RANK_BUFFERS, ())
        if runner._resume and len(buffers) == get_world_size():
            checkpoint['state_dict'].update(buffers[get_rank()])

    def _last_whole(self, runner) -> str | None:
        """The last checkpoint that can be read, None if there is none."""
        folder = Path(self.out_dir or runner.work_dir)
        if self.out_dir is not None:
            folder /= Path(runner.work_dir).name
        pointer = Path(runner.work_dir) / 'last_checkpoint'
        named = folder / Path(pointer.read_text().strip()).name \
            if pointer.exists() else folder
        candidates = sorted((step, path) for path in folder.glob('*')
                            if (step := self._step_of(path)) is not None)
        last = self._step_of(named)
        if last is not None:
            # Later ones would be of another run.
            candidates = [c for c in candidates if c[0] <= last]
        for _, path in reversed(candidates):
            damage = damage_of(path)
            if damage is None:
                if path != named:
                    runner.logger.warning(
                        f'resuming from {path}, the last complete checkpoint')
                return str(path)
            runner.logger.warning(f'{path}: not resumed from, {damage}')
        if candidates:
            raise RuntimeError(
                f'{folder}: expected a whole checkpoint to resume from, got '
                f'{len(candidates)} damaged; remove them to start again')
        return None

    def _step_of(self, path: Path) -> int | None:
        """The number in the name of a checkpoint, None of other files."""
        before, after = self.filename_tmpl.split('{}')
        name = path.name
        number = name[len(before):len(name) - len(after)]
        if number.isdecimal() and name == self.filename_tmpl.format(number):
            return int(number)
        return None

    def _save_checkpoint_with_step(self, runner, step: int,
                                   meta: dict) -> None:
        outdated: list[int] = []
        if self.max_keep_ckpts > 0:
            steps = [s for s in self.keep_ckpt_ids if s != step] + [step]
            outdated = steps[:-self.max_keep_ckpts]
            # With those that are still there: a resumed run removes them if
            # this one is killed before it can.
            runner.message_hub.update_info('keep_ckpt_ids', steps)
            self.keep_ckpt_ids = deque(steps[len(outdated):])
        name = self.filename_tmpl.format(step)
        self.last_ckpt = self.file_backend.join_path(self.out_dir, name)
        runner.message_hub.update_info('last_ckpt', self.last_ckpt)
        self._rank_buffers = _buffers_of_ranks(runner.model)
        runner.save_checkpoint(
            self.out_dir,
            name,
            self.file_client_args,
            save_optimizer=self.save_optimizer,
            save_param_scheduler=self.save_param_scheduler,
            meta=meta,
            by_epoch=self.by_epoch,
            backend_args=self.backend_args,
            **self.args)
        self._rank_buffers = None
        if not is_main_process():
            return
        with atomic_path(Path(runner.work_dir) / 'last_checkpoint') as beside:
            beside.write_text(self.last_ckpt)
        for old in outdated:
            path = self.file_backend.join_path(self.out_dir,
                                               self.filename_tmpl.format(old))
            if self.file_backend.isfile(path):
                self.file_backend.remove(path)

    def _save_best_checkpoint(self, runner, metrics: dict) -> None:
        self.file_backend = held = _HeldRemovals(self.file_backend)
        try:
            super()._save_best_checkpoint(runner, metrics)
        finally:
            self.file_backend = held.backend
        held.flush({
            vars(self).get('best_ckpt_path'),
            *vars(self).get('best_ckpt_path_dict', {}).values()
        })


def _buffers_of_ranks(model: nn.Module) -> list[dict] | None:
    """Of each rank, the saved buffers that are not as on rank 0.

    Returns:
        list[dict], optional: By name, on the CPU. None where ranks agree.
    """
    if get_world_size() == 1:
        return None
    if is_model_wrapper(model):
        model = model.module
    saved = model.state_dict()
    own = {
        name: saved[name].cpu()
        for name, _ in model.named_buffers() if name in saved
    }
    marks = all_gather_object({
        name:
        hashlib.blake2b(value.contiguous().view(-1).view(
            torch.uint8).numpy()).digest()
        for name, value in own.items()
    })
    different = {
        name: own[name].clone()
        for name, mark in marks[get_rank()].items()
        if mark != marks[0].get(name)
    }
    buffers = all_gather_object(different)
    return buffers if any(buffers) else None


def damage_of(path: Path) -> str | None:
    """What is wrong with a checkpoint file, None if it is whole.

    Args:
        path (Path): What ``torch.save`` wrote: a zip archive, whose checksums
            torch does not compare.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            bad = archive.testzip()
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError) as error:
        return f'it is cut short or damaged ({error})'
    return None if bad is None else f'it is damaged ({bad})'
