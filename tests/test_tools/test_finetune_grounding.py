# Licensed under the Apache License, Version 2.0.
"""Fine-tuning of detectors that read their classes as a text."""
import json
import sys
from pathlib import Path

import pytest
import torch
from mmengine.config import Config

from mmdet_clim.apis import CLIMInferencer
from mmdet_clim.engine.finetune_run import Finetuning
from mmdet_clim.engine.finetuning import OwnData, finetune_config
from mmdet_clim.registry import MODELS

sys.path.insert(0, str(Path(__file__).parents[1] / 'test_configs'))
from grounding_cases import shrink  # noqa: E402  isort: skip

PRETRAINED = {
    'MM-Grounding-DINO':
    'mm_grounding_dino/grounding_dino_swin-t_pretrain_obj365.py',
    'Grounding DINO':
    'grounding_dino/grounding_dino_swin-t_pretrain_obj365_goldg_cap4m.py',
    'GLIP': 'glip/glip_atss_swin-t_a_fpn_dyhead_pretrain_obj365.py',
}


def small_config(name, bert):
    """A config of mmdet's pretrained detectors that a CPU trains."""
    cfg = Config.fromstring(f"_base_ = ['mmdet::{PRETRAINED[name]}']", '.py')
    shrink(cfg.model, bert)
    for step in cfg.test_dataloader.dataset.pipeline:
        if 'scale' in step:
            step.scale = (96, 96)
    return cfg


def host(name, bert, folder):
    """Files of a small config and of random weights of it."""
    cfg = small_config(name, bert)
    for step in cfg.train_dataloader.dataset.get('pipeline', []):
        if 'scale' in step:
            step.scale = (96, 96)
    cfg.dump(folder / 'host.py')
    torch.manual_seed(0)
    model = MODELS.build(cfg.model)
    # Else level_embed of the detection transformers is whatever the memory
    # held.
    model.init_weights()
    # LLMDet's come with those of a large language model.
    weights = {**model.state_dict(), 'lmm.norm.weight': torch.ones(4)}
    torch.save(dict(state_dict=weights), folder / 'host.pth')
    return folder / 'host.py', folder / 'host.pth'


@pytest.fixture
def captioned(openmoji_root, tmp_path):
    """Folder of images with captions, and a vocabulary."""
    photos = tmp_path / 'photos'
    photos.mkdir()
    names = ['cat', 'traffic light', 'dog']
    images = sorted((openmoji_root / 'captioned2017').glob('*.jpg'))[:4]
    for path, name in zip(images, names * 2):
        (photos / path.name).symlink_to(path)
        (photos / f'{path.stem}.txt').write_text(f'a {name} on a street')
    vocabulary = tmp_path / 'names.txt'
    vocabulary.write_text('\n'.join([*names, 'person', 'car']))
    return dict(images=photos, vocabulary=vocabulary)


