# Licensed under the Apache License, Version 2.0.
import math

import open_clip
import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode

import mmdet_clim  # noqa: F401  (first: open_clip needs what it prepares)
from mmdet_clim.models.losses import CLIMRegionLoss
from mmdet_clim.registry import MODELS

KINDS = ('bce', 'infonce', 'sigmoid', 'softmax')
BIAS = dict(bce=-2.0, infonce=None, sigmoid=-1.0, softmax=None)


def plain_loss(kind,
               regions,
               texts,
               targets,
               temperature,
               bias=None,
               negative_weight=1.0,
               positive_reduction='mean'):
    """Each loss row by row, as its equation reads."""
    cosines = F.normalize(regions, dim=1) @ F.normalize(texts, dim=1).T
    logits = temperature * cosines + (0 if bias is None else bias)
    if kind == 'infonce':
        directions = []
        for z, p in ((logits, targets), (logits.T, targets.T)):
            rows = [
                -(z_row.log_softmax(0)[p_row]).mean()
                for z_row, p_row in zip(z, p) if p_row.any()
            ]
            directions.append(torch.stack(rows).mean())
        return sum(directions) / 2
    if kind == 'softmax':
        return sum(
            F.cross_entropy(z[None], (p / p.sum())[None])
            for z, p in zip(logits, targets.float()) if p.any()) / len(regions)
    if kind == 'sigmoid':
        negative_weight, positive_reduction = 1.0, 'sum'
    total = 0
    for z_row, p_row in zip(logits, targets):
        positive = -torch.log(torch.sigmoid(z_row[p_row]))
        if positive_reduction == 'mean' and p_row.any():
            positive = positive / p_row.sum()
        negative = -torch.log(torch.sigmoid(-z_row[~p_row]))
        total = total + positive.sum() + negative_weight * negative.sum()
    return total / len(regions)


def make_batch(num_regions=7, num_texts=9, dtype=torch.float32):
    torch.manual_seed(0)
    regions = torch.randn(num_regions, 5, dtype=dtype) * 3
    texts = torch.randn(num_texts, 5, dtype=dtype)
    targets = torch.rand(num_regions, num_texts) > 0.7
    # A region and a text that match nothing, and one that matches all.
    targets[0] = False
    targets[:, 0] = False
    targets[1, 1:] = True
    return regions.requires_grad_(), texts.requires_grad_(), targets


def test_bce_by_hand():
    loss = CLIMRegionLoss(kind='bce', temperature=2.0)
    value = loss(
        torch.tensor([[3.0, 0.0], [0.0, 0.1]]), torch.eye(2),
        torch.eye(2, dtype=torch.bool))
    # Each row: softplus(-2) + softplus(0).
    assert value.item() == pytest.approx(0.126928 + 0.693147, abs=1e-5)


def test_bce_weights_by_hand():
    loss = CLIMRegionLoss(
        kind='bce', temperature=1.0, negative_weight=0.125, loss_weight=10)
    value = loss(
        torch.tensor([[1.0, 0.0]]),
        torch.tensor([[2.0, 0.0], [0.0, 2.0], [-1.0, 0.0]]),
        torch.tensor([[True, True, False]]))
    positives = (math.log1p(math.exp(-1)) + math.log(2)) / 2
    negative = math.log1p(math.exp(-1)) / 8
    assert value.item() == pytest.approx(10 * (positives + negative), rel=1e-5)


def test_infonce_by_hand():
    loss = CLIMRegionLoss(kind='infonce', temperature=math.log(3))
    # Logits [[ln 3, 0]]: the row's softmax is (3/4, 1/4); of the columns
    # only the first has a positive, and one row alone has probability 1.
    value = loss(
        torch.tensor([[1.0, 0.0]]), torch.eye(2), torch.tensor([[True,
                                                                 False]]))
    assert value.item() == pytest.approx(math.log(4 / 3) / 2, rel=1e-5)


