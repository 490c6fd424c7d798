# Licensed under the Apache License, Version 2.0.
"""The contrastive loss between regions and texts."""
import math
from typing import Iterator, NamedTuple, cast

import torch
import torch.nn.functional as F
from mmengine.dist import get_rank, get_world_size
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from mmdet_clim.checks import (
    check_choice,
    check_finite,
    check_positive,
    check_range,
)
from mmdet_clim.registry import MODELS

from .gather import exchange_counts, gather_rows, reduce_over_ranks

KINDS = ('bce', 'infonce', 'sigmoid', 'softmax')
# CLIP and CLIM's refinement of CLIP clamp the logit scale here.
MAX_LEARNED_TEMPERATURE = 100.0


def max_learned_temperature(kind: str) -> float:
    """Where a learned temperature of a kind of loss is clamped."""
    return math.inf if kind == 'sigmoid' else MAX_LEARNED_TEMPERATURE


class _Pairs(NamedTuple):
    """What :class:`_PairLoss` needs beside the tensors with gradient."""

    kind: str
    targets: Tensor  # (R, T) bool
    positive_reduction: str
    negative_weight: float
    row_divisor: Tensor | None  # None: the rows that have a term
    mean_over_all: bool  # for 'infonce', also over those without a positive
    chunk_size: int
    gather: bool
    with_gradient: bool
    silent: Tensor | None = None  # (R, T) bool, not compared


#: Rows, their share of the loss, and the gradient to their logits, if wanted.
_Chunk = tuple[slice, Tensor, Tensor | None]


class _PairLoss(Function):
    """Value of the loss, and its gradients, from one chunk of rows at a time.

    The gradients are worked out in the forward pass, so the (R, T) logits are
    never whole unless one chunk holds all rows. Under ``gather`` the rows are
    this rank's and the texts everybody's; the value is that of the joined
    batch, and the gradients are ``world size`` times this rank's share of
    the joined gradient: what DDP's averaging turns into the joined one.

    With ``logits = temperature * regions @ texts.T + bias`` and ``G`` the
    gradient of the loss to the logits, they are ``temperature * G @ texts``,
    ``temperature * G.T @ regions``, ``sum(G * regions @ texts.T)`` and
    ``sum(G)``.
    """

    @staticmethod
    def forward(ctx, regions: Tensor, texts: Tensor, temperature: Tensor,
                bias: Tensor | None, pairs: _Pairs) -> Tensor:
        if pairs.kind == 'infonce':
            chunks = _infonce(regions, texts, temperature, pairs)
        elif pairs.kind == 'softmax':
            chunks = _softmax(regions, texts, temperature, pairs)
        else:
            chunks = _bce(regions, texts, temperature, bias, pairs)
        value = torch.zeros_like(temperature, dtype=torch.float64)
        to_regions, to_texts, to_temperature = map(
            torch.zeros_like, (regions, texts, temperature))
        to_bias = None if bias is None else torch.zeros_like(bias)
        for rows, of_rows, to_logits in chunks:
            value += of_rows
            if to_logits is not None:
                mixed = to_logits @ texts
                to_temperature += (mixed * regions[rows]).sum()
                to_regions[rows] = mixed.mul_(temperature)
                to_texts.addmm_(to_logits.t(), regions[rows] * temperature)
                if to_bias is not None:
                    to_bias += to_logits.sum()
        ctx.factor = get_world_size() if pairs.gather else 1
        ctx.save_for_backward(to_regions, to_texts, to_temperature, to_bias)
        value = value.to(temperature.dtype)
        return reduce_over_ranks(value) if pairs.gather else value

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor):
        grad = grad * ctx.factor
        saved = zip(ctx.saved_tensors, ctx.needs_input_grad)
        return (*(to * grad if needed else None for to, needed in saved), None)


def _row_slices(pairs: _Pairs) -> list[slice]:
    starts = range(0, len(pairs.targets), pairs.chunk_size)
    return [slice(start, start + pairs.chunk_size) for start in starts]


