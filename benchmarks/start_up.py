# Licensed under the Apache License, Version 2.0.
"""How long the OV-LVIS recipe takes to build, at its first start and later.

The recipe is whole: ResNet-50, CenterNet2, CLIP's text tower of ViT-B/32 and
the vocabulary of 1,203 classes, all with random weights and made-up names.
Only the time of ``MODELS.build`` counts, in CPU seconds of one thread, beside
how often the text tower ran over how many tokens. Each start is a process of
its own; the second finds the vocabulary on the disk. With ``--checkout`` the
same is done with another version of this project, whose first start may take
a quarter of an hour: ``--classes`` makes the vocabulary smaller.

    python benchmarks/start_up.py
    python benchmarks/start_up.py --classes 60 --checkout /tmp/older
"""
import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

CONFIG = ('configs/detic/ov_lvis/'
          'detic_r50-centernet2_45k_ov-lvis_captions-tags_clim.py')
NUM_BLOCKS = 12  # of the text tower of ViT-B/32


def changed(node, names: list):
    """A config with these classes, and towers without a checkpoint."""
    if isinstance(node, dict):
        node = {key: changed(value, names) for key, value in node.items()}
        if str(node.get('type')).endswith('OpenCLIPTextEncoder'):
            node['pretrained'] = None
        if 'vocabulary' in node:
            node['vocabulary'] = names
        node.pop('init_cfg', None)
    elif isinstance(node, (list, tuple)):
        node = [changed(value, names) for value in node]
    return node


def build(checkout: Path, num_classes: int) -> dict:
    """Build the model in this process, and measure."""
    sys.path.insert(0, str(checkout))
    import torch

    import mmdet_clim  # noqa: F401  isort: skip  (first: it prepares)
    from mmdet.utils import register_all_modules
    from mmengine.config import Config
    from mmengine.registry import MODELS
    from open_clip.transformer import ResidualAttentionBlock
    register_all_modules()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    names = [f'class {index}' for index in range(num_classes)]
    model = Config(
        dict(
            model=changed(
                Config.fromfile(checkout /
                                CONFIG).model.to_dict(), names))).model
    runs = []
    forward = ResidualAttentionBlock.forward

    def count(self, q_x, *args, **kwargs):
        runs.append(q_x.shape[0] * q_x.shape[1])
        return forward(self, q_x, *args, **kwargs)

    ResidualAttentionBlock.forward = count
    start = time.process_time()
    MODELS.build(model)
    return dict(
        seconds=time.process_time() - start,
        runs=len(runs) // NUM_BLOCKS,
        tokens=sum(runs) // NUM_BLOCKS)


def start(checkout: Path, num_classes: int, cache: str) -> dict:
    """Build it in a process of its own."""
    command = [
        sys.executable, __file__, '--child', '--classes',
        str(num_classes), '--checkout',
        str(checkout)
    ]
    done = subprocess.run(
        command,
        check=True,
        stdout=subprocess.PIPE,
        cwd=checkout,
        env=dict(
            os.environ,
            MMDET_CLIM_CACHE=cache,
            PYTHONPATH=str(checkout),
            OMP_NUM_THREADS='1'))
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--classes', type=int, default=1203)
    parser.add_argument(
        '--checkout', type=Path, help='folder of another version')
    parser.add_argument('--child', action='store_true', help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        print(json.dumps(build(args.checkout, args.classes)))
        return
    own = Path(__file__).resolve().parents[1]
    sides = [('first start', own), ('second start', own)]
    if args.checkout:
        sides.insert(0, (f'{args.checkout.name}', args.checkout.resolve()))
    print(f'{args.classes} classes\n')
    print('| | CPU s | runs of the text tower | tokens |\n|---|---|---|---|')
    with TemporaryDirectory() as cache:
        for name, checkout in sides:
            found = start(checkout, args.classes, cache)
            print(
                f'| {name} | {found["seconds"]:.1f} | {found["runs"]} | '
                f'{found["tokens"]} |',
                flush=True)


if __name__ == '__main__':
    main()
