# Licensed under the Apache License, Version 2.0.
"""Grounding detectors under CLIM: mmdet's own configs, made small."""
import copy
import pickle
import sys
from pathlib import Path

import mmdet
import pytest
import torch
import torch.multiprocessing as mp
from mmdet.structures import DetDataSample
from mmdet.utils import register_all_modules
from mmengine.config import Config, ConfigDict
from mmengine.model import MMDistributedDataParallel
from mmengine.registry import MODELS, TRANSFORMS
from torch import distributed

import mmdet_clim  # noqa: F401
from mmdet_clim.models import connected_zero
from mmdet_clim.models.families import family_of
from mmdet_clim.models.objectives import GroundingObjective, OldWordsObjective
from mmdet_clim.models.objectives.grounding.objective import grounding_sample
from mmdet_clim.models.region_readers import GroundingReader
from mmdet_clim.models.unset_weights import (
    not_a_number_in_new_memory,
    set_what_was_left_unset,
)

sys.path.insert(0, str(Path(__file__).parents[2] / 'test_configs'))
from grounding_cases import shrink, shrink_by_size  # noqa: E402  isort: skip

CLASSES = ('cat', 'dog', 'cow', 'bus', 'cup')
CONFIGS = Path(mmdet.__file__).parent / '.mim/configs'
MM_48_17 = ('mm_grounding_dino/coco/'
            'grounding_dino_swin-t_finetune_16xb4_1x_coco_48_17.py')
MM_866_337 = ('mm_grounding_dino/lvis/'
              'grounding_dino_swin-t_finetune_16xb4_1x_lvis_866_337.py')
DINO = 'grounding_dino/grounding_dino_swin-t_finetune_16xb2_1x_coco.py'
GLIP = 'glip/glip_atss_swin-t_a_fpn_dyhead_16xb2_ms-2x_funtune_coco.py'


@pytest.fixture
def build(clim_cfg, small_bert):

    def build(path, reader=None, **changes):
        if path != GLIP and mmdet.__version__ == '3.5.1':
            pytest.skip('the decoder of onedl-mmdetection 3.5.1 gives its '
                        'Grounding DINO embeddings of twice the width')
        register_all_modules()
        torch.manual_seed(0)
        detector = shrink(Config.fromfile(CONFIGS / path).model, small_bert)
        cfg = ConfigDict(clim_cfg, detector=detector)
        cfg.objectives.update(
            grounding=dict(type='mmdet_clim.GroundingObjective'),
            names=dict(
                type='mmdet_clim.GroundingObjective',
                texts='tags',
                vocabulary=CLASSES,
                num_negatives=1,
                box_weight=0.))
        if reader is not None:
            cfg.region_reader = reader
        cfg.update(changes)
        model = MODELS.build(cfg)
        model.init_weights()
        return model

    return build


MATCHED_BY_TEXT = dict(
    type='mmdet_clim.GroundingObjective',
    texts='tags',
    vocabulary=CLASSES,
    num_negatives=1,
    num_compositions=0,
    match='text')


def boxes_sample(make, seed):
    image, sample = make['box'](seed)
    sample.gt_instances.pop('masks')
    sample.set_metainfo(dict(text=CLASSES, custom_entities=True))
    return image, sample


def gradients(model, losses):
    model.parse_losses(losses)[0].backward()
    return [
        name for name, p in model.named_parameters()
        if p.requires_grad and (p.grad is None or not p.grad.isfinite().all())
    ]


