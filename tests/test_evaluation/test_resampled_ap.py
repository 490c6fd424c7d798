# Licensed under the Apache License, Version 2.0.
"""AP of resampled images, against pycocotools and by hand."""
import io
import json
import runpy
import sys
from contextlib import redirect_stdout

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from mmdet_clim.evaluation import ResampledAP


@pytest.fixture(scope='module')
def drawn():
    """Twelve images of three classes with a crowd each fourth, detections."""
    rng = np.random.default_rng(3)
    objects, found = [], []
    for image in range(12):
        for _ in range(rng.integers(0, 5)):
            x, y, w, h = rng.uniform(5, 40, 4)
            number = int(rng.integers(1, 4))
            objects.append(
                dict(
                    id=len(objects) + 1,
                    image_id=image,
                    category_id=number,
                    bbox=[x, y, w, h],
                    area=w * h,
                    iscrowd=int(image % 4 == 3)))
            for _ in range(3):
                shift = rng.normal(0, 3, 4)
                found.append(
                    dict(
                        image_id=image,
                        category_id=int(rng.choice([number, number, 1])),
                        bbox=[float(v) for v in [x, y, w, h] + shift],
                        score=float(rng.uniform())))
    content = dict(
        images=[dict(id=i, width=100, height=100) for i in range(12)],
        annotations=objects,
        categories=[
            dict(id=i, name=n) for i, n in ((1, 'cat'), (2, 'dog'), (3, 'bus'))
        ])
    return content, found


def coco_ap(content, found):
    """AP50 of each class by pycocotools; NaN where it has no object."""
    with redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = content
        truth.createIndex()
        run = COCOeval(truth, truth.loadRes(found), 'bbox')
        run.params.iouThrs = np.array([.5])
        run.evaluate()
        run.accumulate()
    ap = run.eval['precision'][0, :, :, 0, 2].mean(0)
    return np.where(ap < 0, np.nan, ap)


def test_the_images_themselves_are_as_pycocotools_has_it(drawn):
    content, found = drawn
    ap = ResampledAP(content, resamples=0)(found)
    assert ap.shape == (1, 3)
    np.testing.assert_allclose(ap[0], coco_ap(content, found), atol=1e-9)


def test_a_draw_is_as_if_its_images_stood_there_so_often(drawn):
    content, found = drawn
    resampled = ResampledAP(content, resamples=4, seed=1)
    ap = resampled(found)
    for weights, value in zip(resampled.weights[1:], ap[1:]):
        assert weights.sum() == 12
        copies = dict(content, images=[], annotations=[])
        again = []
        for image, count in enumerate(weights.astype(int)):
            for copy in range(count):
                number = 100 * image + copy + 1
                copies['images'].append(
                    dict(content['images'][image], id=number))
                copies['annotations'] += [
                    dict(a, image_id=number, id=1000 * number + a['id'])
                    for a in content['annotations'] if a['image_id'] == image
                ]
                again += [
                    dict(f, image_id=number) for f in found
                    if f['image_id'] == image
                ]
        np.testing.assert_allclose(value, coco_ap(copies, again), atol=1e-9)


def test_draws_are_the_same_for_every_run_and_of_one_seed(drawn):
    content, _ = drawn
    one, same, other = (
        ResampledAP(content, 5, seed=s).weights for s in (0, 0, 1))
    assert np.array_equal(one, same) and not np.array_equal(one, other)


def test_nothing_found_and_nothing_there(drawn):
    content, found = drawn
    ap = ResampledAP(content, 3)([])
    assert ((ap == 0) | np.isnan(ap)).all() and (ap[0] == 0).all()
    empty = ResampledAP(dict(content, annotations=[]), 3)(found)
    assert np.isnan(empty).all()
    with pytest.raises(ValueError, match='images: expected at least one'):
        ResampledAP(dict(content, images=[]))


def test_the_command(drawn, tmp_path, monkeypatch, repository, capsys):
    content, found = drawn
    (tmp_path / 'a.json').write_text(json.dumps(content))
    worse = [dict(f, category_id=3) for f in found]
    for name, of in (('one', worse), ('two', found)):
        (tmp_path / f'{name}.bbox.json').write_text(json.dumps(of))
    line = [
        'bootstrap_ap.py', '--annotations', tmp_path / 'a.json', '--run',
        'one', tmp_path / 'one.bbox.json', '--run', 'two',
        tmp_path / 'two.bbox.json', tmp_path / 'two.bbox.json', '--group',
        'cat', '--resamples', 50, '--out', tmp_path / 'ap.json'
    ]
    monkeypatch.setattr(sys, 'argv', [str(word) for word in line])
    tool = str(repository / 'tools/analysis/bootstrap_ap.py')
    runpy.run_path(tool, run_name='__main__')
    one, two = json.loads((tmp_path / 'ap.json').read_text())
    right = 100 * coco_ap(content, found)
    assert two['seeds'] == 2 and two['classes']['dog'] == round(right[1], 2)
    # All three are novel classes of OV-COCO.
    assert two['ap50']['novel']['mean'] == round(right.mean(), 2)
    assert two['ap50']['chosen']['mean'] == round(right[0], 2)
    # Of those that have no object there is no AP, which JSON could not hold.
    assert set(two['ap50']) == {'novel', 'all', 'chosen'}
    gap = two['differences']['one']['chosen']
    assert gap['mean'] == two['ap50']['chosen']['mean'] > 0
    assert gap['low'] <= gap['mean'] <= gap['high']
    assert one['differences'] == {}
    assert '    minus one: ' in capsys.readouterr().out
    monkeypatch.setattr(sys, 'argv', [*sys.argv, '--json'])
    runpy.run_path(tool, run_name='__main__')
    assert json.loads(capsys.readouterr().out) == [one, two]
    monkeypatch.setattr(sys, 'argv', [*sys.argv, '--group', 'cow'])
    with pytest.raises(SystemExit, match=r"^error: .*no class \['cow'\]"):
        runpy.run_path(tool, run_name='__main__')


def test_what_the_command_refuses(drawn, tmp_path, monkeypatch, repository,
                                  capsys):
    content, found = drawn
    boxes, run = tmp_path / 'a.json', tmp_path / 'one.bbox.json'
    run.write_text(json.dumps(found))
    line = [
        'bootstrap_ap.py', '--annotations', boxes, '--run', 'one', run,
        '--out', tmp_path / 'ap.json', '--resamples'
    ]

    def refused(resamples=2, **changes):
        if changes:
            boxes.write_text(json.dumps({**content, **changes}))
        monkeypatch.setattr(sys, 'argv', [str(x) for x in (*line, resamples)])
        with pytest.raises(SystemExit) as stop:
            runpy.run_path(
                str(repository / 'tools/analysis/bootstrap_ap.py'),
                run_name='__main__')
        assert not (tmp_path / 'ap.json').exists()
        return str(stop.value) + capsys.readouterr().err

    assert 'at least 2, got 1' in refused(1)
    assert f'error: [Errno 2] No such file or directory: {str(boxes)!r}' in (
        refused())
    boxes.write_text('[]')
    assert f'error: {boxes}: expected' in refused()
    assert 'expected a box of a class of OV-COCO' in refused(annotations=[])
    own = [dict(c, name=f'my {c["name"]}') for c in content['categories']]
    assert 'expected a box of a class of OV-COCO' in refused(categories=own)
    images = [i for i in content['images'] if i['id'] != found[0]['image_id']]
    kept = [
        a for a in content['annotations']
        if a['image_id'] != found[0]['image_id']
    ]
    assert f'error: {run}: ' in refused(images=images, annotations=kept)
