# Licensed under the Apache License, Version 2.0.
"""tools/checkpoints/convert_published.py: from a file to a file."""
import json
import os
import pickle

import pytest
import torch
from mmengine.config import Config

from mmdet_clim.models.text_encoders import PrecomputedTextEncoder


def write_config(small_configs, kind, path, wrapped=False):
    model = small_configs[kind].model
    if wrapped:
        model = dict(type='mmdet_clim.CLIMDetector', detector=model)
    Config(dict(model=model)).dump(path)
    return path


def test_a_pkl_for_a_wrapped_detector(convert, small_configs, detectors,
                                      published, tmp_path, capsys):
    config = write_config(small_configs, 'c4', tmp_path / 'c.py', wrapped=True)
    arrays = {k: v.numpy() for k, v in published('c4').items()}
    (tmp_path / 'in.pkl').write_bytes(pickle.dumps(dict(model=arrays)))
    out = tmp_path / 'new' / 'out.pth'
    convert(tmp_path / 'in.pkl', out, '--config', config)
    written = torch.load(out, weights_only=True)
    assert written['meta']['dataset_meta']['classes'][:2] == ('cat', 'dog')
    assert written['meta']['converted_from'] == dict(
        file='in.pkl', source='detectron2')
    for name, value in detectors['c4'].state_dict().items():
        if 'num_batches_tracked' not in name:
            assert torch.equal(written['state_dict'][name], value), name
    printed = capsys.readouterr().out
    assert f'{out}: 293 weights\n' in printed
    assert 'kept as built: 56' in printed
    assert 'roi_heads.box_predictor.cls_score.zs_weight' in printed
    assert 'mean cosine 1.000' in printed


def test_options_of_the_command(convert, small_configs, published, tmp_path,
                                capsys):
    """A model without a bias, a name too many, and one too few."""
    config = write_config(small_configs, 'c4', tmp_path / 'c.py')
    weights = published('c4')
    del weights['roi_heads.box_predictor.cls_score.cls_bias']
    del weights['roi_heads.box_predictor.bbox_pred.0.bias']
    weights['extra'] = torch.ones(1)
    torch.save(dict(model=weights), tmp_path / 'in.pth')
    args = (tmp_path / 'in.pth', tmp_path / 'out.pth', '--config', config)
    with pytest.raises(ValueError, match='3 problems'):
        convert(*args)
    assert sorted(os.listdir(tmp_path)) == ['c.py', 'in.pth']
    convert(*args, '--ignore', 'extra', '--allow-missing', '*.hidden.bias',
            '--cfg-options', 'model.roi_head.bbox_head.classifier.bias=None',
            '--json')
    state = torch.load(tmp_path / 'out.pth', weights_only=True)['state_dict']
    assert 'roi_head.bbox_head.fc_reg.hidden.weight' in state
    assert 'roi_head.bbox_head.fc_reg.hidden.bias' not in state
    printed = capsys.readouterr().out
    assert 'ignored: 1\n  extra' in printed
    assert 'missing: 1\n  roi_head.bbox_head.fc_reg.hidden.bias' in printed
    written = json.loads(printed.splitlines()[-1])
    assert written['output'] == str(tmp_path / 'out.pth')
    assert written['converted'] > 200 and written['ignored'] == ['extra']
    assert written['missing'] == ['roi_head.bbox_head.fc_reg.hidden.bias']


def test_class_vectors_are_kept(convert, small_configs, detectors, published,
                                tmp_path, capsys):
    """Also those that are not the config's; the output says which they are."""
    config = write_config(small_configs, 'c4', tmp_path / 'c.py')
    weights = published('c4', 'ovdet')
    key = 'roi_head.bbox_head.cls_embeddings'
    weights[key][1] *= -1
    torch.save(dict(state_dict=weights), tmp_path / 'in.pth')
    convert(tmp_path / 'in.pth', tmp_path / 'out.pth', '--config', config,
            '--class-vectors', tmp_path / 'own.npz')
    encoder = PrecomputedTextEncoder(str(tmp_path / 'own.npz'))
    torch.testing.assert_close(
        encoder(['cat', 'dog', 'cow', 'bus', 'cup']), weights[key])
    printed = capsys.readouterr().out
    assert 'detic_c4 (Detic R50-C4, or CLIM on it)' in printed
    assert 'the 63 prompt templates of ViLD' in printed
    assert f'class vectors: {key} (5, 8)' in printed
    # Four of five classes have cosine 1, one has -1.
    assert 'mean cosine 0.600' in printed
    assert 'not used: class vectors' in printed
    assert 'not used: the bias of an objective' in printed


def test_class_vectors_of_other_classes_are_refused(convert, small_configs,
                                                    published, tmp_path):
    config = write_config(small_configs, 'c4', tmp_path / 'c.py')
    weights = published('c4', 'ovdet')
    key = 'roi_head.bbox_head.cls_embeddings'
    weights[key] = weights[key][:4]
    torch.save(dict(state_dict=weights), tmp_path / 'in.pth')
    with pytest.raises(ValueError, match='got 4 rows of roi_head'):
        convert(tmp_path / 'in.pth', tmp_path / 'out.pth', '--config', config,
                '--class-vectors', tmp_path / 'own.npz')
    assert sorted(os.listdir(tmp_path)) == ['c.py', 'in.pth']


def test_biases_of_objectives_are_written(convert, small_configs, published,
                                          tmp_path):
    """Then the file has the names of the wrapper."""
    objective = dict(
        type='mmdet_clim.RegionCaptionObjective',
        loss=dict(type='mmdet_clim.CLIMRegionLoss', bias=-20.))
    Config(
        dict(
            model=dict(
                type='mmdet_clim.CLIMDetector',
                detector=small_configs['c4'].model,
                objectives=dict(words=objective)))).dump(tmp_path / 'c.py')
    torch.save(published('c4', 'ovdet'), tmp_path / 'in.pth')
    convert(tmp_path / 'in.pth', tmp_path / 'out.pth', '--config',
            tmp_path / 'c.py')
    state = torch.load(tmp_path / 'out.pth', weights_only=True)['state_dict']
    assert state.pop('objectives.words.region_loss.bias') == -7
    assert all(name.startswith('detector.') for name in state)
