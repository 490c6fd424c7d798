# Licensed under the Apache License, Version 2.0.
"""Regions that are read by a text encoder, against one region at a time."""
import pytest
import torch
import torch.nn.functional as F
from mmengine.registry import MODELS

from mmdet_clim.models.text_encoders import OpenCLIPTextEncoder

CLASSES = ['cat', 'dog', 'cow', 'bus', 'cup']


@pytest.fixture
def classifier(tiny_clip_cfg):
    return dict(
        type='mmdet_clim.PseudoWordClassifier',
        text_encoder=tiny_clip_cfg,
        templates=('a {}', ),
        num_words=3)


@pytest.fixture
def head_cfg(detector_cfg, classifier):
    head = detector_cfg['roi_head']['bbox_head']
    head['classifier'] = classifier
    return head


@pytest.mark.parametrize('value_path', [False, True])
def test_logits_and_gradients_of_one_region_at_a_time(head_cfg, tiny_clip_cfg,
                                                      value_path):
    head_cfg['classifier']['value_path'] = value_path
    head = MODELS.build(head_cfg)
    head.init_weights()
    encoder = MODELS.build(tiny_clip_cfg)
    x = torch.randn(4, 16, 4, 4)
    words = head.embed(x)
    assert words.shape == (4, 3 * 16)
    projection = head.fc_cls.projection
    texts = encoder([f'a {name}' for name in CLASSES])
    logits = []
    for feature in x.mean((2, 3)):
        sentence = encoder.encode_words(
            projection(feature).view(1, 3, 16), torch.tensor([3]), value_path)
        logits.append(25 * F.normalize(sentence, dim=1) @ texts.T - 20)
    expected = torch.cat(logits)
    found = head(x)[0]
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    weights = torch.randn(4, 5)
    grads = [
        torch.autograd.grad((of * weights).sum(), projection.weight)[0]
        for of in (found, expected)
    ]
    largest = grads[1].abs().max()
    assert largest > 0
    torch.testing.assert_close(
        grads[0] / largest, grads[1] / largest, atol=1e-5, rtol=1e-5)


def test_no_regions(head_cfg):
    head = MODELS.build(head_cfg)
    scores = head(torch.zeros(0, 16, 4, 4))[0]
    assert scores.shape == (0, 5)
    scores.sum().backward()
    assert (head.fc_cls.projection.weight.grad == 0).all()


def test_the_encoder_is_in_no_state_and_does_not_learn(head_cfg):
    head = MODELS.build(head_cfg)
    assert isinstance(head.fc_cls.text_encoder, OpenCLIPTextEncoder)
    assert not [key for key in head.state_dict() if 'text_encoder' in key]
    assert not [n for n, _ in head.named_parameters() if 'text_encoder' in n]
    assert head.fc_cls.logit_bias.item() == -20


def test_vocabulary_is_swapped_without_another_encoder(head_cfg):
    head = MODELS.build(head_cfg)
    x = torch.randn(2, 16, 4, 4)
    before = head(x)[0]
    encoder = head.fc_cls.text_encoder
    head.set_vocabulary(['cup', 'a thing never seen', 'cat'])
    assert head.fc_cls.text_encoder is encoder
    after = head(x)[0]
    torch.testing.assert_close(after[:, [0, 2]], before[:, [4, 0]])


@pytest.mark.parametrize('changes, error, message', [
    (dict(num_words=0), ValueError, 'num_words'),
    (dict(num_words=9), ValueError, 'at most 8'),
    (dict(text_encoder='texts'), TypeError, 'takes no word vectors'),
    (dict(text_encoder='bert', value_path=True), ValueError, 'value_path'),
])
def test_what_can_not_work(head_cfg, changes, error, message, bert_folder,
                           text_encoder_cfg):
    encoders = dict(
        texts=text_encoder_cfg,
        bert=dict(
            type='mmdet_clim.SentenceTextEncoder', path=str(bert_folder)))
    classifier = head_cfg['classifier']
    for key, value in changes.items():
        classifier[key] = encoders.get(value, value)
    if 'text_encoder' in changes:
        classifier['templates'] = ('{}', )
    with pytest.raises(error, match=message):
        MODELS.build(head_cfg)
