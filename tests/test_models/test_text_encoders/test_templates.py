# Licensed under the Apache License, Version 2.0.
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mmdet_clim.datasets import Vocabulary
from mmdet_clim.models.text_encoders import (
    BaseTextEncoder,
    encode_classes,
    resolve_templates,
)
from mmdet_clim.models.text_encoders.prompts import fill_template

# Nouns of ViLD's prompts that come in pairs, with "a" and with "the".
PAIRS = ('nice', 'cool', 'weird', 'small', 'large', 'clean', 'dirty',
         'hard to see')
QUALITIES = ('good', 'bad', 'bright', 'dark', 'low resolution', 'cropped',
             'close-up', 'jpeg corrupted', 'blurry', 'pixelated',
             'black and white')


class HashEncoder(BaseTextEncoder):
    """A vector by each text's letters, and the texts that it was asked."""

    is_slow = False

    def __init__(self):
        super().__init__(nn.Linear(4, 4))
        self.asked = []

    @property
    def dim(self):
        return 4

    def _encode(self, texts):
        self.asked += texts
        return torch.tensor([[len(t),
                              t.count('a'),
                              t.count('e'),
                              ord(t[-2])] for t in texts]).float()


def vild_texts(article, name):
    """The 63 texts, put together another way than from the list."""
    texts = [
        f'There is {article} {name} in the scene.',
        f'There is the {name} in the scene.'
    ]
    texts += [
        f'This is a photo of {word} {name} in the scene.'
        for word in (article, 'the', 'one')
    ]
    texts += [f'itap of {word} {name}.' for word in (article, 'my', 'the')]
    texts += [
        f'This is a photo of {word} {name}.'
        for word in (article, 'my', 'the', 'one', 'many')
    ]
    texts += [
        f'This is a {quality} photo of {word} {name}.' for quality in QUALITIES
        for word in (article, 'the')
    ]
    texts += [
        f'This is a photo of {word} {kind} {name}.' for kind in PAIRS
        for word in ('a', 'the')
    ]
    texts += [
        f'This is {word} {kind} {name}.' for word in ('a', 'the')
        for kind in ('plastic', 'toy', 'plushie', 'cartoon')
    ]
    texts += [
        f'This is an embroidered {name}.', f'This is the embroidered {name}.'
    ]
    return texts + [
        f'This is a painting of {word} {name}.' for word in ('a', 'the')
    ]


@pytest.mark.parametrize('article, name', [('a', 'cat'), ('an', 'umbrella'),
                                           ('an', 'orange'), ('a', 'hot dog'),
                                           ('an', 'iPod'), ('an', 'Apple'),
                                           ('a', 'Band Aid'),
                                           ('a', '{article} {}')])
def test_texts_of_vild(article, name):
    texts = [fill_template(t, name) for t in resolve_templates('vild')]
    assert len(texts) == len(set(texts)) == 63
    assert sorted(texts) == sorted(vild_texts(article, name))
    assert texts[0] == f'There is {article} {name} in the scene.'
    assert texts[-1] == f'This is a painting of a {name}.'


def test_embedding_of_a_named_set():
    """The mean of unit vectors, normalised again; kept by what is in it."""
    encoder = HashEncoder()
    names = ['cat', 'umbrella']
    embeddings = encode_classes(encoder, names, 'vild')
    assert sorted(encoder.asked[:63]) == sorted(vild_texts('a', 'cat'))
    vectors = encoder(vild_texts('an', 'umbrella'))
    torch.testing.assert_close(embeddings[1],
                               F.normalize(vectors.mean(0), dim=0))
    (_, templates), = encoder.vocabularies
    assert templates == resolve_templates('vild')
    encode_classes(encoder, names, list(templates))
    assert len(encoder.vocabularies) == 1


def test_imagenet_templates():
    templates = resolve_templates('imagenet')
    assert len(templates) == len(set(templates)) == 80
    assert 'a photo of a {}.' in templates
    assert all(t.count('{}') == 1 for t in templates)


def test_prompts_of_raw_names():
    """As LVIS has them; the names in use where there are no others."""
    encoder = HashEncoder()
    raw = ('bat_(animal)', 'cow', 'monitor_(equipment) computer_monitor')
    names = ('bat (animal)', 'cow', 'monitor')
    classes = Vocabulary(names, names, raw_names=raw)
    encode_classes(encoder, classes, ('a {raw}', '{article} {raw}.'))
    assert encoder.asked[:2] == ['a bat_(animal)', 'a bat_(animal).']
    assert encoder.asked[4] == 'a monitor_(equipment) computer_monitor'
    encode_classes(encoder, classes, ('a {}', ))
    assert {'a bat (animal)', 'a monitor'} < set(encoder.asked)
    encode_classes(encoder, ['old owl'], ('the {raw}', ))
    assert encoder.asked[-1] == 'the old owl'
    with pytest.raises(ValueError, match='in all or {raw} in all'):
        resolve_templates(['a {}', 'a {raw}'])
    with pytest.raises(ValueError, match='exactly once'):
        resolve_templates(['{} {raw}'])
    with pytest.raises(ValueError, match='one raw name per class, got 1'):
        Vocabulary(names, names, raw_names=raw[:1])


def test_own_templates():
    assert resolve_templates(['{}']) == ('{}', )
    assert fill_template('{}', 'a cat') == 'a cat'
    assert fill_template('{article} {}', 'owl') == 'an owl'
