# Licensed under the Apache License, Version 2.0.
import pytest
import torch
import torch.nn.functional as F
from mmengine.registry import MODELS

CLASSES = ['cat', 'dog', 'cow', 'bus', 'cup']


def build(text_encoder_cfg, **kwargs):
    torch.manual_seed(0)
    return MODELS.build(
        dict(
            dict(
                type='mmdet_clim.SoftmaxZeroShotClassifier',
                in_features=6,
                vocabulary=CLASSES,
                text_encoder=text_encoder_cfg,
                templates=('{}', )), **kwargs))


def test_logits_are_cosines_with_classes_and_background(text_encoder_cfg):
    classifier = build(text_encoder_cfg, out_features=6)
    encoder = MODELS.build(text_encoder_cfg)
    features = torch.randn(4, 6)
    embeddings = classifier.projection(features)
    background = classifier.background.detach()[None]
    texts = torch.cat([encoder(CLASSES), background])
    expected = 50 * F.cosine_similarity(embeddings[:, None], texts[None], 2)
    torch.testing.assert_close(
        classifier(features), expected, rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(classifier.all_embeddings(),
                               F.normalize(texts, dim=1))


def test_temperature_and_background_are_learned(text_encoder_cfg):
    classifier = build(text_encoder_cfg, temperature=30.)
    loss = F.cross_entropy(
        classifier(torch.randn(4, 6)), torch.tensor([0, 5, 5, 1]))
    loss.backward()
    assert classifier.log_temperature.exp().item() == pytest.approx(30)
    for parameter in classifier.parameters():
        assert parameter.grad.abs().sum() > 0
    assert set(classifier.state_dict()) == {
        'log_temperature', 'background', 'projection.weight', 'projection.bias'
    }


@pytest.mark.parametrize('kind', ['ZeroShot', 'SoftmaxZeroShot'])
@pytest.mark.parametrize('temperature', [0, -5., None, '50'])
def test_no_temperature(text_encoder_cfg, kind, temperature):
    with pytest.raises(ValueError, match='temperature: expected a positive'):
        build(
            text_encoder_cfg,
            type=f'mmdet_clim.{kind}Classifier',
            temperature=temperature)


def test_no_bias(text_encoder_cfg):
    with pytest.raises(ValueError, match="bias: expected a finite .*'-20'"):
        build(
            text_encoder_cfg, type='mmdet_clim.ZeroShotClassifier', bias='-20')


def test_how_sure_it_is_of_some_texts(text_encoder_cfg):
    """Their odds, among themselves and the background."""
    classifier = build(text_encoder_cfg, temperature=3.)
    vectors = torch.randn(4, len(classifier.background))
    texts = MODELS.build(text_encoder_cfg)(['cow', 'cat'])
    found = classifier.text_log_odds(vectors, texts)
    classifier.set_vocabulary(['cow', 'cat'])
    p = classifier.score(vectors).softmax(1)[:, :2]
    torch.testing.assert_close(found, (p / (1 - p)).log())
    # Certain, they are still numbers, and have a gradient where they are not.
    vectors = 9 * classifier.class_embeddings[:1]
    classifier.log_temperature.data.fill_(9.)
    sure = classifier.text_log_odds(vectors, texts)
    assert sure.isfinite().all() and sure[0, 0] > 13


def test_other_classes_at_run_time(text_encoder_cfg):
    classifier = build(text_encoder_cfg)
    features = torch.randn(4, 6)
    before = classifier(features)
    classifier.set_vocabulary(['cow', 'cat'])
    torch.testing.assert_close(classifier(features), before[:, [2, 0, 5]])


def test_no_regions_and_wrong_count(text_encoder_cfg):
    assert build(text_encoder_cfg)(torch.zeros(0, 6)).shape == (0, 6)
    with pytest.raises(ValueError, match='out_features: expected 6 .* got 5'):
        build(text_encoder_cfg, out_features=5)