@pytest.mark.parametrize('path, source', [
    (MM_48_17, 'encoder'),
    (MM_48_17, 'query'),
    (MM_48_17, 'neck'),
    (MM_866_337, 'encoder'),
    (DINO, 'encoder'),
    (GLIP, 'neck'),
])
def test_every_parameter_learns_by_both_routes(build, make, path, source):
    reader = None if source in ('encoder', 'neck') and path != MM_48_17 \
        else dict(type='mmdet_clim.GroundingReader', source=source)
    model = build(path, reader).train()
    assert isinstance(model.region_reader, GroundingReader)
    assert model.region_reader.source == source
    batch = make['collate'](boxes_sample(make, 1), boxes_sample(make, 2),
                            make['mosaic'](3), make['mosaic'](4))
    losses = model(**model.data_preprocessor(batch, True), mode='loss')
    for key in ('grounding.loss', 'grounding.box_loss', 'names.loss',
                'caption.loss', 'tag.loss'):
        assert losses[f'mosaic.{key}'] > 0, key
    assert losses['mosaic.names.box_loss'] == 0
    assert losses['mosaic.grounding.prompts'] == 2
    assert gradients(model, losses) == []
    # At test time it is the detector.
    model.eval()
    with torch.no_grad():
        result, = model.test_step(make['collate'](boxes_sample(make, 1)))
    assert 'pred_instances' in result


@pytest.mark.parametrize('boxed', [True, False])
def test_matched_by_text_no_parameter_is_left_out(build, make, boxed,
                                                  monkeypatch):
    """Without boxed images too, as DDP asks."""
    monkeypatch.setattr(connected_zero, 'get_world_size', lambda: 2)
    model = build(MM_48_17, objectives=dict(names=MATCHED_BY_TEXT)).train()
    samples = [make['mosaic'](3), make['mosaic'](4)]
    if boxed:
        samples.append(boxes_sample(make, 1))
    data = model.data_preprocessor(make['collate'](*samples), True)
    if boxed:
        losses = model(**data, mode='loss')
    else:
        losses = model.branch_loss('mosaic', data['inputs']['mosaic'],
                                   data['data_samples']['mosaic'])
    assert losses['mosaic.names.loss'] > 0
    assert losses['mosaic.names.box_loss'] == 0
    assert losses['mosaic.names.prompts'] == 2
    assert gradients(model, losses) == []


def test_a_projection_lies_where_the_detector_does(build):
    detector = build(MM_48_17).detector.to('meta')
    reader = GroundingReader('query')
    reader.prepare(detector, 8)
    assert reader.projection.weight.device.type == 'meta'


@pytest.mark.parametrize('path', [MM_48_17, GLIP])
def test_losses_are_those_of_the_detector(build, make, path):
    """Tiles that have one class each are what mmdet trains on by itself."""
    model = build(path).eval()
    detector = model.detector
    batch = make['collate'](make['mosaic'](0))
    data = model.data_preprocessor(copy.deepcopy(batch), True)
    inputs, (sample, ) = (
        data[key]['mosaic'] for key in ('inputs', 'data_samples'))
    objective = GroundingObjective(
        'tags', CLASSES, num_compositions=0, num_negatives=0)
    family = family_of(detector)
    prompt, = objective.targets.prompts(sample, family,
                                        detector.language_model.tokenizer,
                                        family.max_tokens(detector))
    assert prompt.text.rstrip('. ') == 'cat. dog. cow. bus'
    samples = [
        grounding_sample(prompt, sample.gt_instances.bboxes,
                         family.map_width(detector), dict(sample.metainfo))
    ]
    feats = model.region_reader.extract_feat(detector, inputs)
    detector.train()
    detector.neck.eval()  # GLIP's drops blocks
    torch.manual_seed(1)
    mine = family.losses(detector, feats.levels, samples)
    sample.gt_instances.labels = torch.arange(4)
    sample.set_metainfo(dict(text='cat. dog. cow. bus'))
    torch.manual_seed(1)
    own = detector.loss(inputs, [sample])
    assert mine.keys() == own.keys()
    for key, value in own.items():
        torch.testing.assert_close(mine[key], value)


