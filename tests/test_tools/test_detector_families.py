# Licensed under the Apache License, Version 2.0.
"""The tool that tries detector families, on the quickest one."""
import json
import runpy

import torch
from mmdet.models.backbones.trident_resnet import TridentConv
from torch import nn

MARK = '<!-- what tools/misc/detector_families.py found -->'


def test_one_family_and_the_table(run_tool, tmp_path):
    results = tmp_path / 'families.json'
    code, log = run_tool('misc/detector_families.py', '--results', results,
                         '--families', 'YOLOX', 'AutoAssign', 'RTMDet')
    assert code == 0, log[-3000:]
    found = json.loads(results.read_text())
    for name in ('YOLOX', 'AutoAssign', 'RTMDet'):
        assert all(found[name][key] for key in ('builds', 'trains', 'odd',
                                                'ema', 'evaluates')), found
    assert found['YOLOX']['reader'] == 'DenseFeatureReader (classifier)'
    assert found['AutoAssign']['open'].startswith('no: ')

    page = tmp_path / 'page.md'
    page.write_text(f'# Page\n{MARK}\nold\n{MARK}\nend\n')
    code, log = run_tool('misc/detector_families.py', '--results', results,
                         '--docs', page)
    assert code == 0, log
    lines = page.read_text().splitlines()
    assert lines[:2] == ['# Page', MARK] and lines[-2:] == [MARK, 'end']
    assert '| YOLOX | DenseFeatureReader (classifier) | yes | yes | yes | ' \
        'yes | yes | yes |  |' in lines
    assert 'old' not in lines
    page.write_text('# Page\n')
    code, log = run_tool('misc/detector_families.py', '--results', results,
                         '--docs', page)
    assert code == 1
    assert 'expected two lines' in log


def test_weights_that_only_a_checkpoint_sets(repository):
    """Such as those of a TridentConv, which is memory as it was."""
    tool = runpy.run_path(str(repository / 'tools/misc/detector_families.py'))
    with tool['not_a_number_in_new_memory']():
        model = nn.ModuleDict(
            dict(
                detector=nn.ModuleDict(
                    dict(linear=nn.Linear(2, 3), conv=TridentConv(4, 64, 3)))))
    assert not torch.are_deterministic_algorithms_enabled()
    linear, conv = model['detector']['linear'], model['detector']['conv']
    assert conv.weight.isnan().all()
    before = linear.weight.clone()
    assert tool['set_what_was_left_unset'](model) == 'conv.weight'
    assert .009 < conv.weight.std() < .011
    assert torch.equal(linear.weight, before)
    assert tool['set_what_was_left_unset'](model) == ''
