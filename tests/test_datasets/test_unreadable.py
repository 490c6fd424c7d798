# Licensed under the Apache License, Version 2.0.
"""One handling of images that fail, for every source."""
import json

import numpy as np
import pytest
from mmdet.registry import DATASETS
from mmengine.registry import init_default_scope
from torch.utils.data import DataLoader

from mmdet_clim.datasets import (
    CocoPanopticRegionDataset,
    MultiSourceDataset,
    UnreadableImageError,
)
from mmdet_clim.datasets.replacing import unreadable_images
from mmdet_clim.datasets.unreadable import UnreadableImages
from mmdet_clim.engine.hooks import UnreadableImagesHook
from mmdet_clim.evaluation.unreadable import without_unreadable

NUMBER = 8
# Image 4 is one row of 6000 pixels: no resize to 40 pixels leaves it a row.
BROKEN = dict(missing=1, truncated=2, html=3, thin=4)


@pytest.fixture
def source(tmp_path, write_image):
    """Eight boxed images, of which four cannot be used."""
    init_default_scope('mmdet')
    images, annotations = [], []
    for number in range(NUMBER):
        width, height = (6000, 1) if number == BROKEN['thin'] else (40, 30)
        write_image(tmp_path / f'{number}.png', width, height,
                    (number, number, number))
        images.append(
            dict(
                id=number,
                file_name=f'{number}.png',
                width=width,
                height=height))
        annotations.append(
            dict(
                id=number + 1,
                image_id=number,
                category_id=1,
                bbox=[0, 0, 20, min(height, 20)],
                area=20 * min(height, 20),
                iscrowd=0))
    (tmp_path / '1.png').unlink()
    whole = (tmp_path / '2.png').read_bytes()
    (tmp_path / '2.png').write_bytes(whole[:len(whole) // 2])
    (tmp_path / '3.png').write_text('<html>404</html>')
    (tmp_path / 'boxes.json').write_text(
        json.dumps(
            dict(
                images=images,
                annotations=annotations,
                categories=[dict(id=1, name='person')])))
    return tmp_path


def config(folder, kind='mmdet_clim.OVCocoDataset', **more):
    return dict(
        type=kind,
        ann_file=str(folder / 'boxes.json'),
        data_prefix=dict(img=f'{folder}/'),
        metainfo=dict(classes=('person', )),
        pipeline=[
            dict(type='LoadImageFromFile'),
            dict(type='mmdet.LoadAnnotations', with_bbox=True),
            dict(type='mmdet.Resize', scale=(40, 40), keep_ratio=True),
            dict(type='mmdet.PackDetInputs', meta_keys=('img_id', )),
        ],
        **more)


def drawn(dataset, indices=range(NUMBER)):
    return [dataset[i]['data_samples'].img_id for i in indices]


KINDS = {
    'ours':
    lambda cfg: cfg,
    'mmdet in several':
    lambda cfg: dict(
        type='mmdet_clim.MultiSourceDataset',
        datasets=[dict(cfg, type='mmdet.CocoDataset')]),
    'balanced in several':
    lambda cfg: dict(
        type='mmdet_clim.MultiSourceDataset',
        datasets=[
            dict(
                type='ClassBalancedDataset',
                oversample_thr=1e-3,
                dataset=dict(cfg, type='mmdet.CocoDataset'))
        ]),
    'mixed in several':
    lambda cfg: dict(
        type='mmdet_clim.MultiSourceDataset',
        datasets=[
            dict(
                type='mmdet.MultiImageMixDataset',
                pipeline=[],
                dataset=dict(cfg, type='mmdet.CocoDataset'))
        ]),
    'balanced':
    lambda cfg: dict(
        type='ClassBalancedDataset', oversample_thr=1e-3, dataset=cfg),
}


@pytest.mark.parametrize('kind', KINDS)
def test_whatever_fails_is_replaced_by_the_next(source, kind, warnings_logged):
    dataset = DATASETS.build(KINDS[kind](config(source)))
    assert drawn(dataset) == [0, 5, 5, 5, 5, 5, 6, 7]
    # Again the same, and nothing is named twice.
    assert drawn(dataset) == [0, 5, 5, 5, 5, 5, 6, 7]
    named = [line for line in warnings_logged if 'replaced' in line]
    assert len(named) == 4
    for number, line in zip((1, 2, 3, 4), named):
        assert f'{number}.png' in line or f'sample {number}' in line
        assert '\n' not in line
    notes = [notes.indices for _, notes in unreadable_images(dataset)]
    assert [1, 2, 3, 4] in notes


def test_a_source_of_which_nothing_is_left(source):
    for path in source.glob('*.png'):
        path.unlink()
    for kind in KINDS:
        dataset = DATASETS.build(KINDS[kind](config(source)))
        with pytest.raises(UnreadableImageError, match='none of 8 samples'):
            dataset[3]


def test_another_source_does_not_stand_in(source, write_image):
    """The first fails as a whole; its samples are not those of the second."""
    (source / 'sub').mkdir()
    whole = json.loads((source / 'boxes.json').read_text())
    whole['images'] = whole['images'][5:]
    whole['annotations'] = whole['annotations'][5:]
    (source / 'sub' / 'boxes.json').write_text(json.dumps(whole))
    for number in (5, 6, 7):
        write_image(source / 'sub' / f'{number}.png', 40, 30)
        (source / f'{number}.png').unlink()
    (source / '0.png').unlink()
    dataset = MultiSourceDataset([config(source), config(source / 'sub')])
    assert drawn(dataset, [8, 9, 10]) == [5, 6, 7]
    with pytest.raises(UnreadableImageError, match='none of 8 samples'):
        dataset[0]


def test_workers_name_an_image_once_and_the_main_process_knows(source):
    dataset = DATASETS.build(config(source))
    loader = DataLoader(
        dataset, num_workers=2, batch_size=2, collate_fn=drawn_ids)
    for _ in range(2):
        assert sum(loader, []) == [0, 5, 5, 5, 5, 5, 6, 7]
    assert dataset.unreadable.count == 0
    assert dataset.unreadable.indices == [1, 2, 3, 4]


def drawn_ids(batch):
    return [sample['data_samples'].img_id for sample in batch]


class Runner:
    """What the hook asks of a runner."""

    def __init__(self, dataset):
        self.train_dataloader = self.val_dataloader = self.test_dataloader = \
            DataLoader(dataset, collate_fn=drawn_ids)


def test_the_hook_sums_up_and_repeats_nothing(source, monkeypatch):
    warnings_logged = []
    monkeypatch.setattr(
        'mmdet_clim.engine.hooks.unreadable_images_hook.print_log',
        lambda text, **_: warnings_logged.append(text))
    runner = Runner(MultiSourceDataset([config(source)]))
    drawn(runner.train_dataloader.dataset)
    hook = UnreadableImagesHook()
    hook.after_train_epoch(runner)
    hook.after_train(runner)
    line, = warnings_logged
    assert '4 of 8 samples could not be read and were replaced' in line
    assert all(f'{number}.png' in line for number in (1, 2, 3, 4))
    hook.after_val_epoch(runner)
    assert 'without a detection' in warnings_logged[1]


def test_in_evaluation_they_count_as_without_detections(source):
    dataset = DATASETS.build(config(source, test_mode=True))
    samples = [dataset[i]['data_samples'] for i in range(NUMBER)]
    assert [s.img_id for s in samples] == list(range(NUMBER))
    assert [s.get('unreadable', False) for s in samples
            ] == [number in BROKEN.values() for number in range(NUMBER)]
    grey = dataset[1]['inputs'].permute(1, 2, 0).numpy()
    assert grey.shape == (32, 40, 3) and (grey == 114).all()
    # The boxes to be found are still there.
    assert len(samples[1].gt_instances.bboxes) == 1
    found = dict(bboxes=np.ones((3, 4)), scores=np.ones(3), masks=['a'] * 3)
    kept, gone = without_unreadable([
        dict(img_id=0, pred_instances=found),
        dict(img_id=1, pred_instances=found, unreadable=True)
    ])
    assert kept['pred_instances'] is found and gone['img_id'] == 1
    assert [len(v) for v in gone['pred_instances'].values()] == [0, 0, 0]


def test_panoptic_regions(tmp_path, write_image):
    for number in range(3):
        write_image(tmp_path / f'{number}.jpg', 20, 10)
        write_image(tmp_path / f'{number}.png', 20, 10, (0, 0, 7))
    (tmp_path / '0.jpg').write_bytes(b'')
    (tmp_path / '1.png').write_text('<html>')
    (tmp_path / 'panoptic.json').write_text(
        json.dumps(
            dict(
                images=[
                    dict(id=n, file_name=f'{n}.jpg', width=20, height=10)
                    for n in range(3)
                ],
                annotations=[
                    dict(
                        image_id=n,
                        file_name=f'{n}.png',
                        segments_info=[
                            dict(
                                id=7,
                                category_id=1,
                                area=200,
                                bbox=[0, 0, 20, 10],
                                iscrowd=0)
                        ]) for n in range(3)
                ],
                categories=[dict(id=1, name='person', isthing=1)])))
    dataset = CocoPanopticRegionDataset(
        ann_file=str(tmp_path / 'panoptic.json'),
        data_prefix=dict(img=f'{tmp_path}/', seg=f'{tmp_path}/'),
        pipeline=[
            dict(type='LoadImageFromFile'),
            dict(type='mmdet_clim.LoadPanopticRegions')
        ])
    assert [dataset[n]['img_id'] for n in range(3)] == [2, 2, 2]
    assert dataset.unreadable.indices == [0, 1]


def test_only_some_are_named(warnings_logged):
    notes = UnreadableImages('owner', report_every=100)
    notes.watch(250)
    for number in range(250):
        for _ in range(2):
            notes.add(f'image {number}', number)
    # The first twenty, the hundredth and the two hundredth.
    assert len(warnings_logged) == 22 and notes.count == 500
    assert 'unreadable image 200' in warnings_logged[-1]
    with pytest.raises(ValueError, match='report_every: expected at least 1'):
        UnreadableImages('owner', report_every=0)
