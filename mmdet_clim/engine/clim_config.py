# Licensed under the Apache License, Version 2.0.
"""CLIM put on a config from the command line, with no file edited."""
import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmengine.config import Config, ConfigDict
from mmengine.logging import print_log

PREFIX = 'clim_'
WRAPPER = 'CLIMDetector'
PACKING = 'PackRegionTextInputs'
# What every training with CLIM has beside MMEngine's own.
HOOKS = ('IterationSeedHook', 'UnreachedWeightsHook')
# They reach into the one pipeline that a training set has; the mixture of
# sources has one for each.
PIPELINE_HOOKS = ('PipelineSwitchHook', 'YOLOXModeSwitchHook')


def read_fragment(name: str | Path, options: Mapping | None = None) -> Config:
    """Read a fragment of a config that defines nothing but ``clim_*``.

    Args:
        name (str): A path, or ``package::path`` of a config that a package
            ships, such as
            ``mmdet_clim::_base_/clim/openmoji_captions_tags.py``.
        options (Mapping, optional): What ``--cfg-options`` gave. Those of
            ``clim_*`` names are merged: in the whole config, where the
            others go, nobody reads these names any more.

    Raises:
        ValueError: If it defines other names.
    """
    if '::' in str(name):
        fragment = Config.fromstring(f'_base_ = [{str(name)!r}]\n', '.py')
    else:
        fragment = Config.fromfile(name)
    others = [key for key in fragment if not key.startswith(PREFIX)]
    if others:
        raise ValueError(f'--clim {name}: a fragment defines names that start '
                         f'with {PREFIX!r} and no others, got {others}')
    fragment.merge_from_dict({
        key: value
        for key, value in (options or {}).items() if key.startswith(PREFIX)
    })
    return fragment


def add_clim(cfg: Config, fragment: Config) -> Config:
    """Wrap a detector's config, and mix CLIM's sources with its images.

    The result is the config that one would have written by hand: ``model``
    is a ``CLIMDetector`` around the model, and ``train_dataloader`` draws
    from the training set and from the fragment's sources, by default as many
    samples of each of them as of the training set. The fragment defines

    - ``clim_text_encoder``;
    - ``clim_{name}_dataset``, one or more; the branch of each is the one
      that its pipeline packs for;
    - ``clim_objectives``, a dict, or each as ``clim_{name}_objective``;
    - ``clim_branches``, optional: branch to names of objectives. By default
      every branch of the sources has every objective; a source whose branch
      is not named is left out;
    - ``clim_region_reader``, optional;
    - ``clim_source_ratio``, optional: samples of each source in a batch,
      those of the training set first.

    Args:
        cfg (Config): Of any detector. It is not changed.
        fragment (Config): What :func:`read_fragment` gives.

    Returns:
        Config: The wrapped config, with the fragment's names in it.

    Raises:
        KeyError: If one of the two lacks a name.
        ValueError: If the config is wrapped already, or its data loader
            can not give a mixture.
    """
    _check_host(cfg)
    new = copy.deepcopy(cfg)
    for key in fragment:
        # Not merged: the config may have inherited another fragment.
        new[key] = copy.deepcopy(fragment[key])
    branches = _branches(fragment)
    new.model = _wrapped_model(new, fragment, branches)
    sources = [
        new[key] for key in _dataset_keys(fragment)
        if _branch_of(key, fragment[key]) in branches
    ]
    new.train_dataloader = _mixed_loader(new, fragment, sources)
    if 'base_batch_size' in (cfg.get('auto_scale_lr') or {}):
        # It counts the samples of every source.
        own = cfg.train_dataloader.batch_size
        total = new.train_dataloader.batch_size
        new.auto_scale_lr.base_batch_size = \
            cfg.auto_scale_lr.base_batch_size * total // own
    hooks = [
        hook for hook in new.get('custom_hooks') or []
        if not _reaches_pipeline(hook)
    ]
    present = {_type_name(hook) for hook in hooks}
    new.custom_hooks = hooks + [
        ConfigDict(type=f'mmdet_clim.{name}')
        for name in HOOKS if name not in present
    ]
    _make_resumable(new)
    return new


def _make_resumable(cfg: Config) -> None:
    """Put this package's loop and checkpoints in the place of MMEngine's.

    What another project has put there stays.
    """
    loop = cfg.get('train_cfg')
    if loop is not None and (_type_name(loop) == 'IterBasedTrainLoop'
                             or loop.get('by_epoch') is False):
        loop.pop('by_epoch', None)
        loop['type'] = 'mmdet_clim.ResumableTrainLoop'
    checkpoint = (cfg.get('default_hooks') or {}).get('checkpoint')
    if checkpoint is not None and _type_name(checkpoint) == 'CheckpointHook':
        checkpoint['type'] = 'mmdet_clim.AtomicCheckpointHook'