@pytest.mark.parametrize('path', [MM_48_17, GLIP])
def test_prompts_made_by_a_data_worker(build, make, small_bert, path,
                                       monkeypatch):
    """The same losses, to the bit, and no text is read again."""
    objectives = dict(
        grounding=dict(
            type='mmdet_clim.GroundingObjective', num_compositions=99),
        names=dict(
            type='mmdet_clim.GroundingObjective',
            texts='tags',
            vocabulary=CLASSES,
            num_negatives=0,
            num_compositions=99))
    model = build(path, objectives=objectives).train()
    model.branches['mosaic'] = list(objectives)
    detector = model.detector
    detector.language_model.eval()
    detector.neck.eval()  # GLIP's drops blocks

    def seed(*args):
        torch.manual_seed(1)  # what denoising queries are drawn from

    detector.get_submodule('bbox_head' if path ==
                           GLIP else 'encoder').register_forward_pre_hook(seed)

    def losses(samples):
        batch = make['collate'](*copy.deepcopy(samples))
        return model(**model.data_preprocessor(batch, True), mode='loss')

    samples = [make['mosaic'](0), make['mosaic'](1)]
    # More than one prompt takes.
    samples[1][1].set_metainfo(dict(captions=[['a cat on grass ' * 70]] * 4))
    here = losses(samples)
    assert here['mosaic.grounding.prompts'] > 2
    step = TRANSFORMS.build(
        dict(
            type='mmdet_clim.TokenizePrompts',
            detector=Config.fromfile(CONFIGS / path).model.type,
            language_model=dict(name=small_bert),
            objectives=objectives))
    for _, sample in samples:
        pickle.loads(pickle.dumps(step))(dict(data_samples=sample))
    samples = pickle.loads(pickle.dumps(samples))
    for name in ('__call__', 'tokenize'):
        monkeypatch.setattr(
            type(detector.language_model.tokenizer), name, None)
    there = losses(samples)
    assert here.keys() == there.keys()
    for key, value in here.items():
        assert torch.equal(value, there[key]), key
    model.objectives.names.targets = GroundingObjective(
        'tags', CLASSES, num_negatives=1).targets
    with pytest.raises(ValueError, match='TokenizePrompts.*num_negatives=1'):
        losses(samples)


@pytest.mark.parametrize('chunked_size', [-1, 1])
@pytest.mark.parametrize('path', [MM_48_17, GLIP])
def test_proposals_are_what_the_detector_predicts(build, make, path,
                                                  chunked_size, monkeypatch):
    """Of each image by itself; the backbone is not asked again."""
    model = build(path).eval()
    detector, reader = model.detector, model.region_reader
    detector.test_cfg = dict(detector.test_cfg, chunked_size=chunked_size)
    _, samples = zip(make['mosaic'](0), make['mosaic'](1))
    images = torch.randn(2, 3, 64, 64)
    feats = reader.extract_feat(detector, images, samples)
    expected = []
    with torch.no_grad():
        for image, sample in zip(images, samples):
            sample = DetDataSample(
                metainfo=dict(
                    sample.metainfo,
                    text=('object', ),
                    custom_entities=True,
                    batch_input_shape=(64, 64)))
            expected += detector.predict(image[None], [sample], rescale=False)
    before = [level.clone() for level in feats.levels]
    monkeypatch.setattr(detector, 'extract_feat', None)
    for found, one in zip(reader.propose(detector, feats), expected):
        best = reader._best(one.pred_instances)
        torch.testing.assert_close(found.scores, best.scores)
        torch.testing.assert_close(
            found.bboxes[:3], best.bboxes[:3], rtol=1e-3, atol=1e-2)
    assert all(map(torch.equal, feats.levels, before))
    # The same from what the regions are read from.
    alone = reader.propose(detector, feats)
    reader.stages(detector, feats)
    for found, one in zip(reader.propose(detector, feats), alone):
        assert ('encoder' in feats.seen) == (path != GLIP)
        torch.testing.assert_close(found.bboxes, one.bboxes)
        torch.testing.assert_close(found.scores, one.scores)


