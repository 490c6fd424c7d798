# Licensed under the Apache License, Version 2.0.
"""What the model receives of mosaics and of plain captioned images."""
import numpy as np
import pytest
import torch
from mmengine.dataset import pseudo_collate

from mmdet_clim.datasets.transforms import MosaicCLIM, PackRegionTextInputs


def captioned(img_id, width=8, height=6):
    image = np.random.RandomState(img_id).randint(0, 255, (height, width, 3),
                                                  np.uint8)
    return dict(
        img=image,
        img_id=img_id,
        img_path=f'{img_id}.jpg',
        img_shape=(height, width),
        ori_shape=(height, width),
        captions=[f'caption {img_id}', 'other'],
        tags=[img_id])


def test_a_plain_image_is_one_region():
    sample = captioned(3)
    packed = PackRegionTextInputs(branch='caption')(sample)
    assert packed['inputs'].shape == (3, 6, 8)
    assert packed['inputs'].dtype == torch.uint8
    assert packed['inputs'].is_contiguous()
    assert np.array_equal(packed['inputs'][2], sample['img'][..., 2])
    data_sample = packed['data_samples']
    assert data_sample.gt_instances.bboxes.tolist() == [[0, 0, 8, 6]]
    assert data_sample.gt_instances.bboxes.dtype == torch.float32
    assert data_sample.gt_instances.labels.tolist() == [0]
    assert data_sample.gt_instances.labels.dtype == torch.int64
    assert data_sample.metainfo == dict(
        img_id=3,
        img_path='3.jpg',
        img_shape=(6, 8),
        ori_shape=(6, 8),
        branch='caption',
        captions=[['caption 3', 'other']],
        tags=[[3]],
        image_ids=[3],
        image_keys=[3],
        mosaic_grid=(1, 1))


def test_a_flipped_image_is_packed_as_it_looks():
    sample = captioned(3)
    sample['img'] = sample['img'][:, ::-1]
    packed = PackRegionTextInputs()(sample)
    assert np.array_equal(packed['inputs'].permute(1, 2, 0), sample['img'])


def test_an_image_without_tags_has_none():
    sample = captioned(3)
    del sample['tags']
    assert PackRegionTextInputs()(sample)['data_samples'].tags == [[]]


def test_a_mosaic_is_one_region_per_tile():
    mosaic = MosaicCLIM(
        grids=[(1, 2)], out_size=(16, 6))(
            dict(captioned(1), mix_results=[captioned(2)]))
    packed = PackRegionTextInputs()(mosaic)
    data_sample = packed['data_samples']
    assert packed['inputs'].shape == (3, 6, 16)
    assert data_sample.gt_instances.bboxes.tolist() == [[0, 0, 8, 6],
                                                        [8, 0, 16, 6]]
    assert data_sample.gt_instances.labels.tolist() == [0, 0]
    assert data_sample.branch == 'mosaic'
    assert data_sample.captions == [['caption 1', 'other'],
                                    ['caption 2', 'other']]
    assert data_sample.tags == [[1], [2]]
    assert data_sample.image_ids == [1, 2]
    assert data_sample.image_keys == [1, 2]
    assert data_sample.mosaic_grid == (1, 2)
    assert data_sample.img_shape == data_sample.ori_shape == (6, 16)
    assert data_sample.scale_factor == (1.0, 1.0)
    batch = pseudo_collate([packed, packed])
    assert len(batch['inputs']) == len(batch['data_samples']) == 2


@pytest.mark.parametrize('key',
                         ['gt_bboxes', 'captions', 'tags', 'image_keys'])
def test_lists_of_another_length_are_an_error(key):
    mosaic = MosaicCLIM(grids=[(1, 2)], out_size=(16, 6))(captioned(1))
    mosaic[key] = mosaic[key][:1]
    with pytest.raises(ValueError, match=f"got {{'{key}': 1}}"):
        PackRegionTextInputs()(mosaic)


def test_a_branch_needs_a_name():
    with pytest.raises(ValueError, match='branch'):
        PackRegionTextInputs(branch='')
