# Licensed under the Apache License, Version 2.0.
"""tools/finetune.py: from captioned images to a plain detector."""
import csv
import importlib.util
import json
import multiprocessing
import shutil
import signal
import socket
import time
from contextlib import ExitStack

import pytest
import torch
from mmdet.apis import inference_detector, init_detector
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.optim import build_optim_wrapper
from mmengine.registry import init_default_scope

from mmdet_clim.apis import CLIMInferencer
from mmdet_clim.engine.finetune_run import Finetuning
from mmdet_clim.engine.finetuning import (
    OwnData,
    default_iterations,
    finetune_config,
    resize_scale,
)
from mmdet_clim.engine.fingerprint import open_run
from mmdet_clim.registry import MODELS
from mmdet_clim_cli.mistakes import is_mistake, one_line

CONFIGS = 'configs/openmoji'
NAMES = ['cat', 'person', 'fire truck', 'dog', 'car']


@pytest.fixture(scope='module')
def detector(repository, small_detector):
    """Config and weights of the shipped detector."""
    return (small_detector('faster-rcnn_r18-c4_256_boxes', 128),
            repository / CONFIGS / 'faster-rcnn_r18-c4_256_base.pth')


@pytest.fixture(scope='module')
def own(openmoji_root, tmp_path_factory):
    """Names, and captions as a table, of the captioned scenes."""
    folder = tmp_path_factory.mktemp('own')
    names = folder / 'names.txt'
    names.write_text('\n'.join(NAMES))
    annotations = openmoji_root / 'annotations'
    scenes = json.loads(
        (annotations / 'captions_captioned2017_tags.json').read_text())
    table = folder / 'captions.csv'
    with open(table, 'w', newline='') as file:
        writer = csv.writer(file)
        writer.writerow(['file_name', 'caption'])
        for image in scenes['images']:
            writer.writerows([image['file_name'], c]
                             for c in image['captions'])
    return names, table


@pytest.fixture(scope='module')
def options(detector, own, openmoji_root):
    """Of a run with boxes of some classes; those of others are left out."""
    names, table = own
    annotations = openmoji_root / 'annotations'
    return dict(
        config=detector[0],
        checkpoint=detector[1],
        images=openmoji_root / 'captioned2017',
        captions=table,
        vocabulary=names,
        boxes=annotations / 'instances_train2017_base.json',
        box_images=openmoji_root / 'train2017',
        val_boxes=annotations / 'instances_val2017.json',
        val_images=openmoji_root / 'val2017',
        iterations=4,
        batch_size=3,
        workers=1,
        leave=(),
        keep=('none', ))


def command(options, work_dir, *more):
    """The words of a command line."""
    words = ['--work-dir', work_dir]
    for key, value in options.items():
        if value is not None:
            values = value if isinstance(value, tuple) else (value, )
            words += [f'--{key.replace("_", "-")}', *values]
    return (*words, *more)


def refused(capsys, work_dir, options):
    """The one line of a run that is refused before it trains."""
    capsys.readouterr()
    with pytest.raises(Exception) as stop:
        Finetuning(**options, work_dir=work_dir).run()
    # The command would print a traceback otherwise.
    assert is_mistake(stop.value), repr(stop.value)
    assert 'Iter(train)' not in capsys.readouterr().out
    return one_line(stop.value)


def weights(work_dir):
    return torch.load(
        work_dir / 'detector.pth', weights_only=True)['state_dict']


@pytest.fixture(scope='module')
def whole_run(options, run_tool, tmp_path_factory):
    """A run of four iterations that nothing disturbs, and its log."""
    work_dir = tmp_path_factory.mktemp('whole') / 'out'
    code, log = run_tool('finetune.py', *command(options, work_dir))
    assert code == 0, log
    return work_dir, log


@pytest.fixture
def a_copy(whole_run, tmp_path):
    """Of its work dir."""
    return shutil.copytree(whole_run[0], tmp_path / 'copy')


