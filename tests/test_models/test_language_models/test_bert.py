# Licensed under the Apache License, Version 2.0.
"""Prompts through a real, small BERT, against transformers alone."""
import pytest
import torch
from mmengine.registry import MODELS
from transformers import AutoTokenizer, BertModel

import mmdet_clim  # noqa: F401
from mmdet_clim.models.text_encoders import base

GROUNDING = dict(
    pad_to_max=False,
    use_sub_sentence_represent=True,
    special_tokens_list=['[CLS]', '[SEP]', '.', '?'])


def test_sentences_do_not_see_each_other(small_bert):
    model = MODELS.build(
        dict(
            type='mmdet_clim.BertLanguageModel', name=small_bert,
            **GROUNDING)).eval()
    both = model(['two dogs. a cat on grass. ', 'a bus. '])
    assert both['embedded'].shape == (2, 10, 16)
    assert both['masks'].shape == (2, 10, 10)
    assert both['text_token_mask'].sum(1).tolist() == [10, 5]
    # [CLS] two dogs . a cat on grass . [SEP]
    alone = model(['a cat on grass. '])
    torch.testing.assert_close(both['embedded'][0, 4:9],
                               alone['embedded'][0, 1:6])


def test_one_sentence_is_that_of_transformers(small_bert):
    """With the mask written as a bias of each score, head by head."""
    model = MODELS.build(
        dict(
            type='mmdet_clim.BertLanguageModel', name=small_bert,
            **GROUNDING)).eval()
    found = model(['a cat. '])
    reference = BertModel.from_pretrained(
        small_bert, attn_implementation='eager').eval()
    tokens = AutoTokenizer.from_pretrained(small_bert)(
        'a cat.', return_tensors='pt')
    # [CLS] alone, "a cat ." together, [SEP] alone.
    allowed = torch.block_diag(
        torch.ones(1, 1), torch.ones(3, 3), torch.ones(1, 1)).bool()
    bias = torch.zeros(1, 1, 5, 5).masked_fill(~allowed, -1e9)
    expected = reference(
        input_ids=tokens['input_ids'],
        attention_mask=bias,
        position_ids=torch.tensor([[0, 0, 1, 2, 0]])).last_hidden_state
    torch.testing.assert_close(
        found['embedded'], expected, rtol=1e-4, atol=1e-5)


def test_glips_prompts_are_padded(small_bert):
    """mmdet's own name of it, as its configs write it."""
    model = MODELS.build(
        dict(type='mmdet.BertModel', name=small_bert, max_tokens=12)).eval()
    out = model(['a cat'])
    assert out['embedded'].shape == (1, 12, 16)
    assert (out['embedded'][0, 4:] == 0).all()
    reference = BertModel.from_pretrained(small_bert).eval()
    tokens = AutoTokenizer.from_pretrained(small_bert)(
        'a cat', return_tensors='pt')
    torch.testing.assert_close(
        out['embedded'][0, :4],
        reference(**tokens).last_hidden_state[0],
        rtol=1e-4,
        atol=1e-5)


@pytest.mark.parametrize('frozen', [False, True])
def test_frozen_or_not(small_bert, frozen):
    model = MODELS.build(
        dict(
            type='mmdet_clim.BertLanguageModel',
            name=small_bert,
            frozen=frozen,
            **GROUNDING)).train()
    assert model.language_backbone.training != frozen
    assert model(['a cat. '])['embedded'].requires_grad != frozen
    assert any(p.requires_grad for p in model.parameters()) != frozen


def test_prompts_that_are_not_read_whole(small_bert, monkeypatch):
    monkeypatch.setattr(base, '_REPORTED', set())
    warnings = []
    monkeypatch.setattr(base, 'print_log',
                        lambda message, *_: warnings.append(message))
    model = MODELS.build(
        dict(
            type='mmdet_clim.BertLanguageModel',
            name=small_bert,
            max_tokens=16,
            **GROUNDING)).eval()
    # 14 tokens and the two of start and end.
    model(['a cat. ', 'cat ' * 14])
    assert not warnings and model.num_truncated == model.num_unknown == 0
    for _ in range(2):
        model(['滑板. a cat. ', 'cat ' * 15])
    assert model.num_truncated == model.num_unknown == 1
    assert len(warnings) == 2
    assert '滑板' in warnings[0] and 'limit of 16' in warnings[1]
