# Licensed under the Apache License, Version 2.0.
"""A detector of pseudo-words with both objectives of bags, also on two ranks.

Its text encoder is a BERT without positions, which reads a bag the same in
every order: nothing is random that the number of processes changes.
"""
import copy
import json
import shutil

import pytest
import torch
import torch.multiprocessing as mp
from mmdet.structures.bbox import bbox_overlaps
from mmengine.config import ConfigDict
from mmengine.model import MMDistributedDataParallel
from mmengine.registry import MODELS
from torch import distributed

import mmdet_clim  # noqa: F401
from mmdet_clim.models.objectives import AnnotatedContext

CLASSES = ['cat', 'dog', 'cow', 'bus', 'cup']
NAMES = ('bag', 'distillation')


@pytest.fixture(scope='module')
def order_free_bert(bert_folder, tmp_path_factory):
    from transformers import BertModel
    folder = tmp_path_factory.mktemp('order') / 'bert'
    shutil.copytree(bert_folder, folder)
    bert = BertModel.from_pretrained(folder)
    # Room for a bag of every proposal.
    bert.config.max_position_embeddings = 128
    bert.embeddings.position_embeddings.weight.data = torch.zeros(128, 16)
    bert.save_pretrained(folder)
    return folder


@pytest.fixture
def cfg(detector_cfg, order_free_bert, tmp_path):
    """CLIMDetector around a detector of pseudo-words."""
    import open_clip
    vision = dict(
        image_size=32, layers=1, width=32, patch_size=16, head_width=16)
    text = dict(
        context_length=10, vocab_size=49408, width=16, heads=2, layers=1)
    (tmp_path / 'clip-of-16.json').write_text(
        json.dumps(dict(embed_dim=16, vision_cfg=vision, text_cfg=text)))
    open_clip.add_model_config(tmp_path)
    torch.manual_seed(1)
    torch.save(
        open_clip.create_model('clip-of-16').state_dict(), tmp_path / 'c.pt')
    encoder = dict(
        type='mmdet_clim.SentenceTextEncoder', path=str(order_free_bert))
    detector_cfg.roi_head.bbox_head.classifier = dict(
        type='mmdet_clim.PseudoWordClassifier',
        text_encoder=encoder,
        templates=('{}', ),
        num_words=2,
        drop_prob=0.)
    bags = dict(word_dim=16, num_words=2, num_orders=1, drop_prob=0.)
    loss = dict(
        type='mmdet_clim.CLIMRegionLoss', kind='infonce', temperature=10.)
    queue = dict(type='mmdet_clim.FeatureQueue', size=99, dim=16)
    proposals = dict(min_area=0., min_score=.4, max_objects=99)
    return ConfigDict(
        type='mmdet_clim.CLIMDetector',
        detector=detector_cfg,
        text_encoder=encoder,
        objectives=dict(
            bag=dict(
                type='mmdet_clim.BagOfRegionsObjective',
                loss=loss,
                bags=bags,
                queue=queue,
                gather=True,
                proposals=proposals,
                num_compositions=99),
            distillation=dict(
                type='mmdet_clim.BagDistillationObjective',
                loss=loss,
                bags=bags,
                queue=queue,
                gather=True,
                proposals=proposals,
                num_groups=1,
                base_prob=1.,
                alpha=0.,
                image_encoder=dict(
                    model='clip-of-16',
                    pretrained=str(tmp_path / 'c.pt'),
                    data_preprocessor=detector_cfg.data_preprocessor))))


def gradients(model, batch):
    """Losses and gradients of one step; DDP's wrapper averages the latter."""
    module = model.module if isinstance(model,
                                        MMDistributedDataParallel) else model
    data = module.data_preprocessor(copy.deepcopy(batch), True)
    loss, log = module.parse_losses(model(**data, mode='loss'))
    loss.backward()
    # What one process does not train has no gradient, of several zeros.
    return log, {
        n: torch.zeros_like(p) if p.grad is None else p.grad.clone()
        for n, p in module.named_parameters()
    }


