# Licensed under the Apache License, Version 2.0.
"""One detector on a folder of data sets, in the layouts of others."""
import contextlib
import io
import json
import shutil
from types import SimpleNamespace

import pytest
import torch
from mmdet.utils import register_all_modules
from mmengine.config import Config
from mmengine.runner import Runner
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from mmdet_clim.apis import CLIMInferencer
from mmdet_clim.engine import DetectionSetsLoop
from mmdet_clim.evaluation.detection_sets import (
    class_names,
    find_sets,
    sets_metrics,
    sets_table,
)
from mmdet_clim.registry import MODELS

OPENMOJI = 'configs/openmoji'
TWO_STAGE = 'faster-rcnn_r18-c4_256_base'
GROUNDING = 'mm-grounding-dino_r18_160_boxes'


def of_classes(content, names, images):
    """A part of a COCO file, its classes numbered anew, the last first.

    As labelling services export: the group of the classes has the id 0.
    """
    names = sorted(names, reverse=True)
    ids = {c['id']: c['name'] for c in content['categories']}
    kept = {image['id'] for image in images}
    return dict(
        images=images,
        categories=[dict(id=0, name='things', supercategory='none')] + [
            dict(id=i, name=name, supercategory='things')
            for i, name in enumerate(names, 1)
        ],
        annotations=[
            dict(a, category_id=names.index(ids[a['category_id']]) + 1)
            for a in content['annotations']
            if a['image_id'] in kept and ids[a['category_id']] in names
        ])


@pytest.fixture(scope='module')
def root(openmoji_root, tmp_path_factory):
    """Two good data sets, of different classes, and three bad ones."""
    root = tmp_path_factory.mktemp('sets')
    content = json.loads(
        (openmoji_root / 'annotations/instances_val2017.json').read_text())
    names = {c['id']: c['name'] for c in content['categories']}
    shown = sorted({names[a['category_id']] for a in content['annotations']})
    for name, classes, images in (('half [1]', shown[::2],
                                   content['images'][:3]),
                                  ('other half', shown[1::2],
                                   content['images'][3:5])):
        folder = root / name / 'test'
        folder.mkdir(parents=True)
        for image in images:
            shutil.copy(openmoji_root / 'val2017' / image['file_name'], folder)
        (folder / '_annotations.coco.json').write_text(
            json.dumps(of_classes(content, classes, images)))
    (root / 'no file' / 'test').mkdir(parents=True)
    for name, text in (('cut short', '{"images": ['),
                       ('no image', (root / 'other half/test' /
                                     '_annotations.coco.json').read_text())):
        (root / name / 'test').mkdir(parents=True)
        (root / name / 'test/_annotations.coco.json').write_text(text)
    return root


def evaluate(repository, run_tool, root, tmp_path, config, checkpoint, more):
    """``tools/test.py`` with the fragment of Roboflow-100."""
    (tmp_path / 'sets.py').write_text(f"""
_base_ = ['{repository}/{OPENMOJI}/{config}.py',
          '{repository}/configs/_base_/datasets/roboflow100_sets.py']
test_cfg = dict(_delete_=True, outfile_prefix='{tmp_path}/found', {more}
                **_base_.sets_test_cfg)
test_dataloader = dict(num_workers=0, persistent_workers=False)
""")
    return run_tool(
        'test.py',
        tmp_path / 'sets.py',
        checkpoint,
        '--work-dir',
        tmp_path / 'out',
        '--json',
        env=dict(
            ROBOFLOW100_ROOT=f'{root}',
            OPENMOJI_ROOT=f'{tmp_path}/absent/',
            OPENMOJI_MMGD=str(checkpoint)))


def plain_ap(file, detections):
    """AP and AP50 by pycocotools, of classes with boxes."""
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(file))
        evaluation = COCOeval(truth, truth.loadRes(str(detections)), 'bbox')
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation.stats[:2]


