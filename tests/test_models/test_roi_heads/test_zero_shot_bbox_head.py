# Licensed under the Apache License, Version 2.0.
import pytest
import torch
import torch.nn.functional as F
from mmengine.registry import MODELS

from mmdet_clim.datasets import Vocabulary

CLASSES = ['cat', 'dog', 'cow', 'bus', 'cup']


@pytest.fixture
def head_cfg(detector_cfg):
    return detector_cfg['roi_head']['bbox_head']


def fc_head_cfg(head_cfg):
    return {
        **head_cfg, 'type': 'mmdet_clim.ZeroShotConvFCBBoxHead',
        'with_avg_pool': False,
        'num_shared_convs': 1,
        'num_shared_fcs': 1,
        'conv_out_channels': 6,
        'fc_out_channels': 12
    }


@pytest.mark.parametrize('make', [dict, fc_head_cfg])
def test_logits_are_scaled_cosines(head_cfg, make, text_encoder_cfg):
    head = MODELS.build(make(head_cfg))
    head.init_weights()
    x = torch.randn(3, 16, 4, 4)
    cls_score, bbox_pred = head(x)
    assert cls_score.shape == (3, 5) and bbox_pred.shape == (3, 4)
    texts = MODELS.build(text_encoder_cfg)(CLASSES)
    expected = 25 * F.normalize(head.embed(x), dim=1) @ texts.T - 20
    torch.testing.assert_close(cls_score, expected)
    assert head(x[:0])[0].shape == (0, 5)


def test_bias_survives_init_weights(head_cfg):
    """MMEngine's initialisers zero what is named `bias`."""
    head = MODELS.build(head_cfg)
    head.init_weights()
    assert head.fc_cls.logit_bias.item() == -20
    hidden = head.fc_reg.hidden.weight.std().item()
    assert 0.008 < hidden < 0.012  # not the 0.001 of the last layer


def test_novel_classes_carry_no_weight(head_cfg):
    vocabulary = Vocabulary(tuple(CLASSES), ('cat', 'cow'))
    head = MODELS.build({**head_cfg, 'vocabulary': vocabulary})
    scores = torch.randn(4, 5, requires_grad=True)
    labels = torch.tensor([0, 2, 5, 5])  # 5 is the background
    loss = head.loss_cls(scores, labels, avg_factor=4)
    targets = torch.zeros(4, 5)
    targets[0, 0] = targets[1, 2] = 1
    expected = F.binary_cross_entropy_with_logits(
        scores[:, [0, 2]], targets[:, [0, 2]], reduction='sum') / 4
    torch.testing.assert_close(loss, expected)
    loss.backward()
    assert (scores.grad[:, [1, 3, 4]] == 0).all()
    assert (scores.grad[:, [0, 2]] != 0).all()


def test_scores_are_sigmoids_without_a_background(head_cfg):
    head = MODELS.build(head_cfg)
    scores = head.loss_cls.get_activation(torch.zeros(2, 5))
    assert scores.tolist() == [[.5] * 5 + [0.]] * 2


def test_classes_compete_at_test_time(head_cfg):
    loss_cls = dict(type='mmdet_clim.BaseClassSigmoidLoss', compete=True)
    head = MODELS.build({**head_cfg, 'loss_cls': loss_cls})
    # Odds of 1, 3, 1, 1, 4: a softmax of tenths.
    logits = torch.tensor([1., 3, 1, 1, 4]).log()[None]
    expected = [[.5 * .1, .75 * .3, .5 * .1, .5 * .1, .8 * .4, 0.]]
    torch.testing.assert_close(
        head.loss_cls.get_activation(logits), torch.tensor(expected))
    assert head.loss_cls.get_activation(logits[:0]).shape == (0, 6)
    # A class that is asked for alone has none to compete with.
    plain = MODELS.build(head_cfg)
    one = logits[:, :1]
    assert (head.loss_cls.get_activation(one) == plain.loss_cls.get_activation(
        one)).all()
    labels = torch.tensor([4])
    assert head.loss_cls(logits, labels) == plain.loss_cls(logits, labels)


def test_a_setting_of_the_loss_that_needs_no_type(head_cfg):
    """As `--cfg-options ...bbox_head.loss_cls.compete=True` gives it."""
    head = MODELS.build({**head_cfg, 'loss_cls': dict(compete=True)})
    assert type(head.loss_cls).__name__ == 'BaseClassSigmoidLoss'
    assert head.loss_cls.compete


def test_vocabulary_is_swapped_in_a_trained_head(head_cfg):
    head = MODELS.build(head_cfg)
    state = {k: v.clone() for k, v in head.state_dict().items()}
    x = torch.randn(2, 16, 4, 4)
    before = head(x)[0]
    head.set_vocabulary(['cup', 'cat'])
    assert head.num_classes == 2
    torch.testing.assert_close(head(x)[0], before[:, [4, 0]])
    # The weights are the same ones, and load in a head of any vocabulary.
    MODELS.build({**head_cfg, 'vocabulary': ['dog']}).load_state_dict(state)
    given = torch.randn(1, 8)
    head.set_vocabulary(['a thing never seen'], given)
    expected = 25 * F.cosine_similarity(head.embed(x), given)[:, None] - 20
    torch.testing.assert_close(head(x)[0], expected)


@pytest.mark.parametrize('names, embeddings, message', [
    (['cat', 'cat'], None, 'twice'),
    ([], None, 'at least one'),
    (['cat', ' '], None, 'non-empty'),
    (['cat'], torch.randn(2, 8), 'shape \\(1, D\\)'),
    (['cat'], torch.randn(1, 9), 'width 8, got 9'),
])
def test_bad_vocabularies(head_cfg, names, embeddings, message):
    head = MODELS.build(head_cfg)
    with pytest.raises(ValueError, match=message):
        head.set_vocabulary(names, embeddings)
    assert head.num_classes == 5


def test_a_name_the_encoder_does_not_know(head_cfg):
    head = MODELS.build(head_cfg)
    with pytest.raises(KeyError, match='zebra'):
        head.set_vocabulary(['zebra'])
