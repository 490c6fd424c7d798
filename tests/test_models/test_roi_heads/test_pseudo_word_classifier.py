# Licensed under the Apache License, Version 2.0.
"""Regions that are read by a text encoder, against one region at a time."""
import pytest
import torch
from mmengine.registry import MODELS

from mmdet_clim.models.pseudo_words import write_regions
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


@pytest.fixture
def inner_clip_cfg(tiny_clip_cfg):
    """BARON's space, of the width of the words."""
    return dict(tiny_clip_cfg, before_projection=True)


@pytest.mark.parametrize('softmax', [False, True])
def test_logits_and_gradients_of_one_region_at_a_time(head_cfg, inner_clip_cfg,
                                                      softmax):
    head_cfg['classifier'].update(text_encoder=inner_clip_cfg, drop_prob=0.)
    if softmax:
        head_cfg['classifier']['type'] = \
            'mmdet_clim.SoftmaxPseudoWordClassifier'
        head_cfg['loss_cls'] = dict(type='mmdet_clim.BaseClassSoftmaxLoss')
    head = MODELS.build(head_cfg)
    head.init_weights()
    encoder = MODELS.build(inner_clip_cfg)
    x = torch.randn(4, 16, 4, 4)
    words = head.embed(x)
    assert words.shape == (4, 3 * 16)
    projection = head.fc_cls.projection
    texts = encoder([f'a {name}' for name in CLASSES])
    logits = []
    for feature in x.mean((2, 3)):
        sentence = encoder.encode_words(
            projection(feature).view(1, 3, 16), torch.tensor([3]))
        if softmax:  # tau 50, the background last, no bias
            background = head.fc_cls.background
            every = torch.cat([texts, background[None] / background.norm()])
            logits.append(50 * sentence @ every.T)
        else:
            logits.append(25 * sentence @ texts.T - 20)
    expected = torch.cat(logits)
    found = head(x)[0]
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    weights = torch.randn(expected.shape)
    grads = [
        torch.autograd.grad((of * weights).sum(), projection.weight)[0]
        for of in (found, expected)
    ]
    largest = grads[1].abs().max()
    assert largest > 0
    torch.testing.assert_close(
        grads[0] / largest, grads[1] / largest, atol=1e-5, rtol=1e-5)


def test_words_are_dropped_in_training_alone(head_cfg, tiny_clip_cfg):
    head = MODELS.build(head_cfg)
    assert head.fc_cls.drop_prob == .5
    encoder = MODELS.build(tiny_clip_cfg)
    words = torch.randn(64, 3, 16)
    # Every way to drop some of three words, but not all.
    ways = [[n for n in range(3) if way >> n & 1] for way in range(1, 8)]
    texts = [
        encoder.encode_words(words[:, way], torch.full((64, ), len(way)))
        for way in ways
    ]
    torch.manual_seed(0)
    found = head.fc_cls.read(words.flatten(1))
    way = torch.stack([(found - of).abs().amax(1) for of in texts]).min(0)
    assert way.values.max() < 1e-5
    kept = torch.tensor([len(ways[index]) for index in way.indices]).float()
    # Three words: 1/8, two 3/8, one 3/8, and none 1/8, which is one.
    assert kept.mean().item() == pytest.approx(1.625, abs=.25)
    assert len(set(way.indices.tolist())) == 7
    head.eval()
    torch.testing.assert_close(
        head.fc_cls.read(words.flatten(1)), texts[-1], atol=1e-5, rtol=1e-4)


def test_a_background_of_its_own(head_cfg, inner_clip_cfg):
    head_cfg['classifier'].update(
        type='mmdet_clim.SoftmaxPseudoWordClassifier',
        text_encoder=inner_clip_cfg)
    head_cfg['loss_cls'] = dict(
        type='mmdet_clim.BaseClassSoftmaxLoss', background_weight=.7)
    head = MODELS.build(head_cfg)
    # tau is no weight, nor is there a bias.
    assert sorted(key for key in head.state_dict() if 'fc_cls' in key) == [
        'fc_cls.background', 'fc_cls.projection.bias',
        'fc_cls.projection.weight'
    ]
    scores = head(torch.randn(3, 16, 4, 4))[0]
    assert scores.shape == (3, 6)
    labels = torch.tensor([0, 5, 5])
    # Base: cat, dog and cow, as the head's vocabulary says.
    base = [n for n in range(5) if head.vocabulary.is_base[n]]
    logs = scores[:, [*base, 5]].log_softmax(1)
    expected = -(logs[0, base.index(0)] + .7 * logs[1:, -1].sum()) / 3
    torch.testing.assert_close(
        head.loss_cls(scores, labels), expected, atol=1e-5, rtol=1e-4)


def test_class_vectors_of_a_file(head_cfg, inner_clip_cfg, tmp_path):
    """Of a checkpoint: regions are read by CLIP, its classes are as given."""
    vectors = torch.randn(5, 16)
    torch.save(dict(names=CLASSES, vectors=vectors), tmp_path / 'classes.pth')
    head_cfg['classifier'].update(
        text_encoder=inner_clip_cfg,
        templates=('{}', ),
        class_encoder=dict(
            type='mmdet_clim.PrecomputedTextEncoder',
            file=str(tmp_path / 'classes.pth')))
    classifier = MODELS.build(head_cfg).fc_cls
    vectors = vectors / vectors.norm(dim=1, keepdim=True)
    torch.testing.assert_close(classifier.class_embeddings, vectors)
    words = torch.randn(2, 48)
    classifier.eval()
    torch.testing.assert_close(
        classifier.score(words), 25 * classifier.read(words) @ vectors.T - 20)
    # Other classes are read as regions are.
    classifier.set_vocabulary(['cup', 'a thing never seen'])
    torch.testing.assert_close(
        classifier.class_embeddings,
        MODELS.build(inner_clip_cfg)(['cup', 'a thing never seen']))


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
    head.eval()
    x = torch.randn(2, 16, 4, 4)
    before = head(x)[0]
    encoder = head.fc_cls.text_encoder
    head.set_vocabulary(['cup', 'a thing never seen', 'cat'])
    assert head.fc_cls.text_encoder is encoder
    after = head(x)[0]
    torch.testing.assert_close(after[:, [0, 2]], before[:, [4, 0]])


def test_of_words_that_are_all_to_be_dropped_one_stays():
    """First in its row, before the others, which count no longer."""
    words = torch.arange(24.).view(4, 3, 2)
    torch.manual_seed(0)
    written, lengths = write_regions(words, 1.)
    assert lengths.tolist() == [1] * 4
    for own, found in zip(words.tolist(), written.tolist()):
        first, *others = found
        assert others == [word for word in own if word != first]


@pytest.mark.parametrize('changes, error, message', [
    (dict(num_words=0), ValueError, 'num_words'),
    (dict(num_words=9), ValueError, 'at most 8'),
    (dict(text_encoder='texts'), TypeError, 'takes no word vectors'),
    (dict(drop_prob=2), ValueError, 'drop_prob'),
])
def test_what_can_not_work(head_cfg, changes, error, message,
                           text_encoder_cfg):
    encoders = dict(texts=text_encoder_cfg)
    classifier = head_cfg['classifier']
    for key, value in changes.items():
        classifier[key] = encoders.get(value, value)
    if 'text_encoder' in changes:
        classifier['templates'] = ('{}', )
    with pytest.raises(error, match=message):
        MODELS.build(head_cfg)