@pytest.mark.parametrize('source', ['query', 'encoder', 'neck'])
def test_regions_and_proposals_are_of_one_pass(build, make, source):
    """Backbone, encoder, decoder and language model run once."""
    reader = dict(type='mmdet_clim.GroundingReader', source=source)
    model = build(MM_48_17, reader)
    model.branches['mosaic'] = ['caption', 'tag']
    runs = []
    detector = model.train().detector
    parts = dict(detector.named_children())
    for name in ('backbone', 'encoder', 'decoder', 'language_model'):
        parts[name].register_forward_hook(
            lambda *args, name=name: runs.append(name))
    data = model.data_preprocessor(make['collate'](make['mosaic'](0)), True)
    losses = model(**data, mode='loss')
    assert losses['mosaic.tag.loss'].isfinite()
    assert sorted(runs) == ['backbone', 'decoder', 'encoder', 'language_model']


def test_queries_are_those_that_fit_the_regions(build, make):
    model = build(MM_48_17,
                  dict(type='mmdet_clim.GroundingReader',
                       source='query')).eval()
    reader = model.region_reader
    queries = torch.randn(2, 3, 256)
    boxes = torch.tensor([[0., 0., 10., 10.], [20., 20., 40., 40.],
                          [0., 0., 60., 60.]]).repeat(2, 1, 1)
    rois = torch.tensor([[1., 21., 21., 39., 39.], [0., 0., 0., 64., 64.]])
    torch.testing.assert_close(
        reader.embed_queries(queries, boxes, rois),
        reader.projection(torch.stack([queries[1, 1], queries[0, 2]])))
    assert reader.embed_queries(queries, boxes, rois[:0]).shape == (0, 8)
    # Of an image, with the boxes of the decoder, in pixels.
    feats = reader.extract_feat(model.detector, torch.randn(1, 3, 64, 96))
    found, places = reader.queries(model.detector, feats)
    assert (found.shape, places.shape) == ((1, 20, 256), (1, 20, 4))
    assert 1 < places.max() < 200
    # Half precision would move a box of a large image by pixels.
    with torch.autocast('cpu', torch.bfloat16):
        other, places = reader.queries(model.detector, feats)
    assert places.dtype == torch.float32
    assert not torch.equal(other.float(), found)


@pytest.mark.parametrize('path, source', [
    (MM_48_17, 'encoder'),
    (MM_48_17, 'query'),
    (MM_48_17, 'neck'),
    (GLIP, 'neck'),
])
def test_a_batch_is_what_its_images_are(build, path, source):
    """The second image is smaller and padded."""
    reader = dict(type='mmdet_clim.GroundingReader', source=source)
    model = build(path, reader).eval()
    detector, reader = model.detector, model.region_reader
    images = torch.randn(2, 3, 64, 96)
    images[1, :, 48:] = images[1, :, :, 64:] = 0
    rois = torch.tensor([[1., 4., 8., 40., 44.], [0., 30., 10., 90., 60.],
                         [1., 20., 2., 60., 30.]])

    def read(inputs, shapes, regions):
        samples = [
            DetDataSample(metainfo=dict(img_shape=shape)) for shape in shapes
        ]
        feats = reader.extract_feat(detector, inputs, samples)
        stage, = reader.stages(detector, feats)
        return stage.read(regions)

    with torch.no_grad():
        together = read(images, [(64, 96), (48, 64)], rois)
        first = read(images[:1], [(64, 96)], rois[1:2])
        second = rois[::2].clone()
        second[:, 0] = 0
        second = read(images[1:], [(48, 64)], second)
    torch.testing.assert_close(
        together[[1, 0, 2]], torch.cat([first, second]), rtol=1e-3, atol=1e-4)
    assert (together[0] - together[2]).abs().max() > 1e-3


def test_a_short_limit_makes_more_prompts(build, make):
    model = build(MM_48_17).train()
    # Three tokens each of "a cat." and "two dogs.", five, and four.
    model.detector.language_model.max_tokens = 8
    data = model.data_preprocessor(make['collate'](make['mosaic'](0)), True)
    args = ('mosaic', data['inputs']['mosaic'], data['data_samples']['mosaic'])
    losses = model.branch_loss(*args)
    assert losses['mosaic.grounding.prompts'] == 3
    assert losses['mosaic.grounding.loss'].isfinite()


