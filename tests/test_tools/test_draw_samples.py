# Licensed under the Apache License, Version 2.0.
import json
from pathlib import Path

import cv2
import numpy as np

CATEGORIES = [dict(id=1, name='person'), dict(id=18, name='dog')]

CONFIG = """
custom_imports = dict(imports=['mmdet_clim.datasets'])
boxes = dict(
    type='mmdet_clim.OVCocoDataset',
    ann_file='{root}/boxes.json',
    data_prefix=dict(img='{root}/'),
    pipeline=[
        dict(type='LoadImageFromFile'),
        dict(type='mmdet.LoadAnnotations', with_bbox=True),
        dict(type='mmdet.PackDetInputs'),
    ])
texts = dict(
    type='mmdet_clim.ImageTextDataset',
    vocabulary=dict(dataset='mmdet_clim.OVCocoDataset'),
    ann_file='{root}/captions.json',
    data_prefix=dict(img='{root}/'),
    pipeline=[
        dict(type='mmdet_clim.LoadImageText'),
        dict(
            type='mmdet_clim.MosaicCLIM',
            grids=((2, 3), ),
            tile_size=(32, 32),
            out_size=(96, 64),
            cache_size=8),
        dict(type='mmdet_clim.PackRegionTextInputs', branch='mosaic'),
    ])
"""


def write_data(root: Path) -> None:
    """Three images with a dog each, as boxes and as captions."""
    images = []
    for i in range(1, 4):
        cv2.imwrite(str(root / f'{i}.jpg'), np.full((40, 60, 3), 60 * i))
        images.append(
            dict(
                id=i,
                file_name=f'{i}.jpg',
                width=60,
                height=40,
                captions=['a dog'],
                pos_category_ids=[18]))
    annotations = [
        dict(
            id=i,
            image_id=i,
            category_id=18,
            bbox=[5, 5, 30, 30],
            area=900,
            iscrowd=0) for i in range(1, 4)
    ]
    (root / 'captions.json').write_text(
        json.dumps(dict(images=images, categories=CATEGORIES)))
    (root / 'boxes.json').write_text(
        json.dumps(
            dict(
                images=images, categories=CATEGORIES,
                annotations=annotations)))


def test_every_source_is_drawn(tmp_path, run_tool):
    write_data(tmp_path)
    config = tmp_path / 'config.py'
    config.write_text(
        CONFIG.format(root=tmp_path) + "train_dataloader = dict(dataset=dict("
        "type='mmdet_clim.MultiSourceDataset', datasets=[boxes, texts]))")
    out = tmp_path / 'out'
    code, log = run_tool('visualization/browse_mosaics.py', str(config),
                         '--out-dir', str(out), '--num', '2', '--side', '300')
    assert code == 0, log
    assert sorted(f.name for f in out.iterdir()) == [
        '0_boxes_0.png', '0_boxes_1.png', '1_mosaic_0.png', '1_mosaic_1.png'
    ]
    assert cv2.imread(str(out / '0_boxes_0.png')).shape == (200, 300, 3)
    # the mosaic and its page of texts
    assert cv2.imread(str(out / '1_mosaic_0.png')).shape == (200, 600, 3)


def test_rectangles_of_the_objectives_are_drawn(tmp_path, run_tool):
    write_data(tmp_path)
    pictures = []
    for number in (0, 3):
        config = tmp_path / f'config{number}.py'
        config.write_text(
            CONFIG.format(root=tmp_path) +
            'train_dataloader = dict(dataset=texts)\n'
            'model = dict(objectives=dict(caption=dict('
            "type='mmdet_clim.RegionCaptionObjective', "
            "loss=dict(type='mmdet_clim.CLIMRegionLoss'), "
            f'num_compositions={number})))')
        code, log = run_tool('visualization/browse_mosaics.py', str(config),
                             '--out-dir', str(tmp_path / 'out'), '--num', '1',
                             '--side', '300')
        assert code == 0, log
        pictures.append(cv2.imread(str(tmp_path / 'out/0_mosaic_0.png')))
    changed = (pictures[0] != pictures[1]).any(-1)
    # On the mosaic, not on the page of texts.
    assert changed[:, :300].any() and not changed[:, 300:].any()


def test_plain_dataset_with_fewer_samples(tmp_path, run_tool):
    write_data(tmp_path)
    config = tmp_path / 'config.py'
    config.write_text(
        CONFIG.format(root=tmp_path) +
        'train_dataloader = dict(dataset=boxes)')
    code, log = run_tool('visualization/browse_mosaics.py', str(config),
                         '--out-dir', str(tmp_path / 'out'), '--num', '9')
    assert code == 0, log
    assert len(list((tmp_path / 'out').iterdir())) == 3


def test_wrong_number(tmp_path, run_tool):
    code, log = run_tool('visualization/browse_mosaics.py', 'config.py',
                         '--out-dir', str(tmp_path), '--num', '0')
    assert code == 2
    assert '--num: expected at least 1' in log