def test_captions_and_boxes(whole_run, openmoji_root):
    work_dir, log = whole_run
    for loss in ('loss_bbox', 'captions.tag.loss', 'mosaic.caption.loss'):
        assert loss in log
    # time left
    assert 'eta: ' in log
    trained = Config.fromfile(work_dir / 'finetune.py')
    assert trained.model.type == 'mmdet_clim.CLIMDetector'
    assert trained.train_dataloader.sampler.source_ratio == [1, 1, 1]
    assert trained.train_dataloader.num_workers == 1
    metrics = json.loads((work_dir / 'metrics.json').read_text())
    annotations = openmoji_root / 'annotations'
    boxed, evaluated = ({
        category['name']
        for category in content['categories']
        if any(a['category_id'] == category['id']
               for a in content['annotations'])
    } & set(NAMES) for content in (json.loads((
        annotations / f'instances_{name}.json').read_text())
                                   for name in ('train2017_base', 'val2017')))
    base = len(evaluated & boxed)
    assert 0 < base < len(evaluated)
    assert metrics['ov_coco/all_ap50'] == pytest.approx(
        (base * metrics['ov_coco/base_ap50'] +
         (len(evaluated) - base) * metrics['ov_coco/novel_ap50']) /
        len(evaluated))
    assert (f'base AP50 {100 * metrics["ov_coco/base_ap50"]:.1f}, novel AP50 '
            ) in log
    assert not list(work_dir.glob('faster-rcnn*'))
    check_plain(work_dir, openmoji_root)


def test_the_written_detector_is_what_was_evaluated(whole_run, run_tool,
                                                    tmp_path):
    work_dir, _ = whole_run
    code, log = run_tool('test.py', work_dir / 'detector.py',
                         work_dir / 'detector.pth', '--work-dir', tmp_path)
    assert code == 0, log
    tested = json.loads(next(tmp_path.glob('*/*.json')).read_text())
    metrics = json.loads((work_dir / 'metrics.json').read_text())
    assert all(tested[key] == value for key, value in metrics.items())


def test_the_same_command_again(whole_run, options, capsys):
    before = {f: f.stat().st_mtime_ns for f in whole_run[0].rglob('*.p*')}
    Finetuning(**options, work_dir=whole_run[0]).run()
    assert 'already complete, nothing to do' in capsys.readouterr().out
    assert before == {
        f: f.stat().st_mtime_ns
        for f in whole_run[0].rglob('*.p*')
    }


