# Licensed under the Apache License, Version 2.0.
"""tools/analysis/ablation.py and the configs that it is for."""
import shutil

import pytest
from mmengine.config import Config
from mmengine.registry import MODELS

ABLATION = 'configs/openmoji/ablation'
SHORT = [
    'load_from=None', 'train_cfg.max_iters=1', 'train_cfg.val_interval=1',
    'default_hooks.checkpoint.interval=1', 'default_hooks.logger.interval=1',
    'train_dataloader.num_workers=0',
    'train_dataloader.persistent_workers=False',
    'train_dataloader.batch_size=3',
    'train_dataloader.sampler.source_ratio=[1,1,1]',
    'val_dataloader.num_workers=0', 'val_dataloader.persistent_workers=False'
]


@pytest.mark.parametrize('name, differs', [
    ('clim_default', ('grids', ((2, 2), (3, 3)))),
    ('whole-images', ('branches', ['caption', 'tag'])),
    ('clim_grid-2x2', ('grids', ((2, 2), ))),
    ('clim_grid-3x3', ('grids', ((3, 3), ))),
    ('clim_grid-4x4', ('grids', ((4, 4), ))),
    ('clim_grid-mixed-2-3-4', ('grids', ((2, 2), (3, 3), (4, 4)))),
    ('clim_no-composition', ('caption.num_compositions', 0)),
    ('clim_tag-composition', ('tag.num_compositions', 4)),
    ('clim_published-bias', ('tag.loss.bias', -20.)),
    ('clim_captions-only', ('branches', ['caption'])),
    ('clim_tags-only', ('branches', ['tag'])),
    ('clim_proposals', ('caption.regions', 'proposals')),
    ('clim_class-names', ('tag.regions', 'tiles')),
    ('pseudo-labels', ('branches', ['pseudo_label'])),
    ('mosaic-augmentation', ('transform', 'mmdet.CachedMosaic')),
])
def test_each_config_differs_in_what_it_says(repository, name, differs):
    cfg = Config.fromfile(repository / ABLATION / f'{name}.py')
    key, value = differs
    boxes, *_, captioned = cfg.train_dataloader.dataset.datasets
    found = {
        'grids': captioned.pipeline[2].get('grids'),
        'transform': boxes.pipeline[2].type,
        'branches': list(cfg.model.branches.captions),
    }
    if key in found:
        assert found[key] == value
    else:
        value_of = cfg.model.objectives
        for part in key.split('.'):
            value_of = value_of[part]
        assert value_of == value
    assert MODELS.build(cfg.model).branches


def test_each_config_of_the_folder_is_listed_above(repository):
    listed = test_each_config_differs_in_what_it_says.pytestmark[0].args[1]
    assert {f'{name}.py'
            for name, _ in listed
            } == {file.name
                  for file in (repository / ABLATION).glob('*.py')}


def test_a_table_of_two_rows(repository, openmoji_root, run_tool, tmp_path,
                             monkeypatch):
    monkeypatch.setenv('OPENMOJI_ROOT', f'{openmoji_root}/')
    row = repository / ABLATION / 'clim_grid-2x2.py'
    out = tmp_path / 'out'
    code, log = run_tool('analysis/ablation.py', row, '--seeds', 4,
                         '--out-dir', out, '--cfg-options', *SHORT)
    assert code == 0, log
    assert '| clim_grid-2x2 |' in log
    # the four tiles of one mosaic, and one whole image
    assert 'clim_grid-2x2 5.' in log
    assert (out / 'table.png').stat().st_size > 1000
    # Nothing is trained twice: the first row's checkpoint may be gone.
    (out / 'clim_grid-2x2' / 'seed4' / 'iter_1.pth').unlink()
    again = tmp_path / 'same.py'
    again.write_text(f"_base_ = '{row}'\n")
    shutil.copytree(out / 'clim_grid-2x2', out / 'same')
    code, log = run_tool('analysis/ablation.py', row, again, '--seeds', 4,
                         '--out-dir', out, '--cfg-options', *SHORT)
    assert code == 0, log
    assert '| same ' in (out / 'table.md').read_text()
    # Nor is it taken for what it is not.
    code, log = run_tool('analysis/ablation.py', row, '--seeds', 4,
                         '--out-dir', out, '--cfg-options', *SHORT,
                         'optim_wrapper.optimizer.lr=0.5')
    assert code == 1
    assert (log.splitlines()[-1].startswith('error: ')
            and 'optim_wrapper.optimizer.lr is 0.001, wanted 0.5'
            in log.splitlines()[-1])


def test_unknown_and_equal_configs_are_refused(repository, run_tool, tmp_path):
    row = repository / ABLATION / 'clim_grid-2x2.py'
    code, log = run_tool('analysis/ablation.py', tmp_path / 'no.py',
                         '--out-dir', tmp_path)
    assert code == 2 and 'no.py: no such config' in log
    code, log = run_tool('analysis/ablation.py', row, row, '--out-dir',
                         tmp_path)
    assert code == 2 and 'different file names' in log