@pytest.mark.parametrize('chunk_size', [None, 1, 3, 100])
@pytest.mark.parametrize('kind', KINDS)
def test_value_and_gradients_equal_the_plain_formula(kind, chunk_size):
    options = {}
    if kind == 'bce':
        options = dict(negative_weight=0.125)
    loss = CLIMRegionLoss(
        kind,
        temperature=8.0,
        bias=BIAS[kind],
        learn_temperature=True,
        chunk_size=chunk_size,
        **options)
    regions, texts, targets = make_batch()
    value = loss(regions, texts, targets)
    leaves = [regions, texts, *loss.parameters()]
    grads = torch.autograd.grad(2 * value, leaves)

    log_temperature = torch.tensor(8.0).log().requires_grad_()
    others = [regions, texts, log_temperature]
    bias = None
    if BIAS[kind] is not None:
        bias = torch.tensor(BIAS[kind], requires_grad=True)
        others.append(bias)
    expected = plain_loss(kind, regions, texts, targets, log_temperature.exp(),
                          bias, **options)
    expected_grads = torch.autograd.grad(2 * expected, others)
    torch.testing.assert_close(value, expected)
    named = dict(
        zip(['regions', 'texts', *dict(loss.named_parameters())], grads))
    names = ['regions', 'texts', 'log_temperature', 'bias']
    for name, grad in zip(names, expected_grads):
        torch.testing.assert_close(named[name], grad, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize('chunk_size', [None, 2])
def test_the_mean_over_all_rows_and_columns(chunk_size):
    regions, texts, targets = make_batch()
    targets[2], targets[:, 5] = False, False
    logits = 3 * F.normalize(regions, dim=1) @ F.normalize(texts, dim=1).T
    of_rows, of_columns = ([
        -z.log_softmax(0)[p].mean() for z, p in zip(of, own) if p.any()
    ] for of, own in ((logits, targets), (logits.T, targets.T)))
    assert len(of_rows) < 7 and len(of_columns) < 9
    expected = (sum(of_rows) / 7 + sum(of_columns) / 9) / 2
    loss = CLIMRegionLoss(
        kind='infonce', temperature=3.0, chunk_size=chunk_size)
    found = loss(regions, texts, targets, mean_over_all=True)
    torch.testing.assert_close(found, expected)
    for own, plain in zip(
            torch.autograd.grad(found, [regions, texts]),
            torch.autograd.grad(expected, [regions, texts])):
        torch.testing.assert_close(own, plain, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize('kind', KINDS)
def test_gradcheck(kind):
    loss = CLIMRegionLoss(
        kind, 5.0, BIAS[kind], learn_temperature=True, chunk_size=3).double()
    regions, texts, targets = make_batch(dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda r, t, *p: loss(r, t, targets),
                                    (regions, texts, *loss.parameters()))


def test_one_pair_per_row_equals_the_losses_of_open_clip():
    regions, texts, _ = make_batch(6, 6)
    units = F.normalize(regions, dim=1), F.normalize(texts, dim=1)
    targets = torch.eye(6, dtype=torch.bool)
    torch.testing.assert_close(
        CLIMRegionLoss('infonce', 20.0)(regions, texts, targets),
        open_clip.ClipLoss()(*units, torch.tensor(20.0)))
    torch.testing.assert_close(
        CLIMRegionLoss('sigmoid', 10.0, bias=-10.0)(regions, texts, targets),
        open_clip.loss.SigLipLoss()(*units, torch.tensor(10.0),
                                    torch.tensor(-10.0)))


@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('shape', [(0, 3), (3, 0), (0, 0)])
def test_empty_is_a_connected_zero(kind, shape):
    loss = CLIMRegionLoss(kind, bias=BIAS[kind], learn_temperature=True)
    regions = torch.ones(shape[0], 4, requires_grad=True)
    texts = torch.ones(shape[1], 4, requires_grad=True)
    value = loss(regions, texts, torch.zeros(shape, dtype=torch.bool))
    assert value.item() == 0
    value.backward()
    for leaf in (regions, texts, *loss.parameters()):
        assert leaf.grad is not None and not leaf.grad.any()


def test_infonce_without_any_positive_is_zero():
    regions, texts, targets = make_batch()
    value = CLIMRegionLoss('infonce')(regions, texts,
                                      torch.zeros_like(targets))
    value.backward()
    assert value.item() == 0
    assert not regions.grad.any() and not texts.grad.any()


@pytest.mark.parametrize('kind', KINDS)
def test_zero_tiny_and_huge_vectors(kind):
    loss = CLIMRegionLoss(kind, 5.0)
    regions, texts, targets = make_batch()
    expected = loss(regions, texts, targets)
    scales = torch.tensor([[1e-30], [1e30], [1.], [1e-3], [1e3], [1.], [7.]])
    torch.testing.assert_close(
        loss(regions.detach() * scales, texts, targets), expected)

    with torch.no_grad():
        regions[2] = 0
        texts[3] = 0
    loss(regions, texts, targets).backward()
    for grad in (regions.grad, texts.grad):
        assert grad.isfinite().all() and grad.abs().max() < 10


@pytest.mark.parametrize('value', [math.nan, math.inf])
@pytest.mark.parametrize('kind', KINDS)
def test_a_value_that_is_not_finite_is_not_hidden(kind, value):
    for side in (0, 1):
        batch = make_batch()
        with torch.no_grad():
            batch[side][2, 3] = value
        assert CLIMRegionLoss(kind)(*batch).isnan()


@pytest.mark.parametrize('kind', KINDS)
def test_float32_inside_autocast(kind):
    loss = CLIMRegionLoss(kind, bias=BIAS[kind])
    regions, texts, targets = make_batch()
    with torch.autocast('cpu', dtype=torch.bfloat16):
        value = loss(regions, texts, targets)
        value.backward()
    assert value.dtype == torch.float32
    assert value.item() == loss(regions, texts, targets).item()
    half = loss(regions.bfloat16(), texts.bfloat16(), targets)
    assert half.dtype == torch.float32
    assert half.item() == loss(regions.bfloat16().float(),
                               texts.bfloat16().float(), targets).item()


@pytest.mark.parametrize('kind', KINDS)
def test_divisor_and_weight(kind):
    regions, texts, targets = make_batch()
    # Every row and column has a positive: the number divides both ways.
    targets = torch.eye(7, 9, dtype=torch.bool)
    targets[0, 7:] = True
    one = CLIMRegionLoss(kind)(regions, texts, targets, avg_factor=1)
    weighed = CLIMRegionLoss(kind, loss_weight=0.5)
    torch.testing.assert_close(
        weighed(regions, texts, targets, avg_factor=4), one / 8)
    torch.testing.assert_close(
        weighed(regions, texts, targets, avg_factor=torch.tensor(4.0)),
        one / 8)
    if kind != 'infonce':
        torch.testing.assert_close(weighed(regions, texts, targets), one / 14)


def test_sum_over_positives():
    regions, texts, targets = make_batch()
    torch.testing.assert_close(
        CLIMRegionLoss(positive_reduction='sum',
                       temperature=3.0)(regions, texts, targets),
        plain_loss(
            'bce', regions, texts, targets, 3.0, positive_reduction='sum'))


def test_learned_temperature_stays_at_or_under_100():
    loss = CLIMRegionLoss('infonce', 100.0, learn_temperature=True)
    with torch.no_grad():
        loss.log_temperature += 1
    assert loss.temperature == 100
    loss(*make_batch()).backward()
    assert loss.log_temperature.item() == pytest.approx(math.log(100))
    assert loss.log_temperature.grad.abs() > 0


def test_siglips_learned_temperature_has_no_limit():
    """That of the published SigLIP ViT-B/16 is 117."""
    loss = CLIMRegionLoss('sigmoid', 117.0, bias=-13., learn_temperature=True)
    regions, texts, targets = make_batch()
    cosines = F.normalize(regions, dim=1) @ F.normalize(texts, dim=1).t()
    expected = F.binary_cross_entropy_with_logits(
        117. * cosines - 13., targets.float(), reduction='sum') / len(regions)
    torch.testing.assert_close(loss(regions, texts, targets), expected)
    assert loss.temperature == pytest.approx(117)


def test_what_is_learned():
    config = dict(type='mmdet_clim.CLIMRegionLoss', bias=-20.0)
    assert list(MODELS.build(config).state_dict()) == ['bias']
    fixed = CLIMRegionLoss(bias=-20.0, learn_bias=False)
    assert not fixed.state_dict()
    learned = CLIMRegionLoss(learn_temperature=True)
    assert list(learned.state_dict()) == ['log_temperature']
    batch = make_batch()
    torch.testing.assert_close(
        fixed(*batch), plain_loss('bce', *batch, 25.0, -20.0))


@pytest.mark.parametrize('kind', KINDS)
def test_without_gradient(kind):
    loss = CLIMRegionLoss(kind, bias=BIAS[kind], chunk_size=2)
    batch = make_batch()
    with torch.no_grad():
        value = loss(*batch)
    assert not value.requires_grad
    torch.testing.assert_close(value, loss(*batch).detach())


class LargestTensor(TorchDispatchMode):
    """The most elements of a floating-point tensor made inside."""

    largest = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if isinstance(out, torch.Tensor) and out.is_floating_point():
            self.largest = max(self.largest, out.numel())
        return out


@pytest.mark.parametrize('kind', KINDS)
def test_no_whole_matrix_with_chunks(kind):
    regions, texts, targets = make_batch(120, 110)
    with LargestTensor() as made:
        CLIMRegionLoss(kind, chunk_size=10)(regions, texts, targets).backward()
    assert made.largest == 10 * 110


@pytest.mark.parametrize('arguments, message', [
    (dict(kind='clip'), 'kind: expected one of'),
    (dict(temperature=0.0), 'temperature: expected a positive'),
    (dict(temperature=math.inf), 'temperature: expected a positive'),
    (dict(temperature=101.0, learn_temperature=True), 'to be learned'),
    (dict(temperature='25'), "temperature: expected a positive .* '25'"),
    (dict(temperature=None), 'temperature: expected a positive .* None'),
    (dict(chunk_size=[4]), r'chunk_size: expected .* got \[4\]'),
    (dict(bias=math.nan), 'bias: expected a finite number, got nan'),
    (dict(bias='-10'), "bias: expected a finite number, got '-10'"),
    (dict(kind='infonce', bias=-10.0), 'bias has no effect'),
    (dict(kind='softmax', bias=-10.0), "no effect on kind='softmax'"),
    (dict(negative_weight=-1.0), 'negative_weight: expected at least 0'),
    (dict(kind='sigmoid', negative_weight=0.5), 'negative_weight is for'),
    (dict(positive_reduction='max'), 'positive_reduction: expected one of'),
    (dict(kind='softmax', positive_reduction='sum'), "'mean' for 'softmax'"),
    (dict(kind='infonce', positive_reduction='sum'), "'mean' for 'infonce'"),
    (dict(chunk_size=0), 'chunk_size: expected at least 1'),
])
def test_wrong_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        CLIMRegionLoss(**arguments)


@pytest.mark.parametrize('regions, texts, targets, error, message', [
    ((2, 4), (3, 4), torch.zeros(2, 2).bool(), ValueError,
     r'\(regions, texts\) = \(2, 3\), got \(2, 2\)'),
    ((2, 4), (3, 4), torch.zeros(3, 3).bool(), ValueError, 'targets must'),
    ((2, 4), (3, 5), torch.zeros(2, 3).bool(), ValueError, 'one width'),
    ((2, ), (3, 4), torch.zeros(2, 3).bool(), ValueError, 'regions must'),
    ((2, 4), (3, 4), torch.zeros(2, 3), TypeError, 'targets must be bool'),
])
def test_wrong_inputs(regions, texts, targets, error, message):
    with pytest.raises(error, match=message):
        CLIMRegionLoss()(torch.ones(regions), torch.ones(texts), targets)


def test_wrong_dtype_and_divisor():
    regions, texts, targets = make_batch()
    with pytest.raises(TypeError, match='regions must be floating point'):
        CLIMRegionLoss()(torch.ones(7, 5).long(), texts, targets)
    with pytest.raises(ValueError, match='avg_factor must be positive'):
        CLIMRegionLoss()(regions, texts, targets, avg_factor=0)


@pytest.mark.parametrize('chunk_size', [None, 2])
def test_silent_pairs_are_not_compared(chunk_size):
    regions, texts, targets = make_batch(dtype=torch.float64)
    silent = torch.rand(targets.shape) < .4
    loss = CLIMRegionLoss(
        temperature=5.,
        bias=-2.,
        chunk_size=chunk_size,
        positive_reduction='sum')
    regions.requires_grad_()
    value = loss(regions, texts, targets, silent=silent)
    grad, = torch.autograd.grad(value, regions)
    logits = loss.logits(regions, texts)
    torch.testing.assert_close(
        logits,
        5 * F.normalize(regions, dim=1) @ F.normalize(texts, dim=1).T - 2)
    terms = F.binary_cross_entropy_with_logits(
        logits, targets.double(), reduction='none')
    expected = terms[~silent].sum() / len(regions)
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(grad, torch.autograd.grad(expected, regions)[0])


@pytest.mark.parametrize('chunk_size', [None, 2])
def test_silent_texts_are_no_choice_of_the_softmax(chunk_size):
    regions, texts, targets = make_batch(dtype=torch.float64)
    silent = torch.rand(targets.shape) < .4
    # All of a row, and its only text: neither has a term.
    silent[2], targets[3] = True, False
    targets[3, 4] = silent[3, 4] = True
    loss = CLIMRegionLoss('softmax', temperature=5., chunk_size=chunk_size)
    value = loss(regions, texts, targets, silent=silent)
    expected = 0
    for region, own, dumb in zip(regions, targets, silent):
        z = 5 * F.cosine_similarity(region[None], texts[~dumb])
        if own[~dumb].any():
            expected = expected - z.log_softmax(0)[own[~dumb]].mean()
    torch.testing.assert_close(value, expected / len(regions))
    torch.testing.assert_close(*(torch.autograd.grad(of, [regions, texts])
                                 for of in (value, expected / len(regions))))


@pytest.mark.parametrize('kind', KINDS)
def test_how_likely_each_text_is(kind):
    regions, texts, _ = make_batch()
    loss = CLIMRegionLoss(kind, temperature=5., bias=BIAS[kind])
    cosines = F.normalize(regions, dim=1) @ F.normalize(texts, dim=1).T
    expected = 1 / (1 + (-5 * cosines - (BIAS[kind] or 0)).exp())
    if kind in ('infonce', 'softmax'):
        powers = (5 * cosines).exp()
        expected = powers / powers.sum(1, keepdim=True)
    torch.testing.assert_close(
        loss.log_probabilities(regions, texts).exp(), expected)


def test_what_can_not_be_silent():
    regions, texts, targets = make_batch()
    with pytest.raises(ValueError, match="kind='infonce'"):
        CLIMRegionLoss('infonce')(regions, texts, targets, silent=targets)
    for wrong in (targets.float(), targets[1:]):
        with pytest.raises(ValueError, match='silent: expected bool'):
            CLIMRegionLoss()(regions, texts, targets, silent=wrong)