def test_killed_and_started_again(whole_run, options, start_tool, run_tool,
                                  tmp_path):
    words = command(options, tmp_path / 'out')
    process = start_tool('finetune.py', *words, log=tmp_path / 'log')
    while not (tmp_path / 'out' / 'iter_2.pth').exists():
        assert process.is_alive(), (tmp_path / 'log').read_text()
        time.sleep(.01)
    process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    # As of a kill in the middle of writing.
    whole = (tmp_path / 'out' / 'iter_2.pth').read_bytes()
    (tmp_path / 'out' / 'iter_3.pth').write_bytes(whole[:len(whole) // 2])
    code, log = run_tool('finetune.py', *words)
    assert code == 0, log
    assert 'resumed epoch: 0, iter: ' in log
    assert 'Iter(train) [1/4]' not in log
    expected, resumed = weights(whole_run[0]), weights(tmp_path / 'out')
    assert expected.keys() == resumed.keys()
    for name, value in expected.items():
        torch.testing.assert_close(
            resumed[name], value, rtol=1e-2, atol=1e-4, msg=name)
    # What it was started with, not what it was resumed with.
    again = Config.fromfile(tmp_path / 'out' / 'finetune.py')
    assert again.load_from == str(options['checkpoint']) and not again.resume


def test_stopped_before_the_detector_was_written(whole_run, options, a_copy,
                                                 run_tool):
    for name in ('finished', 'detector.py', 'detector.pth', 'metrics.json'):
        (a_copy / name).unlink()
    code, log = run_tool('finetune.py', *command(options, a_copy))
    assert code == 0, log
    assert 'Iter(train)' not in log and 'Iter(test)' in log
    expected, found = weights(whole_run[0]), weights(a_copy)
    assert all(found[name].equal(value) for name, value in expected.items())
    # The texts differ in the work dir alone.
    assert (a_copy /
            'metrics.json').read_text() == (whole_run[0] /
                                            'metrics.json').read_text()


def test_other_data_and_options_are_refused(whole_run, options, openmoji_root,
                                            tmp_path, capsys):
    work_dir, _ = whole_run
    kept = (work_dir / 'detector.pth').read_bytes()
    words = tmp_path / 'words.txt'
    words.write_text('cat\ndog\nperson')
    fewer = tmp_path / 'fewer'
    shutil.copytree(openmoji_root / 'captioned2017', fewer)
    next(fewer.glob('*.jpg')).unlink()
    boxes = json.loads(options['boxes'].read_text())
    boxes['annotations'] = boxes['annotations'][1:]
    (tmp_path / 'boxes.json').write_text(json.dumps(boxes))
    for changed, message in (
        (dict(iterations=5), 'iterations is 4, wanted 5'),
        (dict(lr=1e-3), 'lr is 0.0001, wanted 0.001'),
        (dict(seed=1), 'seed is 0, wanted 1'),
        (dict(cfg_options={'train_cfg.val_interval': 2}),
         'cfg_options.train_cfg.val_interval is not set, wanted 2'),
        (dict(vocabulary=words), 'vocabulary is ["cat", "person", "fire truck'
         '", "dog", "car"], wanted ["cat", "dog", "person"]'),
        (dict(images=fewer), 'images is "24 files, sha256'),
        (dict(boxes=tmp_path / 'boxes.json'), 'boxes is "'),
        (dict(val_boxes=None, val_images=None), 'wanted null'),
    ):
        message_got = refused(capsys, work_dir, {**options, **changed})
        assert message in message_got and '--overwrite' in message_got
    assert (work_dir / 'detector.pth').read_bytes() == kept


def test_overwrite_begins_anew(options, a_copy, run_tool):
    changed = dict(
        options,
        iterations=2,
        val_boxes=None,
        val_images=None,
        boxes=None,
        box_images=None)
    code, log = run_tool('finetune.py', *command(changed, a_copy),
                         '--overwrite', '--ema', '--freeze', 'backbone')
    assert code == 0, log
    assert 'Iter(train) [1/2]' in log and 'resumed' not in log
    assert sorted(path.name for path in a_copy.glob('*.pth')) == [
        'detector.pth', 'iter_1.pth', 'iter_2.pth'
    ]
    # Of two steps, the mean is half of each.
    first, second = (
        torch.load(a_copy / f'iter_{n}.pth', weights_only=True)
        for n in (1, 2))
    projection = 'detector.roi_head.bbox_head.fc_cls.projection.weight'
    steps = [
        checkpoint['ema_state_dict'][f'module.{projection}']
        for checkpoint in (first, second)
    ]
    mean = second['state_dict'][projection]
    assert not steps[0].equal(steps[1])
    torch.testing.assert_close(mean, (steps[0] + steps[1]) / 2)
    left = weights(a_copy)
    assert left[projection.partition('.')[2]].equal(mean)
    given = torch.load(options['checkpoint'], weights_only=True)['state_dict']
    assert all(
        value.equal(given[name]) for name, value in left.items()
        if name.startswith('backbone.'))
    assert not all(
        value.equal(given[name])
        for name, value in left.items() if name in given)
    # An evaluation of another detector would mislead.
    assert not (a_copy / 'metrics.json').exists()
    assert not (a_copy / 'evaluation').exists()


def test_a_detector_of_unknown_origin_is_not_replaced(options, tmp_path,
                                                      capsys):
    (tmp_path / 'detector.pth').write_text('precious')
    assert 'detector.pth: exists' in refused(capsys, tmp_path, options)
    assert (tmp_path / 'detector.pth').read_text() == 'precious'


def test_one_process_at_a_time(options, a_copy, capsys):
    wanted = json.loads((a_copy / 'fingerprint.json').read_text())
    context = multiprocessing.get_context('fork')
    taken, done = context.Event(), context.Event()

    def other():
        with open_run(a_copy, wanted):
            taken.set()
            done.wait()

    process = context.Process(target=other)
    process.start()
    taken.wait()
    try:
        assert 'another process' in refused(capsys, a_copy, options)
    finally:
        done.set()
        process.join()


def test_a_failing_evaluation_loses_nothing(options, openmoji_root, run_tool,
                                            tmp_path):
    images = shutil.copytree(openmoji_root / 'val2017', tmp_path / 'val')
    for path in images.iterdir():
        path.write_bytes(b'\xff' * path.stat().st_size)
    work_dir = tmp_path / 'out'
    words = command(
        dict(options, iterations=1, val_images=images, boxes=None), work_dir)
    code, log = run_tool('finetune.py', *words)
    assert code == 1
    last = log.strip().splitlines()[-1]
    assert last.startswith(f'error: {work_dir}/detector.pth is written; its ')
    assert weights(work_dir) and (work_dir / 'detector.py').exists()
    assert not (work_dir / 'metrics.json').exists()
    for path in images.iterdir():
        shutil.copy(openmoji_root / 'val2017' / path.name, path)
    code, log = run_tool('finetune.py', *words)
    assert code == 0 and 'Iter(train)' not in log, log
    # Without boxes to train on, every class counts as base.
    metrics = json.loads((work_dir / 'metrics.json').read_text())
    assert metrics['ov_coco/novel_ap50'] is None
    assert 0 <= metrics['ov_coco/base_ap50'] == metrics['ov_coco/all_ap50']
    assert 'novel AP50 -, ' in log


@pytest.mark.parametrize('file', [None, 'photos.json'])
def test_captions_alone(run_tool, detector, own, openmoji_root, tmp_path,
                        file):
    names, _ = own
    folder = tmp_path / 'photos'
    folder.mkdir()
    captioned = sorted((openmoji_root / 'captioned2017').glob('*.jpg'))[:6]
    for path, name in zip(captioned, NAMES + NAMES):
        (folder / path.name).symlink_to(path)
        if file is None:
            (folder / f'{path.stem}.txt').write_text(f'a {name} on a street')
    options = {}
    if file is not None:
        coco = dict(
            images=[
                dict(id=n, file_name=path.name)
                for n, path in enumerate(captioned)
            ],
            annotations=[
                dict(id=n, image_id=n, caption=f'a {name} on a street')
                for n, name in zip(range(6), NAMES + NAMES)
            ])
        (tmp_path / file).write_text(json.dumps(coco))
        # All that can be left is there where each photo has its text.
        options = dict(captions=tmp_path / file, leave=())
    work_dir = tmp_path / 'out'
    code, log = run_tool(
        'finetune.py',
        *command(
            dict(
                config=detector[0],
                checkpoint=detector[1],
                vocabulary=names,
                images=folder,
                iterations=2,
                batch_size=2,
                workers=1,
                **options), work_dir))
    assert code == 0, log
    assert 'loss_bbox: ' not in log and 'mosaic.tag.loss: ' in log
    captions = json.loads((tmp_path / 'out' / 'captions.json').read_text())
    assert len(captions['images']) == 6
    assert all(image['pos_category_ids'] for image in captions['images'])
    check_plain(work_dir, openmoji_root)
    code, log = run_tool('test.py', work_dir / 'detector.py',
                         work_dir / 'detector.pth')
    assert code == 1
    assert log.strip() == (
        f'error: {work_dir}/detector.py: expected a config with model, '
        'test_dataloader, test_cfg, test_evaluator, got no test_cfg, '
        'test_evaluator')


def check_plain(work_dir, openmoji_root):
    """What is left has no wrapper, and finds one's own words."""
    weights = torch.load(work_dir / 'detector.pth', weights_only=True)
    assert not any(k.startswith('detector.') for k in weights['state_dict'])
    assert tuple(weights['meta']['dataset_meta']['classes']) == tuple(NAMES)
    image = str(next((openmoji_root / 'val2017').glob('*.jpg')))
    found = [
        CLIMInferencer(
            config,
            str(work_dir / 'detector.pth'),
            device='cpu',
            show_progress=False)(image)['predictions'][0]
        for config in (str(work_dir / 'detector.py'), None)
    ]
    assert found[0] == found[1]
    # mmdet alone: the config says what to import.
    detector = init_detector(
        str(work_dir / 'detector.py'),
        str(work_dir / 'detector.pth'),
        device='cpu')
    plain = inference_detector(detector, image).pred_instances
    assert plain.scores.tolist() == found[0]['scores']
    assert set(found[0]['names']) <= set(NAMES)


@pytest.fixture
def tool(repository):
    """The script as a module."""
    spec = importlib.util.spec_from_file_location(
        'finetune', repository / 'tools' / 'finetune.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_command_line(tool, options, tmp_path, capsys):

    def fails(words):
        with pytest.raises(SystemExit) as stop:
            tool.parse_args([str(word) for word in words])
        assert stop.value.code == 2
        return capsys.readouterr().err.splitlines()[-1]

    good = command(options, tmp_path)
    assert tool.parse_args([str(w) for w in good]).iterations == 4
    missing = command(dict(options, vocabulary=tmp_path / 'no.txt'), tmp_path)
    assert fails(missing).endswith('no.txt does not exist')
    assert "'tpu'" in fails([*good, '--device', 'tpu'])
    assert 'got 0' in fails([*good, '--iterations', '0'])
    assert 'got -1' in fails([*good, '--workers', '-1'])
    assert 'got nan' in fails([*good, '--lr', 'nan'])
    assert "got 'train_cfg'" in fails([*good, '--cfg-options', 'train_cfg'])


def test_inputs_are_checked_before_anything_is_made(options, openmoji_root,
                                                    tmp_path, capsys):
    other = tmp_path / 'other.txt'
    other.write_text('unicorn')
    twice = tmp_path / 'twice.txt'
    twice.write_text('cat\ncat \n')
    annotations = openmoji_root / 'annotations'
    boxes = annotations / 'instances_val2017.json'
    captions = annotations / 'captions_captioned2017_tags.json'
    some = tmp_path / 'some'
    some.mkdir()
    first = sorted((openmoji_root / 'val2017').iterdir())[0]
    (some / first.name).symlink_to(first)
    torch.save(dict(state_dict=dict(x=torch.zeros(1))), tmp_path / 'x.pth')
    (tmp_path / 'broken.py').write_text('model = dict(\n')
    (tmp_path / 'empty.py').write_text('model = dict(type="mmdet.RPN")\n')
    good = json.loads(boxes.read_text())
    wrong = {
        'ids':
        dict(annotations=good['annotations'][:1] * 2),
        'keys':
        dict(annotations=[dict(bbox=[0, 0, 1, 1])]),
        # Polygons would tell of the box.
        'none':
        dict(annotations=[
            dict(good['annotations'][0], bbox=[0] * 4, segmentation=[])
        ]),
    }
    for name, change in wrong.items():
        (tmp_path / f'{name}.json').write_text(json.dumps({**good, **change}))
    for changed, message in (
        (dict(vocabulary=other), 'expected boxes of some of 1 class'),
        (dict(vocabulary=twice), "given twice: ['cat']"),
        (dict(boxes=captions), '--boxes: '),
        (dict(boxes=other), 'other.txt: expected COCO JSON, YOLO'),
        (dict(boxes=tmp_path / 'ids.json'), "key 'id' is"),
        (dict(boxes=tmp_path / 'keys.json'), "key 'image_id' is missing"),
        (dict(boxes=tmp_path / 'none.json'), 'expected boxes, got none'),
        (dict(val_boxes=tmp_path / 'ids.json'), '--val-boxes: '),
        (dict(box_images=some), '--boxes: expected images in'),
        (dict(val_images=options['box_images'],
              val_boxes=boxes), '8 of 8 that are not there'),
        (dict(val_images=some, val_boxes=boxes), '7 of 8'),
        (dict(batch_size=1), 'batch_size: expected at least 3'),
        (dict(iterations=0), 'iterations: expected at least 1'),
        (dict(checkpoint=tmp_path / 'x.pth'),
         "none of ['x'] ... is a weight of FasterRCNN"),
        (dict(checkpoint=other), 'other.txt is '),
        (dict(config=other), 'other.txt'),
        (dict(config=tmp_path / 'broken.py'), 'broken.py: SyntaxError'),
        (dict(config=tmp_path / 'empty.py'), "config with 'test_dataloader'"),
            *([(dict(amp=True), '--amp: expected an accelerator')] *
              (get_device() == 'cpu')),
        (dict(freeze=['backbon3']), "has 'backbon3' in its name"),
        (dict(freeze=['backbone', 'rpn_head', 'roi_head']),
         '--freeze: expected to leave a part'),
        (dict(cfg_options={'model.detector.nek.type': 'mmdet.FPN'}), 'nek'),
        (dict(cfg_options={'optim_wraper.optimizer.lr': 1}), 'optim_wrapper'),
        (dict(cfg_options={'work_dir': 'a'}), 'give --work-dir instead'),
        (dict(cfg_options={'default_hooks.checkpoint.out_dir': 'a'}),
         'default_hooks.checkpoint.out_dir: cannot be changed'),
        (dict(cfg_options={'default_hooks.checkpoint': None}),
         'default_hooks.checkpoint: cannot be changed'),
    ):
        found = refused(capsys, tmp_path / 'out', {**options, **changed})
        assert message in found, (changed, found)
    assert not (tmp_path / 'out').exists()


def test_boxes_and_tags_of_other_layouts(options, openmoji_root, tmp_path):
    """They are written to the work dir in the layouts that are read here."""
    images = openmoji_root / 'train2017'
    names = sorted(path.name for path in images.glob('*.jpg'))[:3]
    (tmp_path / 'list.txt').write_text(''.join(f'{images}/{n}\n'
                                               for n in names))
    for number, name in enumerate(names):
        # Where there is no folder "images", labels stand beside the images.
        (tmp_path / name).symlink_to(images / name)
        (tmp_path / name
         ).with_suffix('.txt').write_text(f'{number % 2} 0.5 0.5 0.25 0.5\n')
    (tmp_path / 'list.txt').write_text('\n'.join(names))
    (tmp_path / 'data.yaml'
     ).write_text('names: [person, unicorn]\ntrain: list.txt\nval: list.txt\n')
    captioned = sorted((openmoji_root / 'captioned2017').glob('*.jpg'))[:2]
    (tmp_path / 'tags.csv').write_text(
        f'image,tags\n{captioned[0].name},Fire_Truck;person\n'
        f'{captioned[1].name},unicorn\n')
    changed = dict(
        options,
        captions=None,
        tags=tmp_path / 'tags.csv',
        boxes=tmp_path / 'data.yaml',
        box_images=None,
        val_boxes=tmp_path,
        val_images=None,
        iterations=None)
    work_dir = tmp_path / 'out'
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt), ExitStack() as stack:
            plan = Finetuning(**changed, work_dir=work_dir)._begin(stack)
            raise KeyboardInterrupt
    boxes = json.loads((work_dir / 'boxes.json').read_text())
    assert [image['file_name'] for image in boxes['images']] == names
    assert [a['category_id'] for a in boxes['annotations']] == [1, 2, 1]
    train = plan.train.train_dataloader.dataset.datasets[0]
    assert train.ann_file == str(work_dir / 'boxes.json')
    assert train.data_prefix.img == f'{tmp_path}/'
    assert plan.plain.test_evaluator.ann_file == str(work_dir /
                                                     'val_boxes.json')
    assert list(train.metainfo.base_classes) == ['person']
    captions = json.loads((work_dir / 'captions.json').read_text())
    tagged = {
        image['file_name']: (image['captions'], image['pos_category_ids'])
        for image in captions['images']
    }
    assert tagged == {
        captioned[0].name: (['fire truck, person'], [2, 3]),
        captioned[1].name: (['unicorn'], []),
    }
    # The shortest that follows from two images.
    assert plan.train.train_cfg.max_iters == 200
    assert plan.last is None and not plan.finished


def test_a_run_without_checkpoints_is_no_loss(options, own, tmp_path, capsys):
    """A wrong word is found in the log, and the run stopped and mended."""
    out = tmp_path / 'out'
    missing = dict(options, captions=tmp_path / 'captions.csv')
    missing['captions'].write_text('file_name,caption\nno.jpg,a cat\n')
    words = tmp_path / 'words.txt'
    for names in ('cat\nperson', 'dog\nperson\ncar'):
        words.write_text(names)
        # Stops in the preparation of the captions.
        message = refused(capsys, out, dict(missing, vocabulary=words))
        assert 'no.jpg' in message or 'no image' in message, message
    written = json.loads((out / 'fingerprint.json').read_text())
    assert written['config']['vocabulary'] == ['dog', 'person', 'car']


def test_two_processes(options, start_tool, tmp_path):
    """As torchrun starts them; without boxes, some weights get no gradient."""
    words = command(
        dict(
            options,
            boxes=None,
            val_boxes=options['val_boxes'],
            iterations=1,
            batch_size=2), tmp_path / 'out', '--launcher', 'pytorch')
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
    common = dict(
        WORLD_SIZE='2',
        MASTER_ADDR='127.0.0.1',
        MASTER_PORT=str(port),
        CUDA_VISIBLE_DEVICES='')
    logs = [tmp_path / f'log{rank}' for rank in range(2)]
    processes = [
        start_tool(
            'finetune.py',
            *words,
            log=log,
            env=dict(common, RANK=str(rank), LOCAL_RANK=str(rank)))
        for rank, log in enumerate(logs)
    ]
    for process, log in zip(processes, logs):
        process.join()
        assert process.exitcode == 0, log.read_text()
    first, second = (log.read_text() for log in logs)
    assert any('Distributed training: True' in log.read_text()
               for log in tmp_path.glob('out/*/*.log'))
    assert '/out/detector.py, ' in first
    assert '/out/detector.py, ' not in second
    assert weights(tmp_path / 'out')
    metrics = json.loads((tmp_path / 'out' / 'metrics.json').read_text())
    assert 0 <= metrics['ov_coco/all_ap50'] <= 1
    record = json.loads((tmp_path / 'out' / 'fingerprint.json').read_text())
    assert record['config']['processes'] == 2


def test_lengths_that_follow_from_the_data():
    # 4 boxed, 1 whole, 3 mosaics of 4 or 9 tiles: 20.5 images a step.
    assert default_iterations(4000, 8, True, True) == 980
    # 2 whole and 6 mosaics: 41 images a step.
    assert default_iterations(4000, 8, False, True) == 490
    # 4 mosaics: 26 images a step.
    assert default_iterations(4000, 8, True, False) == 770
    assert default_iterations(5, 8, True, True) == 200
    assert default_iterations(10**6, 8, True, True) == 20000


def test_learning_rates_of_parts(detector, tmp_path):
    """As the optimizer has them, of weights by name."""
    cfg = Config.fromfile(detector[0])
    data = OwnData(tmp_path / 'c.json', tmp_path, NAMES)
    new = finetune_config(
        cfg, detector[1], data, lr=1.0, lr_mult=dict(shared_head=0.0))
    init_default_scope('mmdet')
    model = MODELS.build(new.model)
    optimizer = build_optim_wrapper(model, new.optim_wrapper).optimizer
    of = {id(p): g['lr'] for g in optimizer.param_groups for p in g['params']}
    wanted = {
        'detector.backbone.conv1.weight': 0.1,
        'detector.rpn_head.rpn_conv.weight': 0.1,
        'detector.roi_head.bbox_head.fc_reg.out.weight': 1.0,
        'objectives.tag.region_loss.bias': 1.0,
    }
    parameters = dict(model.named_parameters())
    for name, weight in parameters.items():
        assert weight.requires_grad == ('shared_head' not in name), name
    assert {name: of[id(parameters[name])] for name in wanted} == wanted


def test_the_config(detector, tmp_path):
    cfg = Config.fromfile(detector[0])
    data = OwnData(tmp_path / 'c.json', tmp_path, NAMES)
    new = finetune_config(cfg, detector[1], data, batch_size=8)
    # Ten checkpoints at least, of which two are kept.
    assert new.default_hooks.checkpoint.interval == 100
    for iterations, interval in ((1, 1), (9, 1), (19, 1), (25, 2)):
        short = finetune_config(cfg, detector[1], data, iterations)
        assert short.default_hooks.checkpoint.interval == interval
    # A quarter of the captioned images is whole.
    assert new.train_dataloader.sampler.source_ratio == [2, 6]
    assert new.val_dataloader is None
    assert cfg.model.type == 'mmdet.FasterRCNN'
    with pytest.raises(ValueError, match='batch_size: expected at least 2'):
        finetune_config(cfg, detector[1], data, batch_size=1)
    with pytest.raises(ValueError, match='iterations: expected'):
        finetune_config(cfg, detector[1], data, iterations=0)
    cfg.model.roi_head.bbox_head = dict(type='mmdet.Shared2FCBBoxHead')
    with pytest.raises(TypeError, match='expected a head with a vocabulary'):
        finetune_config(cfg, detector[1], data)
    cfg.test_dataloader.dataset.pipeline = []
    with pytest.raises(ValueError, match='test pipeline: expected a Resize'):
        resize_scale(cfg)
