# Licensed under the Apache License, Version 2.0.
import contextlib
import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from mmdet.structures import DetDataSample
from mmengine.evaluator import Evaluator
from mmengine.logging import MMLogger
from mmengine.structures import InstanceData
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from mmdet_clim.evaluation import CheckedCocoMetric, OVCocoMetric

# label order differs from the order of the category ids
CLASSES = ('dog', 'person', 'car', 'cat', 'bus')
CATEGORY_IDS = dict(person=1, car=3, bus=6, cat=17, dog=18)
BACKENDS = ['pycocotools', 'faster_coco_eval', 'hotcoco']
ONE_BOX = {(1, 'cat'): [[0, 0, 9, 9]]}
META = dict(
    classes=CLASSES,
    base_classes=('person', 'car', 'bus'),
    novel_classes=('dog', 'cat'))


def write_coco(path: Path,
               boxes: dict,
               num_images: int,
               names=tuple(CATEGORY_IDS),
               crowd=()) -> str:
    """Write {(image id, name): [xywh, ...]} as a COCO file."""
    annotations = []
    for (image_id, name), rows in boxes.items():
        for x, y, w, h in rows:
            annotations.append(
                dict(
                    id=len(annotations) + 1,
                    image_id=image_id,
                    category_id=CATEGORY_IDS[name],
                    bbox=[x, y, w, h],
                    area=w * h,
                    iscrowd=int((image_id, name) in crowd)))
    path.write_text(
        json.dumps(
            dict(
                info={},
                images=[
                    dict(id=i, file_name=f'{i}.jpg', width=200, height=100)
                    for i in range(1, num_images + 1)
                ],
                categories=[dict(id=CATEGORY_IDS[n], name=n) for n in names],
                annotations=annotations)))
    return str(path)


def sample(image_id: int, detections) -> DetDataSample:
    """A prediction from [(name, score, xywh), ...]."""
    xywh = torch.tensor([d[2] for d in detections]).float().reshape(-1, 4)
    return DetDataSample(
        metainfo=dict(img_id=image_id, ori_shape=(100, 200)),
        pred_instances=InstanceData(
            bboxes=torch.cat([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], 1),
            scores=torch.tensor([d[1] for d in detections]).float(),
            labels=torch.tensor([CLASSES.index(d[0]) for d in detections],
                                dtype=torch.int64)))


def run(metric: OVCocoMetric, samples, meta=META) -> dict:
    evaluator = Evaluator(metric)
    evaluator.dataset_meta = meta
    evaluator.process(samples)
    return evaluator.evaluate(len(samples))


def test_classes_that_are_neither_base_nor_novel_are_not_evaluated(tmp_path):
    """OV-COCO's 15 further classes of the vocabulary of 80."""
    file = write_coco(
        tmp_path / 'gt.json', {
            (1, 'person'): [(0, 0, 40, 40)],
            (1, 'dog'): [(60, 0, 40, 40)],
            (1, 'car'): [(120, 0, 40, 40)]
        }, 1)
    meta = dict(META, base_classes=('person', ), novel_classes=('dog', ))
    found = run(
        OVCocoMetric(file), [
            sample(1, [('person', .9, (0, 0, 40, 40)),
                       ('bus', .8, (60, 0, 40, 40)),
                       ('car', .7, (0, 0, 9, 9))])
        ], meta)
    assert found['ov_coco/base_ap50'] == pytest.approx(1)
    assert found['ov_coco/novel_ap50'] == 0
    assert found['ov_coco/all_ap50'] == pytest.approx(.5)


def random_case(seed: int, num_images: int = 12):
    """Random boxes, and detections that are some of them jittered."""
    rng = np.random.default_rng(seed)
    boxes, samples = {}, []
    for image_id in range(1, num_images + 1):
        detections = []
        for name in CLASSES:
            rows = []
            for _ in range(rng.integers(0, 4)):
                x, y = rng.uniform(0, 100, 2)
                w, h = rng.uniform(10, 60, 2)
                rows.append([x, y, w, h])
                if rng.random() < .8:
                    wrong = rng.random() < .2
                    detections.append(
                        (CLASSES[rng.integers(5)] if wrong else name,
                         float(rng.random()),
                         [x + rng.normal(0, 3), y + rng.normal(0, 3), w, h]))
            if rows:
                boxes[image_id, name] = rows
        samples.append(sample(image_id, detections))
    return boxes, samples