def _bce(regions: Tensor, texts: Tensor, temperature: Tensor,
         bias: Tensor | None, pairs: _Pairs) -> Iterator[_Chunk]:
    divisor = cast(Tensor, pairs.row_divisor)
    for rows in _row_slices(pairs):
        targets = pairs.targets[rows]
        # softplus(-logit) for a positive, softplus(logit) for a negative
        logits = (regions[rows] * temperature) @ texts.t()
        if bias is not None:
            logits += bias
        logits = torch.where(targets, -logits, logits)
        positive = -1 / divisor
        if pairs.positive_reduction == 'mean':
            count = targets.sum(1, keepdim=True).clamp_(min=1)
            positive = positive / count
        weights = torch.where(targets, positive.to(logits),
                              (pairs.negative_weight / divisor).to(logits))
        if pairs.silent is not None:
            weights = weights.masked_fill(pairs.silent[rows], 0)
        value = F.softplus(logits).mul_(weights.abs()).sum()
        yield rows, value, logits.sigmoid_().mul_(
            weights) if pairs.with_gradient else None


def _softmax(regions: Tensor, texts: Tensor, temperature: Tensor,
             pairs: _Pairs) -> Iterator[_Chunk]:
    divisor = cast(Tensor, pairs.row_divisor)
    for rows in _row_slices(pairs):
        logits = (regions[rows] * temperature) @ texts.t()
        targets = pairs.targets[rows]
        if pairs.silent is not None:
            # Not infinite: all of a row may be silent.
            logits.masked_fill_(pairs.silent[rows], -1e9)
            targets = targets & ~pairs.silent[rows]
        count = targets.sum(1, keepdim=True)
        weights = (count > 0).to(logits) / divisor
        shares = targets * (weights / count.clamp(min=1))
        logits -= logits.logsumexp(1, keepdim=True)
        value = -(logits * shares).sum()
        yield rows, value, logits.exp_().mul_(weights).sub_(
            shares) if pairs.with_gradient else None


def _infonce(regions: Tensor, texts: Tensor, temperature: Tensor,
             pairs: _Pairs) -> Iterator[_Chunk]:
    slices = _row_slices(pairs)
    # First over all rows: the log-partition of every column.
    row_logsums = regions.new_zeros(len(regions), 1)
    row_counts = regions.new_zeros(len(regions), 1)
    column_max = regions.new_full((len(texts), ), -math.inf)
    column_sum = regions.new_zeros(len(texts))
    column_counts = regions.new_zeros(len(texts))
    for rows in slices:
        logits = (regions[rows] * temperature) @ texts.t()
        targets = pairs.targets[rows]
        row_logsums[rows] = logits.logsumexp(1, keepdim=True)
        row_counts[rows] = targets.sum(1, keepdim=True).to(logits)
        column_counts += targets.sum(0)
        larger = torch.maximum(column_max, logits.amax(0))
        column_sum = column_sum * (column_max - larger).exp() + (
            logits - larger).exp_().sum(0)
        column_max = larger
    row_terms = row_counts > 0
    row_total = (row_terms | pairs.mean_over_all).sum()
    if pairs.gather:
        column_counts = reduce_over_ranks(column_counts)
        row_total = reduce_over_ranks(row_total)
        larger = reduce_over_ranks(column_max, 'max')
        column_sum = reduce_over_ranks(column_sum *
                                       (column_max - larger).exp())
        column_max = larger
    column_logsums = column_max + column_sum.log()

    # Half of the mean over the rows, or columns, that count.
    column_terms = column_counts > 0
    column_total = (column_terms | pairs.mean_over_all).sum()
    if pairs.row_divisor is not None:
        row_total = column_total = pairs.row_divisor
    row_weights = row_terms.to(regions) * 0.5 / row_total.clamp(min=1e-12)
    column_weights = column_terms.to(regions) * 0.5 / column_total.clamp(
        min=1e-12)

    # Then the cross-entropy and its gradient, from the same logits.
    row_shares = row_weights / row_counts.clamp(min=1)
    column_shares = column_weights / column_counts.clamp(min=1)
    for rows in slices:
        if len(slices) > 1:
            logits = (regions[rows] * temperature) @ texts.t()
        shares = (row_shares[rows] + column_shares) * pairs.targets[rows]
        value = (row_weights[rows] * row_logsums[rows]).sum().double()
        value -= (logits * shares).sum()
        grad = None
        if pairs.with_gradient:
            grad = (logits - row_logsums[rows]).exp_()
            grad *= row_weights[rows]
            grad -= shares
            logits -= column_logsums
            grad += logits.exp_().mul_(column_weights)
        yield rows, value, grad
    if not pairs.gather or get_rank() == 0:
        yield slice(0), (column_weights * column_logsums).sum(), None


