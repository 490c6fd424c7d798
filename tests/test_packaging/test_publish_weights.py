# Licensed under the Apache License, Version 2.0.
"""tools/checkpoints/publish_weights.py: a small file of a run's weights."""
import re

import pytest
import torch


@pytest.fixture
def checkpoint(tmp_path):
    """What MMEngine's runner saves, of one small module."""
    torch.manual_seed(0)
    module = torch.nn.BatchNorm1d(3)
    file = tmp_path / 'iter_7.pth'
    torch.save(
        dict(
            state_dict=module.state_dict(),
            optimizer=dict(state=torch.zeros(1000)),
            message_hub=dict(log='long'),
            meta=dict(seed=4, iter=7, cfg='a = 1', hostname='mine')), file)
    return file


def test_weights_are_halved_and_the_rest_is_dropped(run_tool, checkpoint,
                                                    tmp_path):
    out = tmp_path / 'new' / 'weights.pth'
    code, log = run_tool('checkpoints/publish_weights.py', checkpoint, out)
    assert code == 0, log
    published = torch.load(out, weights_only=True)
    assert set(published) == {'state_dict', 'meta'}
    assert published['meta'] == dict(seed=4, iter=7, cfg='a = 1')
    weights = published['state_dict']
    assert weights['weight'].dtype == torch.float16
    # A counter stays an integer.
    assert weights['num_batches_tracked'].dtype == torch.int64
    module = torch.nn.BatchNorm1d(3)
    module.load_state_dict(weights)
    assert module.weight.dtype == torch.float32
    assert module.weight.tolist() == [1, 1, 1]


def test_a_weight_beyond_half_precision_is_named(run_tool, checkpoint,
                                                 tmp_path):
    content = torch.load(checkpoint, weights_only=True)
    content['state_dict']['weight'][1] = 1e5
    torch.save(content, checkpoint)
    code, log = run_tool('checkpoints/publish_weights.py', checkpoint,
                         tmp_path / 'out.pth')
    assert code == 1
    assert re.search('weight: expected .* got 100000', log.splitlines()[-1])
    assert not (tmp_path / 'out.pth').exists()