def plain_coco(ann_file: str, samples) -> np.ndarray:
    """pycocotools as it stands, on a file: stats[:2] = mAP, AP50."""
    with contextlib.redirect_stdout(io.StringIO()):
        ground_truth = COCO(ann_file)
        rows = []
        listed = set(ground_truth.getCatIds())
        for s in samples:
            pred = s.pred_instances
            for box, score, label in zip(pred.bboxes.tolist(),
                                         pred.scores.tolist(),
                                         pred.labels.tolist()):
                category = CATEGORY_IDS[CLASSES[label]]
                if category in listed:
                    x1, y1, x2, y2 = box
                    rows.append(
                        dict(
                            image_id=s.img_id,
                            category_id=category,
                            score=score,
                            bbox=[x1, y1, x2 - x1, y2 - y1]))
        evaluation = COCOeval(ground_truth, ground_truth.loadRes(rows), 'bbox')
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation.stats[:2]


@pytest.mark.parametrize('backend', BACKENDS)
@pytest.mark.parametrize('seed', [0, 1])
def test_equals_separate_files(tmp_path, backend, seed):
    boxes, samples = random_case(seed)
    result = run(
        OVCocoMetric(
            write_coco(tmp_path / 'all.json', boxes, 12, crowd=[(3, 'car')]),
            backend=backend), samples)
    for group, names in (('base', META['base_classes']),
                         ('novel', META['novel_classes']), ('all', CLASSES)):
        part = {k: v for k, v in boxes.items() if k[1] in names}
        ann_file = write_coco(
            tmp_path / f'{group}.json', part, 12, names, crowd=[(3, 'car')])
        mean_ap, ap50 = plain_coco(ann_file, samples)
        assert 0 < ap50 < 1
        assert result[f'ov_coco/{group}_ap50'] == pytest.approx(ap50, abs=1e-9)
        assert result[f'ov_coco/{group}_map'] == pytest.approx(
            mean_ap, abs=1e-9)


def test_per_class_by_hand(tmp_path):
    boxes = {
        (1, 'person'): [[0, 0, 40, 40]],
        (2, 'person'): [[0, 0, 40, 40]],
        (1, 'dog'): [[100, 0, 40, 40]],
        (2, 'cat'): [[100, 50, 40, 40]]
    }
    samples = [
        # person: found. dog: IoU 40*24/(2*1600 - 960) = 0.43, missed
        sample(1, [('person', .9, [0, 0, 40, 40]),
                   ('dog', .9, [116, 0, 40, 40])]),
        # person: missed, one false box scored below. cat: IoU 0.625, found
        # at 0.50, 0.55 and 0.60
        sample(2, [('person', .5, [60, 60, 30, 30]),
                   ('cat', .3, [100, 50, 40, 25])])
    ]
    result = run(
        OVCocoMetric(
            write_coco(tmp_path / 'a.json', boxes, 2), classwise=True),
        samples)
    # recall 0.5 at precision 1: 51 of the 101 recall points
    assert result['ov_coco/ap50_person'] == pytest.approx(51 / 101)
    assert result['ov_coco/ap50_dog'] == 0
    assert result['ov_coco/ap50_cat'] == pytest.approx(1)
    # car and bus have no ground truth: absent, neither 0 nor a key
    assert 'ov_coco/ap50_car' not in result
    assert result['ov_coco/base_ap50'] == pytest.approx(51 / 101)
    assert result['ov_coco/novel_ap50'] == pytest.approx(.5)
    assert result['ov_coco/all_ap50'] == pytest.approx((51 / 101 + 1) / 3)
    # cat: IoU 25/40 = 0.625, so 3 of the 10 thresholds
    assert result['ov_coco/novel_map'] == pytest.approx((0 + .3) / 2)


