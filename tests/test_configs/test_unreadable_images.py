# Licensed under the Apache License, Version 2.0.
"""Broken images in the data of a shipped recipe."""
import shutil

import pytest
from mmengine.config import Config

NAME = 'faster-rcnn_r18-c4_256_captions-tags_clim'


@pytest.fixture
def broken_root(openmoji_root, tmp_path):
    """The data with images that are missing, truncated, and HTML."""
    root = tmp_path / 'coco'
    shutil.copytree(openmoji_root, root)
    broken = {}
    for folder, kept in (('train2017', 2), ('captioned2017', 12), ('val2017',
                                                                   6)):
        images = sorted((root / folder).glob('*.jpg'))[:-kept]
        for number, path in enumerate(images):
            if number % 3 == 0:
                path.unlink()
            elif number % 3 == 1:
                path.write_bytes(path.read_bytes()[:300])
            else:
                path.write_text('<html>404</html>')
        broken[folder] = {path.name for path in images}
    return root, broken


def test_a_recipe_trains_and_is_evaluated(repository, broken_root, shorten,
                                          train, monkeypatch, tmp_path):
    """With 22 of 24 boxed images broken, as one of them was fatal."""
    root, broken = broken_root
    monkeypatch.setenv('OPENMOJI_ROOT', f'{root}/')
    cfg = Config.fromfile(repository / f'configs/openmoji/{NAME}.py')
    shorten(cfg, 2, [4, 1, 3])
    runner, record = train(cfg, tmp_path / 'run')
    assert len(record.losses) == 2
    assert all(loss == loss for losses in record.losses
               for loss in losses.values())
    log = next((tmp_path / 'run').glob('*/*.log')).read_text()
    summary = [
        line for line in log.splitlines()
        if 'samples could not be read' in line
    ]
    assert any('OVCocoDataset' in line and 'were replaced' in line
               for line in summary)
    evaluated, = (
        line for line in summary if 'counted as without a detection' in line)
    assert f'{len(broken["val2017"])} of 8' in evaluated
    for line in log.splitlines():
        if 'unreadable image' in line:
            assert 'img_path=' in line
