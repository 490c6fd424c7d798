# Licensed under the Apache License, Version 2.0.
"""Time and peak memory of CLIMRegionLoss against the plain formula.

One forward and backward pass, D = 512, as many regions as texts, in a child
process of its own for each row of the table; the peak is the child's
``ru_maxrss`` beyond what it had before the pass (the inputs are in that;
what is smaller than the peak of the imports shows as 0, without a share).
The gradients of all ways are compared, relative to the largest one. The
times are CPU seconds of the process, the least of ``--repeats``: on one thread
what an idle machine takes, whatever else runs.

    python benchmarks/region_loss.py
"""
import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
import torch.nn.functional as F
from torch import Tensor

import mmdet_clim  # noqa: F401  (first: it prepares the stack)
from mmdet_clim.models.losses import CLIMRegionLoss

WIDTH = 512
WAYS = ('plain', 'whole', 'chunked')
LABELS = dict(
    plain='plain formula',
    whole='CLIMRegionLoss',
    chunked='CLIMRegionLoss, chunked')


def plain_formula(kind: str, regions: Tensor, texts: Tensor, targets: Tensor,
                  temperature: Tensor, bias: Tensor) -> Tensor:
    """The loss as one writes it down, with autograd."""
    cosines = F.normalize(regions, dim=1) @ F.normalize(texts, dim=1).t()
    if kind == 'bce':
        logits = temperature * cosines + bias
        target = targets.float()
        loss = F.binary_cross_entropy_with_logits(
            logits, target, reduction='none')
        positives = target.sum(1, keepdim=True).clamp(min=1)
        loss = loss * torch.where(targets, 1 / positives, 0.125)
        return loss.sum() / len(regions)
    logits = temperature * cosines
    by_row = targets / targets.sum(1, keepdim=True)
    by_column = targets / targets.sum(0)
    return (F.cross_entropy(logits, by_row) +
            F.cross_entropy(logits.t(), by_column.t())) / 2


def measure(way: str, kind: str, size: int, chunk: int, repeats: int,
            out: Path) -> dict[str, float]:
    """Time one way in this process; write its value and gradients."""
    torch.manual_seed(0)
    regions = torch.randn(size, WIDTH, requires_grad=True)
    texts = torch.randn(size, WIDTH, requires_grad=True)
    temperature = torch.tensor(25.0).log().requires_grad_()
    bias = torch.tensor(-2.0, requires_grad=True)
    targets = torch.eye(size, dtype=torch.bool)
    targets[1:, 0] = True
    leaves = [regions, texts, temperature]
    if kind == 'bce':
        leaves.append(bias)

    if way == 'plain':

        def compute() -> Tensor:
            return plain_formula(kind, regions, texts, targets,
                                 temperature.exp(), bias)
    else:
        loss = CLIMRegionLoss(
            kind=kind,
            temperature=25.0,
            bias=-2.0 if kind == 'bce' else None,
            learn_temperature=True,
            negative_weight=0.125 if kind == 'bce' else 1.0,
            chunk_size=chunk if way == 'chunked' else None)
        leaves[2:] = [loss.log_temperature]
        if kind == 'bce':
            leaves.append(loss.bias)

        def compute() -> Tensor:
            return loss(regions, texts, targets)

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    seconds = []
    for _ in range(repeats):
        for leaf in leaves:
            leaf.grad = None
        start = time.process_time()
        value = compute()
        value.backward()
        seconds.append(time.process_time() - start)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    torch.save(dict(value=value.detach(), grads=[v.grad for v in leaves]), out)
    return dict(seconds=min(seconds), mebibytes=peak / 1024)


def run_child(args: argparse.Namespace, way: str, kind: str, size: int,
              out: Path) -> dict[str, float]:
    command = [
        sys.executable, __file__, '--child', way, '--kinds', kind, '--sizes',
        str(size), '--chunk',
        str(args.chunk), '--threads',
        str(args.threads), '--repeats',
        str(args.repeats), '--out',
        str(out)
    ]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE)
    return json.loads(done.stdout.splitlines()[-1])


def difference(path: Path, reference: Path) -> float:
    """Largest difference of value and gradients, relative to the largest."""
    found = torch.load(path, weights_only=True)
    expected = torch.load(reference, weights_only=True)
    pairs = zip([found['value'], *found['grads']],
                [expected['value'], *expected['grads']])
    return max(((a - b).abs().max() / b.abs().max()).item() for a, b in pairs)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        '--sizes', type=int, nargs='+', default=[256, 4096, 16384])
    parser.add_argument(
        '--kinds',
        nargs='+',
        default=['bce', 'infonce'],
        choices=['bce', 'infonce'])
    parser.add_argument('--chunk', type=int, default=256)
    parser.add_argument('--threads', type=int, default=1)
    parser.add_argument('--repeats', type=int, default=2)
    parser.add_argument('--child', choices=WAYS, help=argparse.SUPPRESS)
    parser.add_argument('--out', type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    torch.set_num_threads(args.threads)
    if args.child:
        result = measure(args.child, args.kinds[0], args.sizes[0], args.chunk,
                         args.repeats, args.out)
        print(json.dumps(result))
        return
    print(f'forward + backward, D = {WIDTH}, float32, {args.threads} '
          f'thread(s), chunks of {args.chunk} rows')
    print(f'{"kind":8} {"R = T":>6} {"way":24} {"CPU s":>8} {"x plain":>8} '
          f'{"MiB":>8} {"of plain":>9} {"difference":>11}')
    with TemporaryDirectory() as folder:
        for kind in args.kinds:
            for size in args.sizes:
                for way in WAYS:
                    out = Path(folder) / f'{way}.pth'
                    found = run_child(args, way, kind, size, out)
                    if way == 'plain':
                        plain = found
                    share = '-'
                    if plain['mebibytes']:
                        ratio = found['mebibytes'] / plain['mebibytes']
                        share = f'{ratio:.1%}'
                    gap = difference(out, Path(folder) / 'plain.pth')
                    print(
                        f'{kind:8} {size:6d} {LABELS[way]:24} '
                        f'{found["seconds"]:8.3f} '
                        f'{found["seconds"] / plain["seconds"]:8.2f} '
                        f'{found["mebibytes"]:8.1f} '
                        f'{share:>9} '
                        f'{gap:11.1e}',
                        flush=True)


if __name__ == '__main__':
    main()
