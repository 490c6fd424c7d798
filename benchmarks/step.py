# Licensed under the Apache License, Version 2.0.
"""Time of a training step without and with CLIM, and where it goes.

All sides run in one process on the same data, alternately, after a warm-up
that fills the caches of mosaics and texts. The parts are measured by hooks
around the real modules; encoding texts is part of the branch that asks for
it and is shown again on its own. BARON's bags beside the caption objective:

    python benchmarks/step.py --data-root data/openmoji_coco
    python benchmarks/step.py --data-root data/openmoji_coco \
        --sides boxes 'CLIM, captions' 'BARON boxes' 'BARON CLIM'
"""
import argparse
import os
import time
from collections import defaultdict
from contextlib import contextmanager
from pathlib import Path
from statistics import median

CONFIGS = Path(__file__).resolve().parents[1] / 'configs' / 'openmoji'
SIDES = {
    'boxes': 'faster-rcnn_r18-c4_256_boxes',
    'captions and tags': 'faster-rcnn_r18-c4_256_captions-tags',
    'CLIM': 'faster-rcnn_r18-c4_256_captions-tags_clim',
    'CLIM, captions': 'ablation/clim_captions-only',
    'BARON boxes': 'baron_r18-c4_256_boxes',
    'BARON captions': 'baron_r18-c4_256_captions',
    'BARON CLIM': 'baron_r18-c4_256_captions_clim',
}


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--data-root', default='data/openmoji_coco')
    parser.add_argument(
        '--sides',
        nargs='+',
        choices=SIDES,
        metavar='SIDE',
        default=['boxes', 'captions and tags', 'CLIM'],
        help=f'what to compare: {list(SIDES)}')
    parser.add_argument('--steps', type=int, default=10)
    parser.add_argument('--warm-up', type=int, default=60)
    parser.add_argument('--device', default='cpu')
    return parser.parse_args()


class Side:
    """One config: its model, optimiser, data and measured parts."""

    def __init__(self, config: str, device: str) -> None:
        from mmengine.config import Config
        from mmengine.registry import MODELS
        from mmengine.runner import Runner
        cfg = Config.fromfile(CONFIGS / f'{config}.py')
        cfg.train_dataloader.update(num_workers=0, persistent_workers=False)
        self.device = device
        self.model = MODELS.build(cfg.model).to(device).train()
        self.loader = iter(Runner.build_dataloader(cfg.train_dataloader))
        import torch
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-6)
        self.parts = defaultdict(float)
        self.steps = []

    @contextmanager
    def timed(self, part: str):
        """Add the time of a block to a part."""
        start = self.now()
        yield
        self.parts[part] += self.now() - start

    def now(self) -> float:
        """Seconds, after all that the device was asked to do."""
        if self.device != 'cpu':
            import torch
            torch.cuda.synchronize()
        return time.perf_counter()

    def step(self) -> None:
        """One training step."""
        from mmdet_clim.models import CLIMDetector
        model = self.model
        start = self.now()
        with self.timed('data'):
            batch = next(self.loader)
            batch = model.data_preprocessor(batch, True)
        inputs, samples = batch['inputs'], batch['data_samples']
        if isinstance(model, CLIMDetector):
            with self.timed('boxes'):
                losses = dict(
                    model.detector.loss(inputs['boxes'], samples['boxes']))
            for branch in model.branches:
                with self.timed(branch):
                    losses.update(
                        model.branch_loss(branch, inputs[branch],
                                          samples[branch]))
        else:
            with self.timed('boxes'):
                losses = model.loss(inputs, samples)
        total, _ = model.parse_losses(losses)
        with self.timed('backward'):
            total.backward()
        with self.timed('optimiser'):
            self.optimizer.step()
            self.optimizer.zero_grad()
        self.steps.append(self.now() - start)

    def watch_texts(self) -> None:
        """Measure the text encoder by hooks around its forward."""
        from mmdet_clim.models import CLIMDetector
        if not isinstance(self.model, CLIMDetector):
            return
        started = []
        self.model.text_encoder.register_forward_pre_hook(
            lambda *_: started.append(self.now()))

        def stop(*_):
            self.parts['texts'] += self.now() - started.pop()

        self.model.text_encoder.register_forward_hook(stop)

    def reset(self) -> None:
        """Forget the warm-up."""
        self.parts.clear()
        self.steps.clear()


def main() -> None:
    """Measure and print."""
    args = parse_args()
    os.environ['OPENMOJI_ROOT'] = args.data_root.rstrip('/') + '/'
    from mmdet.utils import register_all_modules

    import mmdet_clim  # noqa: F401
    register_all_modules()
    sides = {name: Side(SIDES[name], args.device) for name in args.sides}
    for name, side in sides.items():
        side.watch_texts()
        if 'boxes' not in name:  # the texts of all captions, once
            for source in side.loader._dataset.datasets[1:2]:
                captions = sorted({
                    c
                    for i in range(len(source))
                    for c in source.get_data_info(i)['captions']
                })
                for start in range(0, len(captions), 256):
                    side.model.text_encoder(captions[start:start + 256])
        for _ in range(3):
            side.step()
        side.reset()
    for _ in range(args.steps):
        for side in sides.values():
            side.step()
    names = [
        'data', 'boxes', 'captions', 'mosaic', 'backward', 'optimiser', 'texts'
    ]
    print('| | step, s |' + ''.join(f' {n} |' for n in names))
    print('|---|---|' + '---|' * len(names))
    for name, side in sides.items():
        total = sum(side.steps)
        shares = ''.join(f' {100 * side.parts[n] / total:.1f} % |'
                         for n in names)
        print(f'| {name} | {median(side.steps):.3f} |{shares}')
    if 'CLIM' in sides:
        share = 100 * sides['CLIM'].parts['texts'] / sum(sides['CLIM'].steps)
        print(f'\nEncoding texts: {share:.2f} % of a step with CLIM, the '
              'caches warm; at most 5 % is asked for.')


if __name__ == '__main__':
    main()