def queues(model):
    """Ids and features of all queues."""
    found = {}
    for name in NAMES:
        contrast = model.objectives[name].contrast
        for side in (contrast.bag_queue, contrast.text_queue):
            found[f'{name}{len(found)}'] = (side.ids, side.features)
    return found


def test_losses_and_what_learns(cfg, batch):
    torch.manual_seed(0)
    model = MODELS.build(cfg).train()
    log, grads = gradients(model, batch)
    assert all(0 < log[f'mosaic.{n}.loss'] < 100 for n in NAMES)
    assert all(0 <= log[f'mosaic.{n}.recall@1'] <= 100 for n in NAMES)
    # The words learn from all of it, the encoders are not there.
    assert grads['detector.roi_head.bbox_head.fc_cls.projection.weight'].any()
    assert not [n for n in model.state_dict() if 'encoder' in n]
    assert not [n for n, _ in model.named_parameters() if 'encoder' in n]
    assert len(model.objectives['bag'].contrast.bag_queue) == 2 * 4
    # At test time it is the detector that it was.
    model.eval()
    data = model.data_preprocessor(
        dict(
            inputs=batch['inputs'][:1],
            data_samples=batch['data_samples'][:1]))
    with torch.no_grad():
        result = model(**data, mode='predict')[0].pred_instances
    assert result.scores.isfinite().all() and len(result) > 0


def test_distillation_on_images_with_boxes(cfg, make):
    """Their boxes are objects; no mosaics and no captions are needed."""
    del cfg.objectives['bag']
    cfg.branches = dict(boxes=['distillation'])
    model = MODELS.build(cfg).train()
    batch = make['collate'](make['box'](1), make['box'](2))
    log, grads = gradients(model, batch)
    assert {k
            for k in log if '.' in k
            } == {'boxes.distillation.loss', 'boxes.distillation.recall@1'}
    assert 0 < log['boxes.distillation.loss'] < 100 and 'loss_bbox' in log
    assert all(grad.isfinite().all() for grad in grads.values())
    assert grads['objectives.distillation.reader.position.'
                 'layers.0.weight'].any()
    data = model.data_preprocessor(copy.deepcopy(batch), True)
    images = data['inputs']['boxes']
    samples = data['data_samples']['boxes']
    context = AnnotatedContext(model.detector, model.region_reader,
                               model.text_encoder, images, samples)
    # A tile is an image without its padding.
    assert context.tiles.boxes[:, 0].tolist() == [
        [0, 0, sample.img_shape[1], sample.img_shape[0]] for sample in samples
    ]
    regions = model.objectives['distillation'].sample(context.tiles,
                                                      context.stages[0])
    for number, sample in enumerate(samples):
        known = sample.gt_instances.bboxes
        assert len(known) > 0
        first = context.proposals
        torch.testing.assert_close(first.boxes[number, :len(known)], known)
        assert (first.scores[number, :len(known)] == 1).all()
        assert first.counts[number] > len(known)
        own = regions.bboxes[regions.is_core & (regions.rois[:, 0] == number)]
        # All of them but those that overlap another annotated box.
        distance = (known[:, None] - own).abs().amax(2).amin(1)
        assert (distance < 1e-3).any()
        alone = (bbox_overlaps(known, known).fill_diagonal_(0) < .2).all(1)
        assert (distance[alone] < 1e-3).all()


def test_images_with_boxes_are_taken_in_once(cfg, make):
    """Their gradient is that of the two losses, each by itself."""
    del cfg.objectives['bag']
    cfg.branches = dict(boxes=['distillation'])
    cfg.objectives.distillation.queue = None
    model = MODELS.build(cfg).train()
    batch = make['collate'](make['box'](1), make['box'](2))
    data = model.data_preprocessor(copy.deepcopy(batch), True)
    images, samples = (
        data[key]['boxes'] for key in ('inputs', 'data_samples'))
    taken = []
    model.detector.backbone.register_forward_hook(lambda *_: taken.append(1))

    def gradient(losses):
        loss, _ = model.parse_losses(losses)
        model.zero_grad()
        loss.backward()
        return model.detector.backbone.layer2[0].conv1.weight.grad.clone()

    torch.manual_seed(0)
    with torch.random.fork_rng():
        joined = gradient(model(**data, mode='loss'))
    assert len(taken) == 1
    apart = gradient(
        dict(
            model.detector.loss(images, samples),
            **model.branch_loss('boxes', images, samples)))
    assert len(taken) == 3
    torch.testing.assert_close(joined, apart, atol=1e-6, rtol=1e-4)
    assert 'extract_feat' not in vars(model.detector)


