# Licensed under the Apache License, Version 2.0.
"""Old words of detectors that read a prompt: mmdet's configs, made small."""
import copy
import sys
from pathlib import Path

import mmdet
import pytest
import torch
from mmdet.utils import register_all_modules
from mmengine.config import Config, ConfigDict

from mmdet_clim.registry import MODELS

sys.path.insert(0, str(Path(__file__).parents[2] / 'test_configs'))
from grounding_cases import shrink  # noqa: E402  isort: skip

PATHS = {
    'MM-Grounding-DINO': 'mm_grounding_dino/coco/'
    'grounding_dino_swin-t_finetune_16xb4_1x_coco_48_17.py',
    'GLIP': 'glip/glip_atss_swin-t_a_fpn_dyhead_16xb2_ms-2x_funtune_coco.py',
}
# One is asked with a new word, which is learned, between the old ones.
TEXTS = {
    'MM-Grounding-DINO': 'traffic light. dog. cat. ',
    'GLIP': 'traffic light. cat'
}
# In tokens: [CLS] traffic light . dog . cat . [SEP]
WORDS = {
    'MM-Grounding-DINO': {
        'traffic light': [1, 2],
        'cat': [6]
    },
    'GLIP': {
        'traffic light': [1, 2],
        'cat': [4]
    }
}
BEST = 3


@pytest.fixture
def build(clim_cfg, small_bert, tmp_path):

    def build(name):
        register_all_modules()
        torch.manual_seed(0)
        detector = shrink(
            Config.fromfile(
                Path(mmdet.__file__).parent / '.mim/configs' /
                PATHS[name]).model, small_bert)
        kept = copy.deepcopy(detector)
        original = MODELS.build(copy.deepcopy(detector))
        original.init_weights()
        torch.save(
            dict(state_dict=original.state_dict()), tmp_path / 'original.pth')
        model = MODELS.build(
            ConfigDict(
                clim_cfg,
                detector=detector,
                branches=dict(mosaic=['old']),
                objectives=dict(
                    old=dict(
                        type='mmdet_clim.OldWordsObjective',
                        detector=kept,
                        checkpoint=str(tmp_path / 'original.pth'),
                        vocabulary=['traffic light', 'cat'],
                        new_words=['dog', 'cat'] if name != 'GLIP' else (),
                        num_regions=BEST))))
        model.detector.load_state_dict(original.state_dict())
        model.train()
        # GLIP's drops blocks.
        model.detector.neck.eval()
        return model, original.eval()

    return build


def data_of(model, make):
    """Two mosaics, one of them not as wide as the other."""
    mosaics = [make['mosaic'](0), make['mosaic'](1)]
    mosaics[1] = mosaics[1][0][..., :48], mosaics[1][1]
    mosaics[1][1].set_metainfo(dict(img_shape=(64, 48)))
    data = model.data_preprocessor(make['collate'](*mosaics), True)
    return data['inputs']['mosaic'], data['data_samples']['mosaic']


def change(model):
    """As if it had learned something."""
    torch.manual_seed(2)
    with torch.no_grad():
        for name, weight in model.detector.named_parameters():
            if 'language_model' not in name:
                weight.add_(0.05 * torch.randn_like(weight))