@pytest.mark.parametrize('path', [MM_48_17, GLIP])
def test_mosaics_without_tags(build, make, path, monkeypatch):
    monkeypatch.setattr(connected_zero, 'get_world_size', lambda: 2)
    model = build(path).train()
    image, sample = make['mosaic'](0)
    sample.set_metainfo(dict(tags=[[], [], [], []]))
    data = model.data_preprocessor(make['collate']((image, sample)), True)
    losses = model.branch_loss('mosaic', data['inputs']['mosaic'],
                               data['data_samples']['mosaic'])
    names = [losses[f'mosaic.names.{key}'] for key in ('loss', 'box_loss')]
    assert names == [0, 0] and losses['mosaic.names.prompts'] == 0
    sum(names).backward()
    for parameter in model.detector.parameters():
        assert not parameter.requires_grad or not parameter.grad.any()


def run_rank(rank, folder, models, batches):
    distributed.init_process_group(
        'gloo', init_method=f'file://{folder}/store', rank=rank, world_size=2)
    found = {}
    for name, model in models.items():
        torch.manual_seed(0)
        wrapped = MMDistributedDataParallel(model)
        data = model.data_preprocessor(batches[name][rank], True)
        assert gradients(model, wrapped(**data, mode='loss')) == [], name
        found[name] = [p.grad for p in model.parameters() if p.requires_grad]
    torch.save(found, f'{folder}/rank{rank}.pth')
    # The process group ends with this process; see
    # test_detectors/test_clim_detector_ddp.py.


def gradients_of_two(folder, models, batches):
    """By name, the gradients that both ranks have after one step."""
    mp.start_processes(
        run_rank, (str(folder), models, batches), 2, start_method='fork')
    first, second = (
        torch.load(folder / f'rank{rank}.pth') for rank in range(2))
    for name, grads in first.items():
        torch.testing.assert_close(second[name], grads, msg=name)
    return first


@pytest.mark.parametrize('path, changes', [
    (MM_48_17, {}),
    (MM_48_17, dict(objectives=dict(names=MATCHED_BY_TEXT))),
    (GLIP, {}),
])
def test_a_rank_whose_mosaics_have_no_tags(build, make, path, changes,
                                           tmp_path):
    """It waits for the other where that counts boxes over both."""
    model = build(path, **changes).train()
    model.branches['mosaic'] = ['names']
    for name in set(model.objectives) - {'names'}:
        del model.objectives[name]
    mosaics = [make['mosaic'](0), make['mosaic'](1)]
    mosaics[1][1].set_metainfo(dict(tags=[[], [], [], []]))
    batches = [make['collate'](mosaic) for mosaic in mosaics]
    found = gradients_of_two(tmp_path, dict(one=model), dict(one=batches))
    assert sum(bool(grad.any()) for grad in found['one']) > 10


def test_old_words_on_two_ranks(build, make, small_bert, tmp_path):
    """Both keep them, and learn the same."""
    model = build(MM_48_17, objectives=dict(names=MATCHED_BY_TEXT)).train()
    for name in set(model.objectives) - {'names'}:
        del model.objectives[name]
    file = tmp_path / 'original.pth'
    torch.save(dict(state_dict=model.detector.state_dict()), file)
    model.objectives['old'] = OldWordsObjective(
        shrink(Config.fromfile(CONFIGS / MM_48_17).model, small_bert),
        str(file), CLASSES[:2])
    model.branches['mosaic'] = ['names', 'old']
    with torch.no_grad():
        model.detector.text_feat_map.weight.mul_(-1)
    batches = [make['collate'](make['mosaic'](seed)) for seed in range(2)]
    grads = []
    for weight in (1., 0.):
        model.objectives['old'].loss_weight = weight
        (tmp_path / str(weight)).mkdir()
        grads.append(
            gradients_of_two(tmp_path / str(weight), dict(one=model),
                             dict(one=batches))['one'])
    assert any((a - b).abs().max() > 1e-4 for a, b in zip(*grads))


