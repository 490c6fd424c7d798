# Licensed under the Apache License, Version 2.0.
"""Other grids of mosaics from some iteration on."""
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from mmengine.hooks import Hook

from mmdet_clim.datasets.transforms import MosaicCLIM
from mmdet_clim.datasets.transforms.shared_weights import checked_weights
from mmdet_clim.registry import HOOKS

Grid = tuple[int, int]
# Where data sets, wrappers and transforms keep what they are made of.
PARTS = ('datasets', 'dataset', 'pipeline', 'transforms', 'branch_pipelines')


@HOOKS.register_module()
class GridScheduleHook(Hook):
    """Let ``MosaicCLIM`` draw from other grids as training goes on.

    ::

        grids=((2, 2), (3, 3), (4, 4)), grid_weights=(1, 0, 0) of MosaicCLIM,
        schedule=[dict(begin=300, grids=[(3, 3)]),
                  dict(begin=600, grids=[(3, 3), (4, 4)])]

        iteration  0         300         600
                   |  2 x 2   |   3 x 3   |  3 x 3 or 4 x 4 ...

    ``grids`` of ``MosaicCLIM`` holds the grids of all phases, because its
    cache keeps images at their sizes; its ``grid_weights`` are those of the
    iterations before the first phase. A hook comes too late for these: the
    first batches are under way before any hook is called. All mosaics of the
    training data follow the schedule, wherever they are in it.

    *Workers.* With ``MultiSourceSampler`` and ``ResumableTrainLoop``, as in
    all configs of this project, a phase begins exactly at ``begin``. Another
    sampler does not say which iteration a sample is for, and another loop
    starts its workers before any hook: then the weights reach running workers
    through shared memory. Batches that workers have made ahead keep their
    grids: with ``num_workers=W`` and ``prefetch_factor=F`` a phase begins up
    to ``W * F`` iterations late and never early. A worker that has not drawn
    the partners of the largest grid yet gives mosaics of the weights before
    the first phase.

    *Resuming.* The phase follows from the iteration, nothing is saved.

    Args:
        schedule (Sequence[dict]): The phases. Of each, ``begin``: the first
            iteration, counted from 0, at least 1 and ascending; ``grids``:
            (rows, cols) to choose from; ``grid_weights`` (optional): their
            chances in any unit, equal if left out.

    Raises:
        ValueError: If the schedule has no phase or a wrong one; at the start
            of training, if no ``MosaicCLIM`` is found or one lacks a grid.
    """

    def __init__(self, schedule: Sequence[dict]) -> None:
        if not schedule:
            raise ValueError('schedule: expected at least one phase, got '
                             f'{schedule!r}')
        self._begins: list[int] = []
        self._chances: list[dict[Grid, float]] = []
        for number, phase in enumerate(schedule):
            where = f'schedule[{number}]'
            unknown = set(phase) - {'begin', 'grids', 'grid_weights'}
            if unknown or not {'begin', 'grids'} <= set(phase):
                raise ValueError(
                    f"{where}: expected the keys 'begin', 'grids' and at most "
                    f"'grid_weights', got {sorted(phase)}")
            least = self._begins[-1] + 1 if self._begins else 1
            if not isinstance(phase['begin'], int) or phase['begin'] < least:
                raise ValueError(
                    f'{where}.begin: expected an integer of at least {least} '
                    '(in ascending order; before the first, the weights of '
                    f"MosaicCLIM apply), got {phase['begin']!r}")
            self._begins.append(phase['begin'])
            self._chances.append(_chances(phase, where))
        # Of each mosaic, the weights before the first phase and of each.
        self._weights: list[tuple[MosaicCLIM, list[np.ndarray]]] = []
        self._phase = 0

    def before_train(self, runner) -> None:
        """Find the mosaics and begin with the phase of this iteration."""
        mosaics = list(find_mosaics(runner.train_dataloader.dataset))
        if not mosaics:
            raise ValueError(
                'train_dataloader: GridScheduleHook expects MosaicCLIM in a '
                'pipeline of its data, found none')
        self._weights = [(mosaic, [
            mosaic.initial_grid_weights,
            *(_weights_for(mosaic, chances, f'schedule[{number}].grids')
              for number, chances in enumerate(self._chances))
        ]) for mosaic in mosaics]
        for mosaic, weights in self._weights:
            mosaic.follow_schedule(self._begins, weights)
        self._begin(runner, self._phase_at(runner.iter))

    def after_train_iter(self,
                         runner,
                         batch_idx: int,
                         data_batch: dict | None = None,
                         outputs: dict | None = None) -> None:
        """Begin the phase of the next iteration, before its data is drawn."""
        phase = self._phase_at(runner.iter + 1)
        if phase != self._phase:
            self._begin(runner, phase)

    def _phase_at(self, iteration: int) -> int:
        """The number of phases that have begun."""
        return int(np.searchsorted(self._begins, iteration, side='right'))

    def _begin(self, runner, phase: int) -> None:
        """Hand the weights of a phase to every mosaic."""
        self._phase = phase
        for mosaic, weights in self._weights:
            mosaic.grid_weights = weights[phase]
        if phase:
            runner.logger.info(f'{type(self).__name__}: from iteration '
                               f'{self._begins[phase - 1]} on, mosaics of '
                               f'{self._chances[phase - 1]}')


def _chances(phase: Mapping, where: str) -> dict[Grid, float]:
    """The chance of each grid of a phase."""
    grids = [tuple(grid) for grid in phase['grids']]
    if not grids or len(set(grids)) < len(grids):
        raise ValueError(f'{where}.grids: expected at least one (rows, cols) '
                         f"and none twice, got {phase['grids']}")
    try:
        weights = checked_weights(phase.get('grid_weights'), len(grids))
    except ValueError as error:
        raise ValueError(f'{where}.{error}') from error
    return dict(zip(grids, weights.tolist()))


def _weights_for(mosaic: MosaicCLIM, chances: Mapping[Grid, float],
                 where: str) -> np.ndarray:
    """The chances in the order of the grids of a mosaic."""
    unknown = [grid for grid in chances if grid not in mosaic.grids]
    if unknown:
        raise ValueError(
            f'{where}: expected grids that every MosaicCLIM of the training '
            f'data has, got {unknown}, where one has {mosaic.grids}; give it '
            'the grids of all phases')
    # A grid that a mosaic lists twice has its chance once.
    left = dict(chances)
    return np.array([left.pop(grid, 0.0) for grid in mosaic.grids])


def find_mosaics(node) -> Iterator[MosaicCLIM]:
    """Every ``MosaicCLIM`` in a data set, however wrapped.

    Args:
        node: A data set, wrapper, transform, or list or dict of them.

    Yields:
        MosaicCLIM: One of them; twice if it is in two places.
    """
    if isinstance(node, MosaicCLIM):
        yield node
    elif isinstance(node, (list, tuple)):
        for part in node:
            yield from find_mosaics(part)
    elif isinstance(node, Mapping):
        yield from find_mosaics(list(node.values()))
    elif hasattr(node, '__dict__'):
        held = vars(node)
        yield from find_mosaics([held[key] for key in PARTS if key in held])