def test_protocols_by_hand(tmp_path):
    # The image 2 holds nothing of the classes; a dog is "seen" there first.
    ann_file = write_coco(tmp_path / 'a.json', {
        (1, 'dog'): [[0, 0, 40, 40]],
        (1, 'person'): [[100, 0, 40, 40]]
    }, 2)
    samples = [
        sample(1, [('dog', .5, [0, 0, 40, 40])]),
        sample(2, [('dog', .9, [0, 0, 40, 40])])
    ]
    every = run(OVCocoMetric(ann_file), samples)
    detic = run(OVCocoMetric(ann_file, protocol='detic'), samples)
    assert every['ov_coco/novel_ap50'] == pytest.approx(.5)
    assert detic['ov_coco/novel_ap50'] == pytest.approx(1)
    assert every['ov_coco/base_ap50'] == detic['ov_coco/base_ap50'] == 0


def test_other_classes_do_not_bring_an_image_in(tmp_path):
    # bus is a class of the dataset but in no group: image 2 stays out
    meta = dict(META, base_classes=('person', 'car'))
    ann_file = write_coco(tmp_path / 'a.json', {
        (1, 'dog'): [[0, 0, 40, 40]],
        (2, 'bus'): [[0, 0, 40, 40]]
    }, 2)
    samples = [
        sample(1, [('dog', .5, [0, 0, 40, 40])]),
        sample(2, [('dog', .9, [0, 0, 40, 40]), ('bus', .9, [0, 0, 40, 40])])
    ]
    result = run(OVCocoMetric(ann_file, protocol='detic'), samples, meta)
    assert result['ov_coco/all_ap50'] == pytest.approx(1)


@pytest.mark.parametrize('backend', BACKENDS)
def test_no_detections_is_zero(tmp_path, backend):
    boxes, _ = random_case(0)
    ann_file = write_coco(tmp_path / 'a.json', boxes, 12)
    result = run(
        OVCocoMetric(ann_file, backend=backend),
        [sample(i, []) for i in range(1, 13)])
    assert set(result.values()) == {0.0}


def test_class_missing_from_the_file(tmp_path):
    """Labels keep their class where the file lists fewer categories."""
    ann_file = write_coco(
        tmp_path / 'a.json', {(1, 'cat'): [[0, 0, 40, 40]]},
        1,
        names=('person', 'cat'))
    result = run(
        OVCocoMetric(ann_file), [
            sample(1, [('cat', .5, [0, 0, 40, 40]),
                       ('dog', .9, [0, 0, 40, 40])])
        ])
    assert result['ov_coco/novel_ap50'] == pytest.approx(1)
    assert np.isnan(result['ov_coco/base_ap50'])


def test_without_any_object(tmp_path):
    """Of the classes: the file has those of others."""
    ann_file = write_coco(tmp_path / 'a.json', {(1, 'bus'): [[0, 0, 9, 9]]}, 2)
    meta = dict(
        classes=CLASSES[:2],
        base_classes=CLASSES[1:2],
        novel_classes=('dog', ))
    for protocol in ('all_images', 'detic'):
        result = run(
            OVCocoMetric(ann_file, protocol=protocol),
            [sample(1, [('dog', .5, [0, 0, 40, 40])])], meta)
        assert all(np.isnan(v) for v in result.values())


def test_ground_truth_from_samples(tmp_path):
    boxes, samples = random_case(3)
    expected = run(
        OVCocoMetric(write_coco(tmp_path / 'a.json', boxes, 12)), samples)
    for s in samples:
        s.set_metainfo(
            dict(instances=[
                dict(
                    bbox=[x, y, x + w, y + h],
                    bbox_label=CLASSES.index(name),
                    ignore_flag=0) for (image_id, name), rows in boxes.items()
                if image_id == s.img_id for x, y, w, h in rows
            ]))
    result = run(OVCocoMetric(), samples)
    assert result == pytest.approx(expected)


