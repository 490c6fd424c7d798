# Licensed under the Apache License, Version 2.0.
"""tools/finetune.py: what a detector still knows of its old words."""
import json
import sys
from dataclasses import replace
from pathlib import Path

import cv2
import mmcv
import pytest
import torch
import torch.nn.functional as F
from mmengine.config import Config

from mmdet_clim.datasets.box_formats import read_boxes
from mmdet_clim.datasets.ov_coco import BASE_CLASSES, NOVEL_CLASSES
from mmdet_clim.engine.checkpoints import read_checkpoint, strip_state_dict
from mmdet_clim.engine.finetune_examples import write_examples
from mmdet_clim.engine.finetune_keeping import (
    KeptWords,
    joined_names,
    words_to_keep,
)
from mmdet_clim.engine.finetune_replay import replayed_boxes
from mmdet_clim.engine.finetune_run import Finetuning
from mmdet_clim.engine.finetuning import OwnData, plain_config
from mmdet_clim.models.text_encoders import load_vectors
from mmdet_clim.registry import MODELS
from mmdet_clim_cli.mistakes import is_mistake, one_line

sys.path.insert(0, str(Path(__file__).parents[2] / 'tools'))
from finetune import parse_args  # noqa: E402  isort: skip

CONFIG = 'configs/openmoji/faster-rcnn_r18-c4_256_base.py'
SIDE = 128
# Captioned images that the original and others look at.
COUNT = 10
WEIGHTS = 'configs/openmoji/faster-rcnn_r18-c4_256_base.pth'


@pytest.fixture(scope='module')
def options(repository, small_detector, openmoji_root, tmp_path_factory):
    """Of a run on captions alone, with boxes to evaluate on."""
    folder = tmp_path_factory.mktemp('options')
    names = folder / 'names.txt'
    names.write_text('cat | kitten\ndog\nbus\n')
    annotations = openmoji_root / 'annotations'
    captions = json.loads(
        (annotations / 'captions_captioned2017_tags.json').read_text())
    captions['images'] = captions['images'][:COUNT]
    (folder / 'captions.json').write_text(json.dumps(captions))
    return dict(
        config=small_detector('faster-rcnn_r18-c4_256_base', SIDE),
        checkpoint=repository / WEIGHTS,
        images=openmoji_root / 'captioned2017',
        captions=folder / 'captions.json',
        vocabulary=names,
        val_boxes=annotations / 'instances_val2017.json',
        val_images=openmoji_root / 'val2017',
        iterations=2,
        batch_size=3,
        workers=0,
        leave=())


@pytest.fixture(scope='module')
def whole_run(options, tmp_path_factory):
    """A run with all means to keep words."""
    work_dir = tmp_path_factory.mktemp('kept') / 'out'
    Finetuning(
        **options,
        work_dir=work_dir,
        distil=1.0,
        replay=0.5,
        blend='auto',
        best=True).run()
    return work_dir


def read(work_dir, name):
    return json.loads((work_dir / name).read_text())


def weights(path):
    return read_checkpoint(path)['state_dict']


def test_words_to_keep(repository, tmp_path):
    cfg = Config.fromfile(repository / CONFIG)
    assert words_to_keep(None, cfg) == list(BASE_CLASSES)
    assert set(words_to_keep(['all'], cfg)) == {*BASE_CLASSES, *NOVEL_CLASSES}
    assert len(words_to_keep(['coco'], cfg)) == 80
    assert len(words_to_keep(['LVIS'], cfg)) == 1203
    assert words_to_keep(['none'], cfg) == []
    assert words_to_keep(['cat', 'fire truck'], cfg) == ['cat', 'fire truck']
    (tmp_path / 'old.txt').write_text('cat\nfire truck')
    assert words_to_keep([str(tmp_path / 'old.txt')],
                         cfg) == ['cat', 'fire truck']
    with pytest.raises(ValueError, match='^--keep: .*cat'):
        words_to_keep(['cat', 'cat'], cfg)
    with pytest.raises(FileNotFoundError, match='^--keep: .*old.json'):
        words_to_keep(['old.json'], cfg)
    prompted = Config(
        dict(
            model=dict(type='mmdet.GLIP'),
            test_dataloader=dict(dataset=dict(type='mmdet.CocoDataset'))))
    assert len(words_to_keep(None, prompted)) == 80
    prompted.test_dataloader.dataset.metainfo = dict(classes=('a', 'b '))
    assert words_to_keep(None, prompted) == ['a', 'b']
    prompted.test_dataloader.dataset = dict(type='mmdet.ODVGDataset')
    with pytest.raises(ValueError, match='^--keep: the config'):
        words_to_keep(None, prompted)


def test_new_and_old_names():
    assert joined_names(['TV', 'cat'],
                        ['dog', 'tv', 'cow']) == ['TV', 'cat', 'dog', 'cow']


