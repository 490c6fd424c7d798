# Licensed under the Apache License, Version 2.0.
"""The configs of zero-shot tests, beside mmdet's of the same data."""
from pathlib import Path

import mmdet
import pytest
from mmengine.config import Config

import mmdet_clim  # noqa: F401
from mmdet_clim.evaluation.detection_sets import find_sets

OURS = 'configs/grounding/mm-grounding-dino_swin-t'
MMDET = Path(mmdet.__file__).parent / '.mim/configs/mm_grounding_dino'


def files_and_prompts(datasets):
    """Of mmdet's config: the prompt of each annotation file that has one."""
    return {
        str(Path(of.data_root, of.ann_file).relative_to('data/odinw')):
        of.get('caption_prompt') or {}
        for of in datasets
    }


@pytest.mark.parametrize('count', [13, 35])
def test_odinw_is_that_of_mmdet(repository, tmp_path, monkeypatch, count):
    monkeypatch.setenv('ODINW_ROOT', str(tmp_path))
    of_mmdet = Config.fromfile(
        MMDET / 'odinw' / f'grounding_dino_swin-t_pretrain_odinw{count}.py')
    wanted = files_and_prompts(of_mmdet.test_dataloader.dataset.datasets)
    assert len(wanted) == count
    if count == 13:
        # mmdet writes the prompt down and does not use it, but for the 35.
        wanted['pothole/valid/annotations_without_background.json'] = dict(
            pothole=of_mmdet.caption_prompt['pothole'])
    for name in wanted:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    cfg = Config.fromfile(repository / f'{OURS}_odinw{count}.py')
    assert cfg.test_cfg.type == 'mmdet_clim.DetectionSetsLoop'
    found, missing = find_sets(cfg.test_cfg.root, cfg.test_cfg.sets,
                               cfg.test_cfg.ann_files)
    assert not missing and len(found) == count
    assert {
        str(of.ann_file.relative_to(tmp_path)):
        cfg.test_cfg.prompts.get(of.name, {})
        for of in found
    } == wanted


def test_roboflow_100_has_a_folder_for_each(repository, tmp_path, monkeypatch):
    monkeypatch.setenv('ROBOFLOW100_ROOT', str(tmp_path))
    for name in ('4-fold-defect', 'abdomen-mri'):
        for split in ('train', 'test'):
            file = tmp_path / name / split / '_annotations.coco.json'
            file.parent.mkdir(parents=True)
            file.touch()
    cfg = Config.fromfile(repository / f'{OURS}_roboflow100.py').test_cfg
    found, missing = find_sets(cfg.root, cfg.sets, cfg.ann_files)
    assert not missing
    assert [(of.name, of.ann_file.parent.name)
            for of in found] == [('4-fold-defect', 'test'),
                                 ('abdomen-mri', 'test')]


def test_minival_is_that_of_mmdet(repository):
    wanted = Config.fromfile(
        MMDET / 'lvis' /
        'grounding_dino_swin-t_pretrain_zeroshot_mini-lvis.py')
    cfg = Config.fromfile(repository / f'{OURS}_lvis-minival_fixed-ap.py')
    data = cfg.test_dataloader.dataset
    assert data.ann_file == data.category_file == (
        wanted.test_dataloader.dataset.ann_file)
    assert cfg.test_evaluator.ann_file == f'{cfg.data_root}{data.ann_file}'
    assert cfg.test_evaluator.type == 'mmdet_clim.OVLVISMetric'
    assert wanted.test_evaluator.type == 'LVISFixedAPMetric'
    assert cfg.test_evaluator.fixed_ap is True
    for key in ('max_per_img', 'chunked_size'):
        assert cfg.model.test_cfg[key] == wanted.model.test_cfg[key]