def test_the_shipped_configs_train_on_two_ranks(make, repository, small_bert,
                                                tmp_path):
    """All that train differently; backbones recompute activations."""
    if mmdet.__version__ == '3.5.1':
        pytest.skip('see `build`')
    register_all_modules()
    folder = repository / 'configs'
    models, batches, seen, told = {}, {}, [], []
    for file in sorted([
            *folder.glob('grounding/*.py'),
            *folder.glob('openmoji/mm-grounding-dino_*.py')
    ]):
        cfg = Config.fromfile(file)
        if not cfg.get('train_cfg'):
            continue  # it is for testing alone
        mosaics = [[
            make['mosaic'](rank, branch)
            for branch in cfg.model.get('branches') or ['mosaic']
        ] for rank in range(2)]
        step = cfg.get('tokenize_prompts')
        cfg = cfg.model
        wrapped = 'detector' in cfg
        shrink_by_size(cfg.detector if wrapped else cfg, small_bert)
        if wrapped:
            cfg.pop('text_encoder')
            cfg.text_encoder = dict(
                type='mmdet_clim.SentenceTextEncoder', path=small_bert)
        for objective in cfg.get('objectives', {}).values():
            if 'queue' in objective:
                objective.queue.dim = 16  # of this BERT
            if 'ann_file' in (objective.get('vocabulary') or {}):
                objective.vocabulary = list(CLASSES)  # LVIS's are in a file
        if not wrapped:
            cfg.test_cfg.pop('chunked_size', None)  # CLIM alone predicts
        if cfg in seen:
            continue
        seen.append(copy.deepcopy(cfg))
        if step is not None:
            told.append(file.stem)
            # Not update(), which would keep the package of the large one.
            step.language_model = cfg.detector.language_model
            step.objectives = cfg.objectives
            for _, sample in sum(mosaics, []):
                TRANSFORMS.build(step)(dict(data_samples=sample))
        torch.manual_seed(0)
        with not_a_number_in_new_memory():
            model = MODELS.build(copy.deepcopy(cfg)).train()
        set_what_was_left_unset(model)
        models[file.stem] = model
        batches[file.stem] = [
            make['collate'](boxes_sample(make, rank),
                            *mosaics[rank] if wrapped else ())
            for rank in range(2)
        ]
        if file.stem.endswith('ov-coco_clim'):
            cfg.detector.encoder.num_cp = 1
            with pytest.raises((ValueError, NotImplementedError),
                               match='num_cp|fair'):
                MODELS.build(cfg)
    assert len(models) == 12
    assert told == [
        'mm-grounding-dino_swin-t_ov-coco_clim',
        'mm-grounding-dino_swin-t_ov-lvis_clim',
        'mm-grounding-dino_r18_160_clim',
        'mm-grounding-dino_r18_256_captions-tags',
        'mm-grounding-dino_r18_256_clim',
        'mm-grounding-dino_r18_256_clim_box',
        'mm-grounding-dino_r18_256_clim_equal-views',
    ]
    for name, grads in gradients_of_two(tmp_path, models, batches).items():
        assert sum(bool(grad.any()) for grad in grads) > 10, name


def test_what_does_not_fit(build, clim_cfg, make):
    with pytest.raises(TypeError, match='needs the queries .* of GLIP, exp'):
        build(GLIP, dict(type='mmdet_clim.GroundingReader', source='query'))
    with pytest.raises(TypeError, match='got a GLIP, which has no queries'):
        build(GLIP, objectives=dict(names=MATCHED_BY_TEXT))
    clim_cfg.objectives.grounding = dict(type='mmdet_clim.GroundingObjective')
    with pytest.raises(TypeError, match='TwoStageReader'):
        MODELS.build(clim_cfg)
    model = build(MM_48_17).train()
    model.detector.bbox_head.num_classes = 2
    data = model.data_preprocessor(make['collate'](make['mosaic'](0)), True)
    with pytest.raises(ValueError, match='bbox_head.num_classes'):
        model.branch_loss('mosaic', data['inputs']['mosaic'],
                          data['data_samples']['mosaic'])