def test_what_is_kept_is_reported(whole_run, options, openmoji_root):
    found = read(whole_run, 'kept.json')
    assert found['old_words'] == list(BASE_CLASSES)
    assert found['new_words'] == ['cat', 'dog', 'bus']
    # The AP of a group is the mean over its classes that have boxes.
    boxes = json.loads(options['val_boxes'].read_text())
    names = {c['id']: c['name'] for c in boxes['categories']}
    boxed = {names[a['category_id']] for a in boxes['annotations']}
    assert set(found['ap50']) == boxed & {*BASE_CLASSES, 'cat', 'dog', 'bus'}
    for when in ('before', 'after'):
        for group, of in (('old', BASE_CLASSES), ('new', ('cat', 'dog',
                                                          'bus'))):
            values = [
                found['ap50'][name][when] for name in of
                if name in found['ap50']
            ]
            wanted = sum(values) / len(values) if values else None
            assert found[f'{group}_ap50'][when] == pytest.approx(wanted)
    assert found['images'] == COUNT
    assert 0 < found['agreement']['found_again'] <= 1
    absent = found['not_named']
    for when in ('before', 'after'):
        assert absent[when] == sum(absent[f'{when}_by_class'].values())
    captions = read(whole_run, 'captions.json')
    tag = {c['name']: c['id'] for c in captions['categories']}
    for name in ('cat', 'dog', 'bus'):
        assert absent['images_without'][name] == sum(
            tag[name] not in image['pos_category_ids']
            for image in captions['images'])
    assert (whole_run / 'kept.png').stat().st_size > 1000
    assert not (whole_run / 'looked_at.json').exists()
    thresholds = read(whole_run, 'thresholds.json')
    assert set(thresholds) == {*BASE_CLASSES, 'cat', 'dog', 'bus'}
    assert thresholds['person']['boxes'] == sum(
        names[a['category_id']] == 'person' for a in boxes['annotations'])
    # A word of each class is searched for: of the first, both.
    text = (whole_run / 'detector.py').read_text()
    assert 'cat | kitten' in text
    cfg = Config.fromfile(whole_run / 'detector.py')
    assert list(
        cfg.test_dataloader.dataset.metainfo.classes) == ['cat', 'dog', 'bus']


def test_the_best_and_the_blended(whole_run, options):
    best, = whole_run.glob('best_*.pth')
    blend = read(whole_run, 'blend.json')
    assert [p['alpha'] for p in blend['curve']] == [0, .25, .5, .75, 1]
    # A bound is above what is lost on the images; the original loses nothing.
    first, *others = blend['curve']
    assert first['lost_at_most'] == 0
    for point in others:
        assert point['lost_at_most'] >= \
            first['old_ap50'] - point['old_ap50'] - 1e-9
    found = read(whole_run, 'kept.json')
    assert blend['curve'][0]['old_ap50'] == found['old_ap50']['before']
    tuned = strip_state_dict(weights(best))
    given = weights(options['checkpoint'])
    left = weights(whole_run / 'detector.pth')
    alpha = blend['alpha']
    for name in ('roi_head.bbox_head.fc_cls.projection.weight',
                 'backbone.layer1.0.conv1.weight'):
        torch.testing.assert_close(
            left[name],
            alpha * tuned[name] + (1 - alpha) * given[name].float())


def test_what_the_original_found_is_trained_on(whole_run, openmoji_root):
    boxes = read(whole_run, 'replayed_boxes.json')
    names = [category['name'] for category in boxes['categories']]
    assert names[:3] == ['cat', 'dog', 'bus'] and len(names) == 51
    assert boxes['annotations']
    assert {names[a['category_id']]
            for a in boxes['annotations']} <= set(BASE_CLASSES)
    for image in boxes['images']:
        assert Path('/', image['file_name']).is_file()
    captions = read(whole_run, 'captions.json')
    tags = read(whole_run, 'replayed_tags.json')
    found = {}
    for box in boxes['annotations']:
        found.setdefault(boxes['images'][box['image_id']]['file_name'],
                         set()).add(box['category_id'] + 1)
    folder = str(openmoji_root / 'captioned2017').lstrip('/')
    for before, after in zip(captions['images'], tags['images']):
        more = found.get(f'{folder}/{before["file_name"]}', set())
        assert set(
            after['pos_category_ids']) == {*before['pos_category_ids'], *more}
    cfg = Config.fromfile(whole_run / 'finetune.py')
    source = cfg.train_dataloader.dataset.datasets[0]
    assert list(source.metainfo.base_classes) == names[3:]
    assert cfg.train_dataloader.sampler.source_ratio == [1, 1, 1]
    assert set(cfg.model.objectives) == {'caption', 'tag', 'old_words'}
    # The original looks for what it knew.
    original = cfg.model.objectives.old_words.detector
    assert original.roi_head.bbox_head.vocabulary == list(BASE_CLASSES)


