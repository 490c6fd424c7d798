# Licensed under the Apache License, Version 2.0.
"""From a closed-set detector of mmdet to all that fine-tuning leaves."""
import json
import sys

import cv2
import numpy as np
import pytest
import torch
from mmengine.hub import get_config
from mmengine.registry import init_default_scope

from mmdet_clim.apis import CLIMInferencer
from mmdet_clim.engine.finetune_run import Finetuning
from mmdet_clim.registry import MODELS

LEFT = {
    'detector.safetensors', 'pseudo_labels.json', 'detector.onnx',
    'detector.npz', 'report.html'
}


@pytest.fixture(scope='module')
def closed_set(tmp_path_factory):
    """A narrow FCOS of mmdet, with random weights of three classes."""
    init_default_scope('mmdet')
    cfg = get_config('mmdet::fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py')
    model = cfg.model
    model.backbone.update(depth=18, init_cfg=None)
    model.neck.update(in_channels=[64, 128, 256, 512], out_channels=16)
    model.bbox_head.update(
        num_classes=3,
        in_channels=16,
        feat_channels=16,
        stacked_convs=1,
        norm_cfg=dict(type='GN', num_groups=4))
    for pipeline in (cfg.train_dataloader.dataset.pipeline,
                     cfg.test_dataloader.dataset.pipeline):
        next(s for s in pipeline if s.type == 'Resize').scale = (128, 128)
    folder = tmp_path_factory.mktemp('closed_set')
    cfg.dump(folder / 'fcos.py')
    torch.manual_seed(0)
    detector = MODELS.build(model)
    torch.save(
        dict(
            state_dict=detector.state_dict(),
            meta=dict(dataset_meta=dict(classes=('person', 'car', 'cat')))),
        folder / 'fcos.pth')
    return folder


def test_all_that_is_left(closed_set, openmoji_root, tmp_path, repository,
                          monkeypatch, capsys):
    """Its own images have tags by their boxes; unknown words get tags too."""
    names = tmp_path / 'names.txt'
    names.write_text('person\nfire truck\ncar\n')
    annotations = openmoji_root / 'annotations'
    work_dir = tmp_path / 'out'
    options = dict(
        config=closed_set / 'fcos.py',
        checkpoint=closed_set / 'fcos.pth',
        images=openmoji_root / 'train2017',
        tags='boxes',
        vocabulary=names,
        boxes=annotations / 'instances_train2017_base.json',
        val_boxes=annotations / 'instances_val2017.json',
        val_images=openmoji_root / 'val2017',
        work_dir=work_dir,
        iterations=1,
        batch_size=3,
        workers=0,
        keep=['none'])
    Finetuning(**options).run()
    there = {path.name for path in work_dir.iterdir()}
    assert LEFT <= there and {'start.py', 'start.pth'} <= there
    printed = capsys.readouterr().out
    assert 'the 3 classes of' in printed and str(
        work_dir / 'report.html') in printed

    report = (work_dir / 'report.html').read_text()
    for title in ('Data', 'Training', 'AP of each class', 'Kinds of errors',
                  'Confusions', 'Before and after', 'Proposed boxes',
                  'Settings'):
        assert f'<h2>{title}</h2>' in report
    assert report.count('base64,') == 3
    before, after = (
        json.loads((work_dir / 'evaluation' / f'{which}.json').read_text())
        for which in ('before', 'after'))
    metrics = json.loads((work_dir / 'metrics.json').read_text())
    assert metrics['ov_coco/all_ap50'] == after['ov_coco/all_ap50']
    assert 'ov_coco/ap50_person' in before

    proposed = json.loads((work_dir / 'pseudo_labels.json').read_text())
    assert [c['name'] for c in proposed['categories']
            ] == ['person', 'fire truck', 'car']
    assert len(proposed['images']) == json.loads(
        (work_dir / 'captions_summary.json'
         ).read_text())['files']['captions.json']['images']

    # The same detector, in three files.
    monkeypatch.syspath_prepend(str(repository / 'tools'))
    import run_onnx
    config = str(work_dir / 'detector.py')
    image = next((openmoji_root / 'val2017').glob('*.jpg'))
    found = [
        CLIMInferencer(
            given, str(work_dir / name), device='cpu',
            show_progress=False)(str(image))['predictions'][0]
        for given, name in ((config, 'detector.pth'), (None,
                                                       'detector.safetensors'))
    ]
    assert found[0] == found[1] and found[0]['names']
    run = run_onnx.OnnxRunner(work_dir / 'detector.onnx')
    assert run.base_names == {'person', 'car'}
    of_graph = run(
        cv2.imread(str(image)),
        *run_onnx.read_embeddings(work_dir / 'detector.npz'))
    np.testing.assert_allclose(
        of_graph['scores'], found[0]['scores'], atol=1e-3)

    # Made again is only what is gone.
    times = {
        path: path.stat().st_mtime_ns
        for path in work_dir.iterdir() if path.is_file()
    }
    (work_dir / 'report.html').unlink()
    monkeypatch.setitem(sys.modules, 'onnx', None)
    (work_dir / 'detector.onnx').unlink()
    Finetuning(**options).run()
    printed = capsys.readouterr().out
    assert 'already complete, nothing to do' in printed
    assert 'no detector.onnx: ' in printed and 'onnx' in printed
    changed = {
        path.name
        for path in work_dir.iterdir()
        if path.is_file() and times.get(path) != path.stat().st_mtime_ns
    }
    assert changed - {'.lock'} == {'report.html'}