def _unit_rows(rows: Tensor) -> Tensor:
    """L2-normalise (N, D) rows of any scale; a zero row stays zero.

    The scale is divided out before squaring, so no norm over- or underflows,
    and a zero row gets the gradient of a row of norm one: no NaN, no 1 / eps.
    """
    scale = rows.detach().abs().amax(-1, keepdim=True)
    rows = rows / torch.where(scale > 0, scale, torch.ones_like(scale))
    norm = torch.linalg.vector_norm(rows, dim=-1, keepdim=True)
    return rows / torch.where(norm > 0, norm, torch.ones_like(norm))


def _in_one_dtype(regions: Tensor, texts: Tensor) -> tuple[Tensor, Tensor]:
    """Both in float32, or in float64 where one is."""
    dtype = torch.promote_types(regions.dtype, texts.dtype)
    dtype = torch.promote_types(dtype, torch.float32)
    return regions.to(dtype), texts.to(dtype)


def _scalar(value: float | Tensor, like: Tensor) -> Tensor:
    """A number, or a tensor of one, where a tensor is and in its dtype."""
    if isinstance(value, Tensor):
        return value.to(like)
    return like.new_full((), value)


def build_region_loss(cfg: dict,
                      num_classes: int | None = None) -> 'CLIMRegionLoss':
    """Build the loss of regions and texts that are gathered already.

    Args:
        cfg (dict): Config of the loss.
        num_classes (int, optional): Of texts that are the names of a
            vocabulary, in each step the same.

    Raises:
        ValueError: If it gathers them itself. A text that two ranks have
            would then be a negative of its own regions. Or if it is a softmax
            over one class, which is always certain of it.
    """
    loss = MODELS.build(cfg)
    if loss.gather:
        raise ValueError('loss: expected gather=False, as regions of one rank '
                         'and a text that two have belong together, got '
                         'gather=True')
    if num_classes == 1 and loss.kind == 'softmax':
        raise ValueError("loss.kind: expected 'bce' or 'sigmoid' with a "
                         'vocabulary of one class, of which a softmax is '
                         "always certain, got 'softmax'")
    return loss