def test_the_same_command_again(whole_run, options, capsys):
    before = (whole_run / 'detector.pth').stat().st_mtime_ns
    Finetuning(
        **options,
        work_dir=whole_run,
        distil=1.0,
        replay=0.5,
        blend='auto',
        best=True).run()
    told = capsys.readouterr().out
    assert 'already complete, nothing to do' in told
    assert 'previous classes AP50 ' in told and 'are found again' in told
    last = read(whole_run, 'blend.json')['curve'][-1]
    assert f'{100 * last["lost_at_most"]:.1f} points at 1\n' in told
    assert (whole_run / 'detector.pth').stat().st_mtime_ns == before


def test_of_old_boxes_alone(options, openmoji_root, tmp_path, capsys):
    """Boxes to evaluate on may be of words to keep, and of no new one."""
    boxes = json.loads(options['val_boxes'].read_text())
    kept = {c['id'] for c in boxes['categories'] if c['name'] in BASE_CLASSES}
    boxes['annotations'] = [
        a for a in boxes['annotations'] if a['category_id'] in kept
    ]
    (tmp_path / 'old.json').write_text(json.dumps(boxes))
    work_dir = tmp_path / 'out'
    Finetuning(
        **dict(
            options,
            val_boxes=tmp_path / 'old.json',
            iterations=1,
            batch_size=2),
        work_dir=work_dir,
        blend=0.0).run()
    found = read(work_dir, 'kept.json')
    # It is the original.
    assert found['old_ap50']['before'] == found['old_ap50']['after'] > 0
    assert found['new_ap50'] == dict(before=None, after=None)
    agreement = found['agreement']
    assert agreement['found_again'] == agreement['f1'] == 1
    assert agreement['score_change'] == 0
    assert not (work_dir / 'metrics.json').exists()
    given = weights(options['checkpoint'])
    for name, value in weights(work_dir / 'detector.pth').items():
        if value.is_floating_point() and name in given:
            torch.testing.assert_close(value, given[name].float())


def test_boxes_that_are_given_stay(options, openmoji_root, tmp_path):
    """The original's boxes of the same objects are left out."""
    annotations = openmoji_root / 'annotations'
    given = read_boxes(annotations / 'instances_train2017_base.json',
                       openmoji_root / 'train2017')
    given.content['images'] = given.content['images'][:3]
    kept = {image['id'] for image in given.content['images']}
    given.content['annotations'] = [
        a for a in given.content['annotations'] if a['image_id'] in kept
    ]
    cfg = Config.fromfile(options['config'])
    words = KeptWords(cfg, options['checkpoint'],
                      OwnData(tmp_path / 'c.json', openmoji_root, ['cat']),
                      words_to_keep(None, cfg), tmp_path, 0)
    captions = dict(
        images=[],
        categories=[dict(id=1 + i) for i in range(len(words.names))])
    found = replayed_boxes(words, captions, openmoji_root, given, 0.3)
    number = {c['name']: c['id'] for c in found['categories']}
    names = {c['id']: c['name'] for c in given.content['categories']}
    wanted = [(a['bbox'], number[names[a['category_id']]])
              for a in given.content['annotations']]
    got = [(a['bbox'], a['category_id']) for a in found['annotations']]
    assert all(pair in got for pair in wanted)
    for image in given.content['images']:
        image['pos_category_ids'] = []
    captions['images'] = given.content['images']

    def replayed():
        return replayed_boxes(words, captions, openmoji_root / 'train2017',
                              None, 0.3)['annotations']

    alone = replayed()
    # Most of the objects have boxes already.
    assert len(got) - len(wanted) < len(alone)
    # Where the new word is named, other old words may be mistakes for it.
    first = alone[0]
    image = captions['images'][first['image_id']]
    image['pos_category_ids'] = [1]
    assert {a['image_id']
            for a in alone} - {a['image_id']
                               for a in replayed()} == {first['image_id']}
    image['pos_category_ids'] = [1, 1 + first['category_id']]
    named = [a for a in replayed() if a['image_id'] == first['image_id']]
    assert named == [
        dict(a, id=named[0]['id'] + i) for i, a in enumerate(
            a for a in alone
            if (a['image_id'], a['category_id']) == (first['image_id'],
                                                     first['category_id']))
    ]