@pytest.mark.parametrize('name', list(PRETRAINED))
def test_public_detectors(name, bert, captioned, openmoji_root, tmp_path,
                          capsys):
    """Captions alone; with boxes where the config does not only test."""
    config, weights = host(name, bert, tmp_path)
    annotations = openmoji_root / 'annotations'
    boxes = dict(
        boxes=annotations / 'instances_train2017_base.json',
        box_images=openmoji_root / 'train2017',
        val_boxes=annotations / 'instances_val2017.json',
        val_images=openmoji_root / 'val2017') if name == 'GLIP' else {}
    Finetuning(
        config,
        weights,
        **captioned,
        **boxes,
        work_dir=tmp_path / 'out',
        iterations=1,
        batch_size=3 if boxes else 2,
        workers=0,
        distil=1.0,
        leave=('labels', 'onnx')).run()
    printed = capsys.readouterr().out
    # Which has no graph.
    assert 'no detector.onnx: export: ' in printed
    assert 'mosaic.old_words.loss' in printed
    # Where objects are as large as in a test.
    assert 'captions.old_words.loss' in printed
    assert 'captions.tag.loss' not in printed
    assert '1 weights are not used: lmm.norm.weight' in printed
    assert not (tmp_path / 'out' / 'detector.onnx').exists()
    labels = json.loads((tmp_path / 'out/pseudo_labels.json').read_text())
    assert len(labels['images']) == len(
        list(captioned['images'].glob('*.txt')))
    trained = Config.fromfile(tmp_path / 'out' / 'finetune.py')
    assert trained.train_dataloader.sampler.source_ratio == ([1, 1, 1] if boxes
                                                             else [1, 1])
    old = trained.model.objectives.old_words
    assert list(
        old.new_words) == captioned['vocabulary'].read_text().split('\n')
    before = torch.load(weights)['state_dict']
    del before['lmm.norm.weight']
    after = torch.load(tmp_path / 'out' / 'detector.pth')['state_dict']
    assert before.keys() == after.keys()
    changed = {
        key.partition('.')[0]
        for key, value in before.items() if not after[key].equal(value)
    }
    # The language model is kept.
    assert 'bbox_head' in changed and 'language_model' not in changed
    if boxes:
        metrics = json.loads((tmp_path / 'out' / 'metrics.json').read_text())
        assert 0 <= metrics['ov_coco/all_ap50'] <= 1
    find = CLIMInferencer(
        str(tmp_path / 'out' / 'detector.py'),
        str(tmp_path / 'out' / 'detector.pth'),
        device='cpu',
        show_progress=False)
    found = find(str(next((openmoji_root / 'val2017').glob('*.jpg'))))
    assert set(found['predictions'][0]['names']) <= {
        'cat', 'traffic light', 'dog', 'person', 'car'
    }


def test_boxes_as_prompts(bert, tmp_path):
    """Boxed images are told of base classes, in place of the host's own."""
    cfg = small_config('MM-Grounding-DINO', bert)
    names = [f'class {n}' for n in range(60)]
    for base, negatives in ((names[:5], None), (names[:50], 40)):
        data = OwnData(
            tmp_path / 'c.json',
            tmp_path,
            names,
            boxes=tmp_path / 'b.json',
            base_names=base)
        new = finetune_config(cfg, tmp_path / 'w.pth', data, batch_size=8)
        boxes, mosaics = new.train_dataloader.dataset.datasets
        kinds = [step.type for step in boxes.pipeline]
        assert 'RandomSamplingNegPos' not in kinds
        assert kinds[-2:] == ['mmdet_clim.BaseClassPrompt', 'PackDetInputs']
        assert boxes.pipeline[-2].num_negatives == negatives
        assert boxes.pipeline[-2].vocabulary.base_names == base
        assert {'text', 'custom_entities'} <= set(boxes.pipeline[-1].meta_keys)
        assert new.train_dataloader.sampler.source_ratio == [4, 4]
        tag = new.model.objectives.tag
        assert tag.match == 'text' and new.model.text_encoder is None
        step = mosaics.pipeline[-1]
        assert step.type == 'mmdet_clim.TokenizePrompts'
        assert step.objectives == new.model.objectives
        assert step.language_model == new.model.detector.language_model


def test_names_that_one_prompt_has_no_room_for(bert, captioned, tmp_path):
    """They are read a few at a time; mmdet would cut the last ones off.

    An option names the language model that the config has not.
    """
    config, weights = host('Grounding DINO', bert, tmp_path)
    cfg = Config.fromfile(config)
    local = cfg.model.language_model.name
    cfg.model.language_model.name = 'no/such-bert'
    cfg.dump(config)
    captioned['vocabulary'].write_text('\n'.join(
        ['cat', 'dog', *(f'traffic light {n}' for n in range(100))]))
    run = Finetuning(
        config,
        weights,
        **captioned,
        work_dir=tmp_path / 'out',
        iterations=1,
        batch_size=2,
        workers=0,
        cfg_options={'model.detector.language_model.name': local})
    from contextlib import ExitStack
    with ExitStack() as stack:
        plan = run._begin(stack)
    mosaics, = plan.train.train_dataloader.dataset.datasets
    for model in (plan.plain.model, plan.train.model.detector,
                  mosaics.pipeline[-1], run._kept.cfg.model):
        assert model.language_model.name == local
    assert plan.plain.model.test_cfg.chunked_size == 40
    assert plan.train.model.detector.test_cfg.chunked_size == 40
    assert plan.plain.test_dataloader.batch_size == 1