def test_built_from_its_scope_and_detections_kept(tmp_path):
    boxes, samples = random_case(0)
    ann_file = write_coco(tmp_path / 'a.json', boxes, 12)
    evaluator = Evaluator(
        dict(
            type='mmdet_clim.OVCocoMetric',
            ann_file=ann_file,
            outfile_prefix=str(tmp_path / 'out')))
    evaluator.dataset_meta = META
    for s in samples:
        evaluator.process([s])
    result = evaluator.evaluate(len(samples))
    assert result == pytest.approx(run(OVCocoMetric(ann_file), samples))
    kept = json.loads((tmp_path / 'out.bbox.json').read_text())
    assert len(kept) == sum(len(s.pred_instances) for s in samples)


@pytest.mark.parametrize('group', ['base', 'novel'])
def test_a_group_without_classes(tmp_path, group, caplog):
    """As where all classes have boxes to train on, or none has."""
    boxes, samples = random_case(4)
    ann_file = write_coco(tmp_path / 'a.json', boxes, 12)
    other = dict(base='novel', novel='base')[group]
    meta = {
        'classes': CLASSES,
        f'{group}_classes': (),
        f'{other}_classes': CLASSES
    }
    logger = MMLogger.get_instance(f'without_{group}')
    logger.addHandler(caplog.handler)
    result = run(OVCocoMetric(ann_file), samples, meta)
    whole = run(OVCocoMetric(ann_file), samples)
    for key in ('ap50', 'map'):
        assert np.isnan(result[f'ov_coco/{group}_{key}'])
        assert result[f'ov_coco/{other}_{key}'] == pytest.approx(
            result[f'ov_coco/all_{key}'])
        assert result[f'ov_coco/all_{key}'] == pytest.approx(
            whole[f'ov_coco/all_{key}'])
    # A dash in the table.
    row = next(line for line in caplog.text.splitlines()
               if line.startswith(f'| {group} '))
    assert [cell.strip() for cell in row.split('|')[2:5]] == ['0/0', '-', '-']


@pytest.mark.parametrize('meta, word', [
    (None, 'classes'),
    (dict(classes=CLASSES), 'base_classes'),
    (dict(META, base_classes=(), novel_classes=()), 'two empty lists'),
    (dict(META, novel_classes=('dog', 'car')), 'car'),
    (dict(META, novel_classes=('dog', 'unicorn')), 'unicorn'),
])
def test_split_errors(tmp_path, meta, word):
    ann_file = write_coco(tmp_path / 'a.json', ONE_BOX, 1)
    with pytest.raises(ValueError, match=word):
        run(OVCocoMetric(ann_file), [sample(1, [])], meta)


def test_bad_input(tmp_path):
    with pytest.raises(ValueError, match='protocol.*ovd'):
        OVCocoMetric(protocol='ovd')
    with pytest.raises(ValueError, match='backend.*lvis'):
        OVCocoMetric(backend='lvis')
    ann_file = write_coco(tmp_path / 'a.json', ONE_BOX, 1)
    with pytest.raises(ValueError, match='img_id.*7'):
        run(OVCocoMetric(ann_file), [sample(7, [])])
    wrong = sample(1, [('cat', .5, [0, 0, 40, 40])])
    wrong.pred_instances.labels[0] = 5
    with pytest.raises(ValueError, match='labels.*5 classes'):
        run(OVCocoMetric(ann_file), [wrong])


def evaluate_on_rank(rank: int, folder: str) -> None:
    dist.init_process_group(
        'gloo', init_method=f'file://{folder}/store', rank=rank, world_size=2)
    _, samples = random_case(0, num_images=5)
    # as a distributed sampler: rank 1 holds a repeated sample at its end
    mine = samples[rank::2] + (samples[:1] if rank else [])
    evaluator = Evaluator(OVCocoMetric(f'{folder}/a.json'))
    evaluator.dataset_meta = META
    for s in mine:
        evaluator.process([s])
    result = evaluator.evaluate(5)
    Path(f'{folder}/rank{rank}.json').write_text(json.dumps(result))
    dist.destroy_process_group()


def test_two_processes(tmp_path):
    boxes, samples = random_case(0, num_images=5)
    expected = run(
        OVCocoMetric(write_coco(tmp_path / 'a.json', boxes, 5)), samples)
    mp.start_processes(
        evaluate_on_rank, (str(tmp_path), ), nprocs=2, start_method='fork')
    for rank in range(2):
        result = json.loads((tmp_path / f'rank{rank}.json').read_text())
        assert result == pytest.approx(expected)