def test_a_class_by_examples(options, openmoji_root, tmp_path):
    """Mixed are the name and the mean of what is read in the boxes."""
    annotations = openmoji_root / 'annotations'
    boxes = read_boxes(annotations / 'instances_train2017_base.json',
                       openmoji_root / 'train2017')
    boxes.file = None
    cfg = Config.fromfile(options['config'])
    data = OwnData(tmp_path / 'c.json', openmoji_root, ['person', 'unicorn'])
    kept = KeptWords(cfg, options['checkpoint'], data, ['dog'], tmp_path, 0)
    content = boxes.content
    person, = [c['id'] for c in content['categories'] if c['name'] == 'person']
    content['annotations'] = [
        a for a in content['annotations'] if a['category_id'] == person
    ][:2]
    used = {a['image_id'] for a in content['annotations']}
    content['images'] = [i for i in content['images'] if i['id'] in used]
    assert write_examples(kept, boxes, data.names, tmp_path / 'e.pth') == 1
    names, vectors = load_vectors(str(tmp_path / 'e.pth'))
    assert names == ['person']
    # By hand: each image and box by itself.
    read = []
    detector, head = kept.model, kept.model.roi_head
    files = {i['id']: i for i in content['images']}
    for box in content['annotations']:
        image = files[box['image_id']]
        pixels = cv2.imread(str(boxes.images / image['file_name']))
        factor = SIDE / max(pixels.shape[:2])
        pixels = mmcv.imrescale(pixels, (SIDE, SIDE))
        inputs = detector.data_preprocessor(
            dict(inputs=[torch.tensor(pixels).permute(2, 0, 1)]))['inputs']
        x, y, w, h = (factor * value for value in box['bbox'])
        with torch.no_grad():
            levels = detector.extract_feat(inputs)
            roi = head.bbox_roi_extractor(
                levels, torch.tensor([[0, x, y, x + w, y + h]]))
            read.append(
                F.normalize(
                    head.bbox_head.embed(head.shared_head(roi)), dim=1))
    wanted = F.normalize(torch.cat(read).mean(0), dim=0)
    assert (vectors[0] @ wanted).item() > 0.999
    plain = plain_config(
        cfg, replace(data, examples=tmp_path / 'e.pth', example_weight=1.0))
    model = MODELS.build(plain.model)
    torch.testing.assert_close(
        model.roi_head.bbox_head.fc_cls.class_embeddings[0], vectors[0])
    content['annotations'][0]['category_id'] = content['annotations'][1][
        'category_id'] = 999
    content['categories'].append(dict(id=999, name='other'))
    with pytest.raises(ValueError, match='--examples: expected boxes of some'):
        write_examples(kept, boxes, data.names, tmp_path / 'e.pth')


@pytest.mark.parametrize('changed, message', [
    (dict(keep=['cat', 'cat']), '--keep: class names must differ'),
    (dict(keep=['none'], replay=.5), '--replay: expected classes to keep'),
    (dict(keep=['none'], distil=1.), '--distil: expected classes to keep'),
    (dict(blend='auto', val_boxes=None), '--blend auto: expected --val-boxes'),
    (dict(blend='auto', keep=['unicorn']), '--blend auto: expected --val-box'),
    (dict(best=True, val_boxes=None), '--best: expected --val-boxes'),
])
def test_what_can_not_be_kept(options, tmp_path, changed, message):
    with pytest.raises(Exception) as stop:
        Finetuning(**{**options, **changed}, work_dir=tmp_path / 'out').run()
    assert is_mistake(stop.value), repr(stop.value)
    assert message in one_line(stop.value)
    assert not (tmp_path / 'out').exists()


@pytest.mark.parametrize('words, message', [
    (['--distil', '-1'], '--distil: expected a number from 0 to inf, got -1'),
    (['--replay', '1.5'], '--replay: expected a number from 0 to 1, got 1.5'),
    (['--blend', '2'], '--blend: expected a number from 0 to 1 or auto, got'),
    (['--blend', 'best'], "from 0 to 1 or auto, got 'best'"),
    (['--most-lost', '101'], '--most-lost: expected a number from 0 to 100'),
    (['--alike', 'nan'], '--alike: expected a number from 0 to 1, got nan'),
    (['--best'], '--best: expected --val-boxes'),
    (['--distil', 'inf'], '--distil: expected a number from 0 to inf, got in'),
    (['--most-lost', '2'], '--most-lost: has no effect without --blend auto'),
    (['--example-weight', '.3'], 'weight: has no effect without --examples'),
    (['--val-images', '.'], '--val-images: has no effect without --val-boxes'),
    (['--box-images', '.'], 'without --boxes or --val-boxes or --examples'),
    (['--images', __file__], '--images: expected a folder, got'),
    (['--work-dir', __file__], '--work-dir: expected a folder, got'),
])
def test_options_that_are_none(options, capsys, words, message):
    given = [
        str(word) for key in ('config', 'checkpoint', 'images', 'vocabulary')
        for word in (f'--{key}', options[key])
    ]
    with pytest.raises(SystemExit):
        parse_args(given + words)
    assert message in capsys.readouterr().err
    assert parse_args([*given, '--replay']).replay == 0.5
    assert parse_args([*given, '--blend', '0.5']).blend == 0.5