def _check_host(cfg: Config) -> None:
    for key in ('model', 'train_dataloader'):
        # None, as of configs that only test.
        if cfg.get(key) is None:
            raise KeyError(f'--clim: expected {key!r} in the config, got '
                           f'{sorted(cfg.keys())}')
    if _type_name(cfg.model) == WRAPPER:
        raise ValueError(f'--clim: model is a {WRAPPER} already; give the '
                         'config of the detector inside')
    loader = cfg.train_dataloader
    for key in ('batch_size', 'dataset'):
        if key not in loader:
            raise KeyError(f'--clim: expected train_dataloader.{key}, got '
                           f'{sorted(loader)}')
    # MMEngine's own keeps the images of a batch in a list.
    collate = loader.get('collate_fn', dict(type='pseudo_collate'))
    if _type_name(collate) != 'pseudo_collate':
        raise ValueError(
            "--clim: train_dataloader.collate_fn: expected 'pseudo_collate', "
            'which does not stack images of different sizes, got '
            f'{collate["type"]!r}')


def _type_name(cfg: dict) -> str:
    """The name of its type without scope; '' where it has none."""
    kind = cfg.get('type', '')
    # MMEngine's new configs have the type itself.
    return kind.rpartition('.')[2] if isinstance(kind, str) else kind.__name__


def _dataset_keys(fragment: Config) -> list[str]:
    return [key for key in fragment if key.endswith('_dataset')]


def _branch_of(key: str, dataset: ConfigDict) -> str:
    """The branch that a source's pipeline packs for."""
    for step in reversed(dataset.get('pipeline', [])):
        if _type_name(step) == PACKING:
            return step.get('branch', 'mosaic')
    raise KeyError(f'--clim: {key}.pipeline: expected a '
                   f'mmdet_clim.{PACKING}, got none')


def _objectives(fragment: Config) -> dict[str, dict]:
    if 'clim_objectives' in fragment:
        return dict(fragment.clim_objectives)
    end = '_objective'
    return {
        key[len(PREFIX):-len(end)]: fragment[key]
        for key in fragment if key.endswith(end)
    }


def _branches(fragment: Config) -> dict[str, list[str]]:
    """Branch to its objectives; checks what the fragment has."""
    objectives = _objectives(fragment)
    keys = _dataset_keys(fragment)
    missing = [
        name for name, there in {
            'clim_text_encoder': 'clim_text_encoder' in fragment,
            'clim_*_dataset': keys,
            'clim_objectives or clim_*_objective': objectives
        }.items() if not there
    ]
    if missing:
        raise KeyError(f'--clim: {missing} missing in the fragment, it has '
                       f'{sorted(fragment.keys())}')
    found = [_branch_of(key, fragment[key]) for key in keys]
    branches = fragment.get('clim_branches')
    if branches is None:
        return {branch: list(objectives) for branch in found}
    unknown = set(branches) - set(found)
    if unknown:
        raise KeyError(f'clim_branches: expected branches of the sources, '
                       f'{sorted(found)}, got {sorted(unknown)}')
    return {name: list(of) for name, of in branches.items()}


def _wrapped_model(cfg: Config, fragment: Config,
                   branches: dict[str, list[str]]) -> ConfigDict:
    detector = cfg.model
    if 'data_preprocessor' in cfg:
        # The runner would give it to the wrapper.
        detector.setdefault('data_preprocessor', cfg.pop('data_preprocessor'))
    used = {name for of in branches.values() for name in of}
    objectives = {
        name: objective
        for name, objective in _objectives(fragment).items() if name in used
    }
    model = dict(
        type=f'mmdet_clim.{WRAPPER}',
        detector=detector,
        objectives=copy.deepcopy(objectives),
        text_encoder=copy.deepcopy(fragment.clim_text_encoder),
        branches=branches)
    if 'clim_region_reader' in fragment:
        model['region_reader'] = copy.deepcopy(fragment.clim_region_reader)
    return ConfigDict(model)


def _mixed_loader(cfg: Config, fragment: Config,
                  sources: list[ConfigDict]) -> ConfigDict:
    loader = cfg.train_dataloader
    own = loader.batch_size
    ratio = list(fragment.get('clim_source_ratio', [own] * (len(sources) + 1)))
    if len(ratio) != len(sources) + 1 or any(
            not isinstance(count, int) or count < 1 for count in ratio):
        raise ValueError(
            'clim_source_ratio: expected a positive number of samples of the '
            f'training set and of each of {len(sources)} sources, got {ratio}')
    kept = {
        key: value
        for key, value in loader.items()
        # They make the batches of one set.
        if key not in ('sampler', 'batch_sampler', 'drop_last', 'dataset')
    }
    sampler: dict[str, Any] = dict(
        type='mmdet_clim.MultiSourceSampler', source_ratio=ratio)
    if loader.get('sampler', {}).get('aspect_grouping'):
        sampler['aspect_grouping'] = True
    return ConfigDict({
        **kept,
        'batch_size':
        sum(ratio),
        'sampler':
        sampler,
        'batch_sampler':
        dict(type='mmdet_clim.MultiSourceBatchSampler'),
        'dataset':
        dict(
            type='mmdet_clim.MultiSourceDataset',
            datasets=[loader.dataset, *copy.deepcopy(sources)]),
    })


def _reaches_pipeline(hook: ConfigDict) -> bool:
    """Whether a hook can not work with several pipelines; says so."""
    name = _type_name(hook)
    if name not in PIPELINE_HOOKS:
        return False
    print_log(
        f'--clim: custom_hooks: {name} is left out, because it changes the '
        'one pipeline of a training set and CLIM mixes several',
        logger='current',
        level=30)
    return True