def of_transformer(model, original, images, samples, texts):
    """Logits of the encoder and of the last layer, original and learning."""
    found = []
    chosen = None
    for detector in (original, model.detector):
        text = detector.language_model(texts)
        text['embedded'] = detector.text_feat_map(text['embedded'])
        encoder, more = detector.pre_transformer(
            detector.extract_feat(images), samples)
        encoded = detector.forward_encoder(**encoder, text_dict=text)
        begin, of_head = detector.pre_decoder(
            **encoded, batch_data_samples=samples)
        memory, proposals = detector.gen_encoder_output_proposals(
            encoded['memory'], encoded['memory_mask'],
            encoded['spatial_shapes'])
        classify = detector.bbox_head.cls_branches[detector.decoder.num_layers]
        logits = classify(memory, encoded['memory_text'],
                          encoded['text_token_mask'])
        if chosen is None:
            tokens = logits.max(2)[0].topk(detector.num_queries)[1]
            chosen = tokens, begin['reference_points']
        tokens, references = chosen
        decoded = detector.forward_decoder(
            **{
                **more,
                **begin, 'reference_points': references
            })
        scores, _ = detector.bbox_head(**decoded, **of_head)
        found.append([
            torch.stack([of[row] for of, row in zip(logits, tokens)]),
            scores[-1]
        ])
    return list(zip(*found))


def of_anchors(model, original, images, samples, texts):
    """Logits of all anchors, original and learning."""
    found = []
    for detector in (original, model.detector):
        logits, *_ = detector.bbox_head(
            detector.extract_feat(images), detector.language_model(texts))
        found.append(torch.cat(logits, 1))
    return [found]


def by_hand(layers, words):
    """The loss, one word of one place after another."""
    wanted, _ = layers[-1]
    surest = torch.stack([wanted[..., of].sigmoid().mean(2)
                          for of in words]).amax(0)
    total = 0.
    for before, after in layers:
        for image, of_image in enumerate(surest):
            for place in of_image.argsort(descending=True)[:BEST]:
                for tokens in words:
                    p = before[image, place, tokens].double().sigmoid()
                    q = after[image, place, tokens].double().sigmoid()
                    each = p * (p / q).log() + (1 - p) * ((1 - p) /
                                                          (1 - q)).log()
                    total += each.mean().item() / (len(surest) * BEST)
    return total


@pytest.mark.parametrize('name', PATHS)
def test_the_loss_is_that_of_the_places_asked(name, build, make):
    """By mmdet's own functions, one after the other."""
    model, original = build(name)
    images, samples = data_of(model, make)
    found = model.branch_loss('mosaic', images, samples)
    assert found['mosaic.old.loss'].item() == pytest.approx(0, abs=1e-5)
    assert found['mosaic.old.kept'] == 100
    change(model)
    # No module is left in another mode, and no method replaced.
    assert model.detector.bbox_head.training
    assert 'pre_decoder' not in vars(model.detector)
    found = model.branch_loss('mosaic', images, samples)
    found['mosaic.old.loss'].backward()
    learns = model.detector.backbone.layer4[0].conv1.weight
    assert learns.grad.abs().sum() > 0
    teacher = model.objectives['old'].teacher(images.device)
    assert all(p.grad is None for p in teacher.parameters())
    assert not any('old' in weight for weight in model.state_dict())
    model.eval()
    texts = [TEXTS[name]] * 2
    ask = of_anchors if name == 'GLIP' else of_transformer
    with torch.no_grad():
        wanted = by_hand(
            ask(model, original, images, samples, texts), WORDS[name].values())
    assert wanted > 1e-3
    assert found['mosaic.old.loss'].item() == pytest.approx(wanted, rel=1e-3)


def test_words_that_one_prompt_has_no_room_for(build, make, monkeypatch):
    """They are drawn, one prompt of them at a time."""
    model, _ = build('MM-Grounding-DINO')
    objective = model.objectives['old']
    objective.teacher(torch.device('cpu')).language_model.max_tokens = 7
    asked = []
    encode = model.detector.language_model.forward
    monkeypatch.setattr(
        model.detector.language_model, 'forward',
        lambda texts, **kwargs: asked.append(texts) or encode(texts, **kwargs))
    images, samples = data_of(model, make)
    for _ in range(8):
        loss = model.branch_loss('mosaic', images, samples)['mosaic.old.loss']
        assert loss.item() == pytest.approx(0, abs=1e-5)
    assert {text
            for texts in asked
            for text in texts} == {'traffic light. dog. ', 'cat. '}