def test_captions_are_not_for_images_with_boxes(cfg):
    cfg.branches = dict(boxes=['bag'], mosaic=['distillation'])
    with pytest.raises(ValueError, match="'boxes'.*no texts.*objectives.bag"):
        MODELS.build(cfg)


def test_the_space_of_the_classes_and_that_of_the_captions(
        detector_cfg, tiny_clip_cfg):
    """Classes before the last projection, captions behind it: one CLIP."""
    detector_cfg.roi_head.bbox_head.classifier = dict(
        type='mmdet_clim.PseudoWordClassifier',
        text_encoder=dict(tiny_clip_cfg, before_projection=True),
        templates=('{}', ),
        num_words=2)
    cfg = ConfigDict(
        type='mmdet_clim.CLIMDetector',
        detector=detector_cfg,
        objectives=dict(
            bag=dict(
                type='mmdet_clim.BagOfRegionsObjective',
                bags=dict(word_dim=16, num_words=2),
                loss=dict(type='mmdet_clim.CLIMRegionLoss', kind='infonce'))))
    for text_encoder in (None, tiny_clip_cfg):
        model = MODELS.build(dict(cfg, text_encoder=text_encoder))
        classifier = model.detector.roi_head.bbox_head.fc_cls
        assert (model.text_encoder.dim, classifier.text_encoder.dim) == (12,
                                                                         16)
        torch.testing.assert_close(classifier.class_embeddings,
                                   classifier.text_encoder(CLASSES))
    # Words of another CLIP are refused.
    other = dict(tiny_clip_cfg, pretrained=None)
    with pytest.raises(ValueError, match='expected the same embeddings'):
        MODELS.build(dict(cfg, text_encoder=other))


def run_rank(rank, folder, cfg, batches):
    from mmdet.utils import register_all_modules
    register_all_modules()
    distributed.init_process_group(
        'gloo', init_method=f'file://{folder}/store', rank=rank, world_size=2)
    torch.manual_seed(0)
    model = MMDistributedDataParallel(MODELS.build(cfg).train())
    for batch in batches:
        model.zero_grad()
        log, grads = gradients(model, batch[rank])
    torch.save((log, grads, queues(model.module)), f'{folder}/rank{rank}.pth')


def test_gradients_equal_those_of_the_joined_batch(cfg, make, tmp_path):
    images = [make['mosaic'](i) for i in range(6)]
    # Uneven: one mosaic on the first rank, two on the second, twice.
    batches = [[
        make['collate'](images[3 * step]),
        make['collate'](*images[3 * step + 1:3 * step + 3])
    ] for step in range(2)]
    mp.start_processes(
        run_rank, (str(tmp_path), cfg, batches), 2, start_method='fork')
    torch.manual_seed(0)
    model = MODELS.build(cfg).train()
    for step in range(2):
        model.zero_grad()
        log, expected = gradients(
            model, make['collate'](*images[3 * step:3 * step + 3]))
    for rank in range(2):
        rank_log, grads, of_rank = torch.load(tmp_path / f'rank{rank}.pth')
        for name in NAMES:
            key = f'mosaic.{name}.loss'
            torch.testing.assert_close(
                rank_log[key], log[key], atol=1e-4, rtol=1e-4)
        for name, (ids, features) in queues(model).items():
            assert torch.equal(of_rank[name][0], ids), name
            # The objects of an image come in a random order.
            pair = [
                of[of[:, 0].argsort()] for of in (of_rank[name][1], features)
            ]
            torch.testing.assert_close(*pair, atol=1e-4, rtol=1e-4)
        assert grads.keys() == expected.keys()
        for name in expected:
            torch.testing.assert_close(
                grads[name],
                expected[name],
                atol=1e-5 * max(1, expected[name].abs().max().item()),
                rtol=1e-3,
                msg=name)
