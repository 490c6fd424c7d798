# Licensed under the Apache License, Version 2.0.
"""Classes of several phrases, scored by the best of them."""
import copy

import pytest
import torch
import torch.nn.functional as F

from mmdet_clim.apis.vocabulary import set_vocabulary
from mmdet_clim.datasets.preparation.own_captions import own_classes
from mmdet_clim.datasets.vocabulary import Vocabulary, build_vocabulary
from mmdet_clim.models.class_texts import ClassTexts
from mmdet_clim.models.text_encoders import PrecomputedTextEncoder
from mmdet_clim.registry import MODELS

SIGNALS = ['cat', 'dog | cow|  bus', 'cup']


@pytest.fixture
def classifier(text_encoder_cfg):
    torch.manual_seed(0)
    return MODELS.build(
        dict(
            type='mmdet_clim.ZeroShotClassifier',
            in_features=6,
            vocabulary=SIGNALS,
            text_encoder=text_encoder_cfg,
            templates=('{}', )))


def test_a_vocabulary_of_phrases(tmp_path):
    words = build_vocabulary(SIGNALS)
    assert words.names == ('cat', 'dog', 'cup') and len(words) == 3
    assert words.phrases == (('cat', ), ('dog', 'cow', 'bus'), ('cup', ))
    assert words.texts == ('cat', 'dog', 'cow', 'bus', 'cup')
    assert words.class_of_text == (0, 1, 1, 1, 2)
    file = tmp_path / 'names.txt'
    file.write_text('cat\n# a remark\ntraffic light | stop light | signal\n')
    read = build_vocabulary(file)
    assert read.names == ('cat', 'traffic light')
    assert read.phrases[1] == ('traffic light', 'stop light', 'signal')
    # One line is a list of names, as with commas.
    file.write_text('traffic light | signal')
    assert build_vocabulary(file).names == ('traffic light', 'signal')
    # A list of one class is no such line.
    alone = build_vocabulary(['traffic light | signal'])
    assert alone.phrases == (('traffic light', 'signal'), )
    with pytest.raises(ValueError, match='is several names'):
        build_vocabulary(['traffic light | stop, signal'])
    split = build_vocabulary(
        dict(names=SIGNALS, base_names=['dog | cow|  bus']))
    assert split.base_names == ('dog', )
    assert split.is_base == (False, True, False)
    assert words.subset([1]).phrases == (('dog', 'cow', 'bus'), )
    plain = build_vocabulary(['cat', 'dog'])
    assert plain.phrases is None and plain.texts == plain.names
    assert plain.class_of_text == (0, 1)


@pytest.mark.parametrize('names, message', [
    (['cat', 'dog | '], r"'dog \|'.*expected phrases .*an empty one"),
    (['cat', 'dog | cat'], 'class names must differ'),
    (['cat', 'dog | Dog'], 'class names must differ'),
])
def test_phrases_that_are_none(names, message):
    with pytest.raises(ValueError, match=message):
        build_vocabulary(names)


def test_phrases_begin_with_the_name():
    with pytest.raises(ValueError, match='its name first'):
        Vocabulary(('cat', ), ('cat', ), phrases=(('dog', 'cat'), ))


def test_captions_are_searched_for_all_phrases():
    classes = own_classes(build_vocabulary(SIGNALS), dict(dog=['hound']))
    assert classes.find(['two cows.']) == [1]
    assert classes.find(['a hound and a cup']) == [1, 2]


def test_the_best_phrase_counts(classifier, texts_file):
    encoder = PrecomputedTextEncoder(texts_file)
    vectors = encoder(['cat', 'dog', 'cow', 'bus', 'cup'])
    embeddings = torch.randn(7, vectors.shape[1], requires_grad=True)
    logits = classifier.score(embeddings)
    cosine = F.normalize(embeddings, dim=1) @ vectors.t()
    wanted = torch.stack(
        [cosine[:, 0], cosine[:, 1:4].max(1).values, cosine[:, 4]], 1)
    torch.testing.assert_close(logits, 25 * wanted - 20)
    logits.sum().backward()
    assert classifier.score(embeddings[:0]).shape == (0, 3)
    # What asks for one vector of a class gets the mean.
    torch.testing.assert_close(classifier.class_embeddings[1],
                               F.normalize(vectors[1:4].sum(0), dim=0))
    # And back to one name each.
    classifier.set_vocabulary(['bus', 'cow'])
    torch.testing.assert_close(
        classifier.score(embeddings), 25 * cosine[:, [3, 2]] - 20)


def test_embeddings_of_all_phrases_are_needed(text_encoder_cfg):
    texts = ClassTexts(SIGNALS, ('{}', ))
    with pytest.raises(ValueError, match=r'expected shape \(5, D\)'):
        texts.set_vocabulary(SIGNALS, torch.randn(3, 4))
    texts.set_vocabulary(SIGNALS, torch.eye(5))
    torch.testing.assert_close(
        texts.cosines(torch.eye(5)),
        torch.tensor([[1., 0, 0], [0, 1, 0], [0, 1, 0], [0, 1, 0], [0, 0, 1]]))


def test_a_detector_of_phrases(detector_cfg):
    """One box of an object, whichever phrase fits it."""
    torch.manual_seed(0)
    detector = MODELS.build(copy.deepcopy(detector_cfg)).eval()
    set_vocabulary(detector, SIGNALS)
    head = detector.roi_head.bbox_head
    assert head.num_classes == 3
    assert head.vocabulary.names == ('cat', 'dog', 'cup')
    features = torch.randn(4, 16, 4, 4)
    scores, _ = head(features)
    each = copy.deepcopy(head)
    each.set_vocabulary(['cat', 'dog', 'cow', 'bus', 'cup'])
    single, _ = each(features)
    torch.testing.assert_close(scores[:, 1], single[:, 1:4].max(1).values)
    torch.testing.assert_close(scores[:, [0, 2]], single[:, [0, 4]])


def test_a_background_beside_phrases(text_encoder_cfg):
    torch.manual_seed(0)
    classifier = MODELS.build(
        dict(
            type='mmdet_clim.SoftmaxZeroShotClassifier',
            in_features=6,
            vocabulary=SIGNALS,
            text_encoder=text_encoder_cfg,
            templates=('{}', )))
    background = F.normalize(classifier.background, dim=0)
    vectors = F.normalize(torch.randn(3, len(background)), dim=1)
    found = classifier.all_cosines(vectors)
    torch.testing.assert_close(found[:, 3], vectors @ background)
    texts = classifier.class_texts.text_embeddings
    torch.testing.assert_close(found[:, 1],
                               (vectors @ texts[1:4].t()).max(1).values)