def test_a_detector_that_classifies_by_text(repository, root, run_tool,
                                            tmp_path):
    weights = repository / OPENMOJI / f'{TWO_STAGE}.pth'
    code, log = evaluate(repository, run_tool, root, tmp_path, TWO_STAGE,
                         weights, '')
    assert code == 0, log
    metrics = json.loads(log.splitlines()[-1])
    assert (metrics['evaluated'], metrics['expected']) == (2, 5)
    find = CLIMInferencer(
        str(repository / OPENMOJI / f'{TWO_STAGE}.py'),
        str(weights),
        device='cpu',
        show_progress=False)
    for name in ('half [1]', 'other half'):
        file = root / name / 'test/_annotations.coco.json'
        detections = tmp_path / f'found.{name}.bbox.json'
        wanted = plain_ap(file, detections)
        assert 0 < wanted[1] < 1
        assert [metrics[f'{name}/ap'],
                metrics[f'{name}/ap50']] == pytest.approx(
                    wanted, abs=1e-9)
        # The same boxes of the same classes as by another way.
        content = json.loads(file.read_text())
        names = {c['id']: c['name'] for c in content['categories']}
        del names[0]
        image = content['images'][0]
        by_hand, = find(
            file.parent / image['file_name'],
            vocabulary=list(names.values()))['predictions']
        found = [
            d for d in json.loads(detections.read_text())
            if d['image_id'] == image['id']
        ]
        assert [names[d['category_id']] for d in found] == by_hand['names']
        assert [d['score'] for d in found] == pytest.approx(
            by_hand['scores'], abs=1e-4)
    for key in ('ap', 'ap50'):
        assert metrics[f'mean/{key}'] == pytest.approx(
            (metrics[f'half [1]/{key}'] + metrics[f'other half/{key}']) / 2)
    # Each is named with the reason, in the table too.
    table = log[log.index('| data set'):]
    for name, reason in (('no file', 'has none of test/_annotations'),
                         ('cut short', '_annotations.coco.json'),
                         ('no image', 'can be read')):
        assert f'{name}: ' in table and reason in table
    assert '| mean of 2 of 5' in table