@MODELS.register_module()
class CLIMRegionLoss(nn.Module):
    r"""Contrastive loss between region embeddings and text embeddings.

    With unit vectors :math:`x_r`, :math:`y_t`, targets :math:`p_{rt}` in
    {0, 1}, :math:`n_r = \sum_t p_{rt}` and logits
    :math:`z_{rt} = \tau\, x_r \cdot y_t + b`:

    ``kind='bce'`` (Detic's and CLIM's caption loss, REFERENCE section 2)

    .. math:: L = \frac{1}{R} \sum_r \Big[ \frac{1}{n_r} \sum_{t: p_{rt}=1}
        \log(1 + e^{-z_{rt}}) + w_- \sum_{t: p_{rt}=0} \log(1 + e^{z_{rt}})
        \Big]

    where :math:`1/n_r` is 1 with ``positive_reduction='sum'``.

    ``kind='infonce'`` (CLIP's loss with soft targets, sections 3 and 4)

    .. math:: L = \frac{1}{2} \operatorname{mean}_{r: n_r > 0} \Big[ \log
        \sum_t e^{z_{rt}} - \frac{1}{n_r} \sum_{t: p_{rt}=1} z_{rt} \Big]
        + \frac{1}{2} (\text{the same over columns})

    Rows and columns without a positive have no term of their own; they stay
    negatives of the others. With ``mean_over_all`` the means are over all
    :math:`R` and :math:`T` of them nevertheless, as where most of them come
    from a queue (section 3).

    ``kind='sigmoid'`` (SigLIP, arXiv 2303.15343)

    .. math:: L = \frac{1}{R} \sum_{rt} \log(1 + e^{(1 - 2 p_{rt}) z_{rt}})

    ``kind='softmax'`` (which of the texts it is: cross-entropy, as the rows of
    'infonce')

    .. math:: L = \frac{1}{R} \sum_{r: n_r > 0} \Big[ \log \sum_t e^{z_{rt}}
        - \frac{1}{n_r} \sum_{t: p_{rt}=1} z_{rt} \Big]

    Everything is computed in float32, also under autocast; float64 inputs
    stay float64. A value that is not finite makes the loss NaN, for
    ``mmdet.CheckInvalidLossHook`` to see.

    Args:
        kind (str): 'bce', 'infonce', 'sigmoid' or 'softmax'.
        temperature (float): :math:`\tau`, the factor on the cosine (an
            inverse temperature), or where it starts. Defaults to 25.
        bias (float, optional): :math:`b`, or where it starts. None: there is
            no bias, as on OV-LVIS; OV-COCO starts from -20, SigLIP from -10.
            Not for 'infonce' and 'softmax', on which it has no effect.
        learn_temperature (bool): Learn :math:`\log \tau`, as
            ``log_temperature``; clamped to at most :math:`\ln 100` in
            training, but for 'sigmoid', as SigLIP learns more.
        learn_bias (bool): Learn ``bias`` where one is given.
        negative_weight (float): :math:`w_-`, for 'bce' only.
        positive_reduction (str): 'mean' or 'sum' over the positives of a
            region, for 'bce' only.
        gather (bool): Contrast with the texts and regions of all ranks, with
            gradient. Every rank then calls this loss at the same time, with
            any number of regions and texts; the value is that of the joined
            batch, and the gradients that DDP averages are too.
            ``avg_factor`` is summed over ranks.
        chunk_size (int, optional): Rows of the (R, T) logits held at a time.
            The value and gradients stay the same; memory grows with
            ``chunk_size * T``. None: all rows at once.
        loss_weight (float): Factor on the loss.

    Raises:
        ValueError: If an argument is outside of its range, or given to a
            ``kind`` on which it has no effect.

    Example:
        >>> import torch
        >>> loss = CLIMRegionLoss(kind='bce', temperature=2.0)
        >>> regions = torch.tensor([[3.0, 0.0], [0.0, 0.1]])
        >>> texts = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
        >>> loss(regions, texts, torch.eye(2, dtype=torch.bool))
        tensor(0.8201)
    """

    def __init__(self,
                 kind: str = 'bce',
                 temperature: float = 25.0,
                 bias: float | None = None,
                 learn_temperature: bool = False,
                 learn_bias: bool = True,
                 negative_weight: float = 1.0,
                 positive_reduction: str = 'mean',
                 gather: bool = False,
                 chunk_size: int | None = None,
                 loss_weight: float = 1.0):
        super().__init__()
        check_choice(KINDS, kind=kind)
        check_choice(('mean', 'sum'), positive_reduction=positive_reduction)
        check_positive(temperature=temperature)
        check_range(0, without=(math.inf, ), negative_weight=negative_weight)
        check_range(1, chunk_size=chunk_size)
        check_finite(bias=bias)
        if learn_temperature and temperature > max_learned_temperature(kind):
            raise ValueError('temperature must start at or under '
                             f'{max_learned_temperature(kind)} to be learned, '
                             f'got {temperature}')
        if bias is not None and kind in ('infonce', 'softmax'):
            raise ValueError(f'bias has no effect on kind={kind!r}: expected '
                             f'None, got {bias}')
        if positive_reduction != 'mean' and kind in ('infonce', 'softmax'):
            raise ValueError("positive_reduction is for kind='bce': expected "
                             f"'mean' for {kind!r}, got "
                             f'{positive_reduction!r}')
        if negative_weight != 1 and kind != 'bce':
            raise ValueError("negative_weight is for kind='bce': expected 1 "
                             f'for {kind!r}, got {negative_weight}')
        self.kind = kind
        self.negative_weight = float(negative_weight)
        self.positive_reduction = \
            positive_reduction if kind == 'bce' else 'sum'
        self.gather = gather
        self.chunk_size = chunk_size
        self.loss_weight = loss_weight
        self.log_temperature = None
        if learn_temperature:
            self.log_temperature = nn.Parameter(
                torch.tensor(math.log(temperature)))
        self._temperature = float(temperature)
        self.bias = None if bias is None else float(bias)
        if bias is not None and learn_bias:
            self.bias = nn.Parameter(torch.tensor(float(bias)))

    @property
    def temperature(self) -> float:
        """The factor on the cosine at present."""
        if self.log_temperature is None:
            return self._temperature
        return min(self.log_temperature.detach().exp().item(),
                   max_learned_temperature(self.kind))

    def logits(self, regions: Tensor, texts: Tensor) -> Tensor:
        """What the loss compares: (R, D) and (T, D) of any norm to (R, T).

        In float32, also under autocast; float64 stays float64.
        """
        with torch.autocast(regions.device.type, enabled=False):
            regions, texts = _in_one_dtype(regions, texts)
            cosine = _unit_rows(regions) @ _unit_rows(texts).t()
            logits = self._temperature_tensor(cosine) * cosine
            return logits if self.bias is None else logits + self.bias

    def log_probabilities(self, regions: Tensor, texts: Tensor) -> Tensor:
        """How likely the loss takes each text for a region's, (R, T).

        The logarithm of a sigmoid of the logits, or with ``kind='softmax'``
        and ``'infonce'`` of a softmax over the texts.

        Args:
            regions (Tensor): (R, D) region embeddings of any norm.
            texts (Tensor): (T, D) text embeddings of any norm.
        """
        logits = self.logits(regions, texts)
        if self.kind in ('infonce', 'softmax'):
            return logits.log_softmax(1)
        return F.logsigmoid(logits)

    def extra_repr(self) -> str:
        return (f'kind={self.kind}, temperature={self.temperature:.4g}, '
                f'gather={self.gather}, chunk_size={self.chunk_size}, '
                f'loss_weight={self.loss_weight}')

    def forward(self,
                regions: Tensor,
                texts: Tensor,
                targets: Tensor,
                avg_factor: float | Tensor | None = None,
                mean_over_all: bool = False,
                negative_share: float = 1.0,
                silent: Tensor | None = None) -> Tensor:
        """Compute the loss.

        Args:
            regions (Tensor): (R, D) region embeddings of any norm.
            texts (Tensor): (T, D) text embeddings of any norm.
            targets (Tensor): (R, T) bool, True where the text belongs to the
                region. With ``gather`` either (R, T), where regions match no
                text of another rank, or (R, sum of T over ranks) with the
                texts of all ranks in rank order.
            avg_factor (float | Tensor, optional): Divides the sum over
                regions instead of their number; for 'infonce' the sum of
                each direction.
            mean_over_all (bool): For 'infonce': whether a region or a text
                without a positive counts in the mean, with a loss of 0.
            negative_share (float): A further factor on the negatives, not for
                'infonce' and 'softmax', where a text more weighs less than
                the one before.
            silent (Tensor, optional): (R, T) bool, the pairs that are neither
                positive nor negative. Not for 'infonce' nor with ``gather``.

        Returns:
            Tensor: Scalar. Zero, connected to the inputs and to the learned
            parameters, where there are no regions or no texts.

        Raises:
            ValueError: If a shape or ``avg_factor`` is wrong.
            TypeError: If the dtype of an argument is wrong.
        """
        self._check_inputs(regions, texts, targets, avg_factor)
        self._check_silent(targets, silent)
        with torch.autocast(regions.device.type, enabled=False):
            regions, texts = _in_one_dtype(regions, texts)
            total_regions = len(regions)
            if self.gather:
                texts, targets, total_regions = self._join_ranks(
                    regions, texts, targets)
            if total_regions == 0 or len(texts) == 0:
                return self._connected_zero(regions, texts)
            divisor = None
            if avg_factor is not None:
                divisor = _scalar(avg_factor, regions)
                if self.gather:
                    divisor = reduce_over_ranks(divisor)
            elif self.kind != 'infonce':
                divisor = _scalar(total_regions, regions)
            temperature = self._temperature_tensor(regions)
            bias = None if self.bias is None else _scalar(self.bias, regions)
            pairs = _Pairs(self.kind, targets, self.positive_reduction,
                           self.negative_weight * negative_share, divisor,
                           mean_over_all, self.chunk_size
                           or max(len(regions), 1), self.gather,
                           torch.is_grad_enabled(), silent)
            regions, texts = _unit_rows(regions), _unit_rows(texts)
            return self.loss_weight * _PairLoss.apply(regions, texts,
                                                      temperature, bias, pairs)

    def _temperature_tensor(self, like: Tensor) -> Tensor:
        if self.log_temperature is None:
            return _scalar(self._temperature, like)
        if self.training:
            # The parameter itself, as a clamp in the graph has no gradient
            # to come back from beyond the limit.
            with torch.no_grad():
                self.log_temperature.clamp_(
                    max=math.log(max_learned_temperature(self.kind)))
        return self.log_temperature.to(like.dtype).exp()

    def _connected_zero(self, regions: Tensor, texts: Tensor) -> Tensor:
        zero = regions[:0].sum() + texts[:0].sum()
        return sum((p.to(zero.dtype) * 0 for p in self.parameters()), zero)

    def _join_ranks(self, regions: Tensor, texts: Tensor,
                    targets: Tensor) -> tuple[Tensor, Tensor, int]:
        """Texts of all ranks, targets over them, regions of all ranks."""
        with_gradient = torch.is_grad_enabled() and texts.requires_grad
        region_counts, counts, widths, gradients = exchange_counts(
            len(regions), len(texts), targets.shape[1], with_gradient)
        total = sum(counts)
        # Every rank sees all of them, so that they stop together.
        for rank, (own, width) in enumerate(zip(counts, widths)):
            if width not in (own, total):
                raise ValueError(
                    f'targets of rank {rank} must have {own} columns (its own '
                    f'texts) or {total} (those of all ranks), got {width}')
        if any(gradients) and not texts.requires_grad:
            # A rank without gradient of its own still runs the backward pass
            # of the gathering, which the other ranks wait for.
            texts = texts.detach().requires_grad_()
        if targets.shape[1] != total:
            start = sum(counts[:get_rank()])
            wide = targets.new_zeros(len(targets), total)
            wide[:, start:start + len(texts)] = targets
            targets = wide
        return gather_rows(texts, counts), targets, sum(region_counts)

    def _check_inputs(self, regions: Tensor, texts: Tensor, targets: Tensor,
                      avg_factor: float | Tensor | None) -> None:
        for name, value in (('regions', regions), ('texts', texts)):
            if value.dim() != 2:
                raise ValueError(f'{name} must have two dimensions (number, '
                                 f'width), got shape {tuple(value.shape)}')
            if not value.is_floating_point():
                raise TypeError(f'{name} must be floating point, got '
                                f'{value.dtype}')
        if regions.shape[1] != texts.shape[1]:
            raise ValueError(
                'regions and texts must have one width, got '
                f'{tuple(regions.shape)} and {tuple(texts.shape)}')
        if targets.dtype != torch.bool:
            raise TypeError(f'targets must be bool, got {targets.dtype}')
        expected = (len(regions), len(texts))
        if targets.dim() != 2 or len(targets) != expected[0] or (
                not self.gather and targets.shape[1] != expected[1]):
            raise ValueError(f'targets must be (regions, texts) = {expected}, '
                             f'got {tuple(targets.shape)}')
        if isinstance(avg_factor, (int, float)) and not avg_factor > 0:
            raise ValueError(f'avg_factor must be positive, got {avg_factor}')

    def _check_silent(self, targets: Tensor, silent: Tensor | None) -> None:
        if silent is None:
            return
        if self.kind == 'infonce' or self.gather:
            raise ValueError("silent: expected None with kind='infonce' or "
                             f'gather, got kind={self.kind!r} and '
                             f'gather={self.gather}')
        if silent.dtype != torch.bool or silent.shape != targets.shape:
            raise ValueError('silent: expected bool like targets, '
                             f'{tuple(targets.shape)}, got {silent.dtype} '
                             f'{tuple(silent.shape)}')