def edited(ann_file: str, edit, key: str = 'annotations') -> str:
    """A copy of a file whose annotations are edited."""
    content = json.loads(Path(ann_file).read_text())
    for number, entry in enumerate(content[key]):
        edit(number, entry)
    path = Path(ann_file).with_name('edited.json')
    path.write_text(json.dumps(content))
    return str(path)


@pytest.mark.parametrize('backend', BACKENDS)
@pytest.mark.parametrize(
    'edit', [
        lambda n, a: a.update(id=n),
        lambda n, a: a.pop('id'),
        lambda n, a: a.pop('area'),
        lambda n, a: a.update(area=0),
        lambda n, a: a.pop('iscrowd'),
        lambda n, a: a.update(image_id=str(a['image_id'])),
        lambda n, a: a.update(bbox=list(map(str, a['bbox']))),
    ],
    ids=['from 0', 'no id', 'no area', 'area 0', 'no crowd', 'ids', 'text'])
def test_what_is_repaired_gives_the_same_numbers(tmp_path, edit, backend):
    """COCO's evaluation takes an annotation id of 0 for "no match"."""
    boxes, samples = random_case(1, num_images=4)
    ann_file = write_coco(tmp_path / 'a.json', boxes, 4)
    expected = run(OVCocoMetric(ann_file, classwise=True), samples)
    result = run(
        OVCocoMetric(edited(ann_file, edit), backend=backend, classwise=True),
        samples)
    assert result == pytest.approx(expected, nan_ok=True)


def test_a_file_that_contradicts_itself_is_refused(tmp_path):
    boxes, _ = random_case(1, num_images=4)
    ann_file = write_coco(tmp_path / 'a.json', boxes, 4)
    twice = edited(ann_file, lambda n, a: a.update(id=min(n, 2)))
    with pytest.raises(ValueError, match=r'edited.json: annotations\[3\].*2'):
        OVCocoMetric(twice)
    flat = edited(ann_file, lambda n, a: a.update(bbox=[1, 1, 0, 9]))
    with pytest.raises(
            ValueError, match='edited.json: .*none that can be used'):
        OVCocoMetric(flat)
    without = write_coco(tmp_path / 'without.json', {}, 4)
    with pytest.raises(ValueError, match="without.json: key 'annotations' is"):
        OVCocoMetric(without)
    CheckedCocoMetric(without, format_only=True, outfile_prefix=str(tmp_path))


def test_mmdets_metric_on_a_checked_file(tmp_path):
    """Labels are classes by name: mmdet takes the order of the file.

    A class that the file lacks and blanks around names change nothing.
    """
    boxes, samples = random_case(1, num_images=4)
    ann_file = write_coco(tmp_path / 'a.json', boxes, 4)
    expected = plain_coco(ann_file, samples)
    bare = edited(ann_file, lambda n, a: [a.pop(k) for k in ('id', 'area')])
    more = dict(META, classes=(*(f'{name} ' for name in CLASSES), 'absent'))
    for meta in (META, more):
        result = run(CheckedCocoMetric(bare, classwise=True), samples, meta)
        measured = result['coco/bbox_mAP'], result['coco/bbox_mAP_50']
        assert measured == pytest.approx(expected, abs=5e-4)
    assert np.isnan(result['coco/absent_precision'])


def test_an_unreadable_image_is_one_without_detections(tmp_path):
    """Its objects are missed, and what was found on grey is not false."""
    boxes, samples = random_case(3)
    ann_file = write_coco(tmp_path / 'a.json', boxes, len(samples))
    whole = run(OVCocoMetric(ann_file), samples)
    emptied = [
        s if s.img_id not in (2, 5) else sample(s.img_id, []) for s in samples
    ]
    expected = run(OVCocoMetric(ann_file), emptied)
    for s in samples:
        if s.img_id in (2, 5):
            s.set_metainfo(dict(unreadable=True))
    assert run(OVCocoMetric(ann_file), samples) == expected != whole