@pytest.fixture(scope='module')
def grounding(repository):
    """A detector that reads texts, of random weights, and its config."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('OPENMOJI_MMGD', 'none.pth')
        cfg = Config.fromfile(repository / OPENMOJI / f'{GROUNDING}.py')
    cfg.model.backbone.pop('init_cfg')
    register_all_modules()
    torch.manual_seed(0)
    model = MODELS.build(cfg.model)
    model.init_weights()
    return model, cfg


def test_a_detector_that_reads_texts(repository, root, run_tool, tmp_path,
                                     grounding):
    """What it is asked for with each image."""
    model, _ = grounding
    torch.save(dict(state_dict=model.state_dict()), tmp_path / 'w.pth')
    file = root / 'other half/test/_annotations.coco.json'
    classes = class_names(json.loads(file.read_text()))
    prompts = {'other half': {classes[0]: dict(name='cat', suffix=' here')}}
    code, log = evaluate(repository, run_tool, root, tmp_path, GROUNDING,
                         tmp_path / 'w.pth', f'prompts={prompts},')
    assert code == 0, log
    metrics = json.loads(log.splitlines()[-1])
    assert metrics['evaluated'] == 2
    found = json.loads((tmp_path / 'found.other half.bbox.json').read_text())
    ids = {d['category_id'] for d in found}
    assert ids and ids <= set(range(1, len(classes) + 1))
    assert plain_ap(file, tmp_path /
                    'found.other half.bbox.json')[1] == pytest.approx(
                        metrics['other half/ap50'], abs=1e-9)


def test_more_classes_than_it_reads_at_once(root, tmp_path, grounding):
    """They are read in parts: the first 40 as if there were no others."""
    model, cfg = grounding
    folder = root / 'other half/test'
    content = json.loads((folder / '_annotations.coco.json').read_text())
    image = content['images'][0]
    names = [f'{word} {n}' for n in range(30) for word in 'abc']
    for name, count in (('first', 40), ('whole', 90), ('x few', 2)):
        (tmp_path / name).mkdir()
        shutil.copy(folder / image['file_name'], tmp_path / name)
        box = dict(id=1, image_id=image['id'], category_id=1, iscrowd=0)
        (tmp_path / name / 'a.json').write_text(
            json.dumps(
                dict(
                    images=[image],
                    categories=[
                        dict(id=i, name=n)
                        for i, n in enumerate(names[:count], 1)
                    ],
                    annotations=[dict(box, bbox=[1, 2, 30, 40], area=1200)])))
    runner = SimpleNamespace(
        model=model,
        seed=0,
        _randomness_cfg={},
        visualizer=SimpleNamespace(),
        build_dataloader=Runner.build_dataloader,
        call_hook=lambda *args, **kwargs: None)
    loader = dict(cfg.test_dataloader, num_workers=0, persistent_workers=False)
    loader['batch_size'] = 2
    loop = DetectionSetsLoop(
        runner,
        loader,
        root=str(tmp_path),
        sets=['first', 'whole', 'x few'],
        ann_files=['a.json'],
        outfile_prefix=str(tmp_path / 'found'))
    assert loop.run()['evaluated'] == 3
    # What follows is read as a whole, in batches, again.
    assert loop.dataloader.batch_size == 2
    first, whole = (
        sorted((d['category_id'], d['score'], d['bbox'])
               for d in json.loads((tmp_path /
                                    f'found.{name}.bbox.json').read_text()))
        for name in ('first', 'whole'))
    assert {c > 80 for c, *_ in whole} == {False, True}
    assert first == [d for d in whole if d[0] <= 40]


def test_what_is_refused(repository, root, run_tool, tmp_path):
    weights = repository / OPENMOJI / f'{TWO_STAGE}.pth'
    for folder, more, message in ((tmp_path / 'nowhere', '', 'test_cfg.root'),
                                  (root, "prompts={'none': {}},",
                                   'prompts: expected names of')):
        code, log = evaluate(repository, run_tool, folder, tmp_path, TWO_STAGE,
                             weights, more)
        assert code == 1 and message in log.splitlines()[-1], log


def test_names_of_data_sets(tmp_path):
    """ODinW: a folder may hold several, and further folders."""
    for file in ('A/large/valid/a.json', 'A/tiled/valid/a.json',
                 'B/B.v1 raw/valid/a.json', 'B/B.v1 raw/valid/new_a.json',
                 'C/export/val_a.json', 'D/train/a.json'):
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).touch()
    patterns = ['**/valid/new_a.json', '**/valid/a.json', '**/val_a.json']
    found, missing = find_sets(tmp_path, ['*', 'E'], patterns)
    assert [(of.name, of.ann_file.relative_to(tmp_path).as_posix())
            for of in found] == [('A/large', 'A/large/valid/a.json'),
                                 ('A/tiled', 'A/tiled/valid/a.json'),
                                 ('B', 'B/B.v1 raw/valid/new_a.json'),
                                 ('C', 'C/export/val_a.json')]
    assert set(missing) == {'D', 'E'}
    assert 'has none of **/valid/new_a.json' in missing['D']
    assert missing['E'].endswith('E is not a folder')
    found, missing = find_sets(tmp_path, ['A/large'], patterns)
    assert [of.name for of in found] == ['A/large'] and not missing
    with pytest.raises(ValueError, match='found none: .*D has none'):
        find_sets(tmp_path, ['D'], patterns)
    with pytest.raises(FileNotFoundError, match='^root: .*no is not a folder'):
        find_sets(tmp_path / 'no', ['*'], patterns)


def test_the_group_of_classes_is_no_class():
    """As in a real export; one with a box, or of its own group, is one."""
    categories = [
        dict(id=0, name='pieces', supercategory='none'),
        dict(id=2, name='pawn', supercategory='pieces'),
        dict(id=1, name='king', supercategory='pieces'),
    ]
    assert class_names(dict(categories=categories,
                            annotations=[])) == ['king', 'pawn']
    assert class_names(
        dict(categories=categories,
             annotations=[dict(category_id=0)])) == ['pieces', 'king', 'pawn']
    assert class_names(
        dict(
            categories=[dict(id=1, name='cat', supercategory='cat')],
            annotations=[])) == ['cat']
    assert class_names(
        dict(categories=[dict(id=1, name='cat')], annotations=[])) == ['cat']


def test_table_and_means():
    found = dict(a=dict(ap=.25, ap50=.5), c=dict(ap=.75, ap50=1.))
    failed = dict(b='why')
    metrics = sets_metrics(found, failed)
    assert metrics == {
        'a/ap': .25, 'a/ap50': .5, 'c/ap': .75, 'c/ap50': 1.,
        'mean/ap': .5, 'mean/ap50': .75, 'evaluated': 2, 'expected': 3
    }  # yapf: disable
    lines = sets_table(found, failed, dict(a=(8, 2), c=(9, 1))).splitlines()
    cells = [[cell.strip() for cell in line.split('|')[1:-1]] for line in lines
             if line.startswith('|')]
    assert cells[1:] == [['a', '8', '2', '25.0', '50.0'],
                         ['b', '', '', 'failed', ''],
                         ['c', '9', '1', '75.0', '100.0'],
                         ['mean of 2 of 3', '', '', '50.0', '75.0']]
    assert lines[-1] == 'b: why'
    assert sets_metrics({}, failed)['evaluated'] == 0
