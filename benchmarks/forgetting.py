# Licensed under the Apache License, Version 2.0.
r"""What a detector forgets that learns from captions, and what keeps it.

A detector of OpenMoji's 48 base classes learns the 17 novel ones from captions
alone, by ``tools/finetune.py``, as it comes (``tuned``) and with the means to
keep old words. Of each, weights between the original's and the trained ones
are evaluated on scenes drawn with another seed (``--choice``); with seed 0,
alpha is chosen there as ``--blend auto`` does: the best AP50 of new words
among those whose AP50 of old words falls by at most ``--most-lost``, with 95 %
confidence. The validation set is evaluated
at 0, alpha and 1 only. Old words are the 48, new ones the 17, in one
vocabulary of 65.

    python tools/datasets/make_openmoji_coco.py --out-dir data/choice \
        --train 10 --val 250 --captioned 10 --seed 100
    python benchmarks/forgetting.py --data data/openmoji_coco \
        --choice data/choice --out work_dirs/forgetting

Without ``--checkpoint`` the detector of ``--config`` is first trained on the
boxes of the 48, with seed 0 and ``--base-iterations``. For the small
MM-Grounding-DINO, which no checkpoint is shipped of:

    python benchmarks/forgetting.py --data data/openmoji_coco \
        --choice data/choice --out work_dirs/forgetting_mmgd \
        --config configs/openmoji/mm-grounding-dino_r18_160_base.py \
        --means tuned distil replay --lr 1e-4

With ``--only-choice`` the validation set is left alone: settings are compared
by the curve of seed 0. A run that was stopped goes on; seeds may be given to
several processes with one ``--out``, once the detector itself is trained.
"""
import argparse
import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

from mmengine.config import Config, DictAction

import mmdet_clim  # noqa: F401  (first: it prepares the stack)
from mmdet_clim.datasets.ov_coco import NOVEL_CLASSES
from mmdet_clim.datasets.preparation.files import whole_file, write_json
from mmdet_clim.engine.checkpoints import read_checkpoint
from mmdet_clim.engine.finetune_keeping import KeptWords, words_to_keep
from mmdet_clim.engine.finetune_run import (
    REPLAYED_BOXES,
    REPLAYED_TAGS,
    Finetuning,
)
from mmdet_clim.engine.finetuning import OwnData
from mmdet_clim.engine.training_runs import finish_training, resolve_run
from mmdet_clim.engine.weight_interpolation import ALPHAS, choose_point

CONFIGS = Path(__file__).parents[1] / 'configs/openmoji'
MEANS = ('tuned', 'distil', 'replay')
CAPTIONS = 'annotations/captions_captioned2017_tags.json'
BOXES = 'annotations/instances_val2017.json'


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--data', type=Path, required=True)
    parser.add_argument('--choice', type=Path, required=True)
    parser.add_argument(
        '--val',
        type=Path,
        help='whose val2017 is evaluated at the end (default: that of --data)')
    parser.add_argument('--out', type=Path, required=True)
    parser.add_argument(
        '--config',
        type=Path,
        default=CONFIGS / 'faster-rcnn_r18-c4_256_base.py')
    parser.add_argument(
        '--checkpoint',
        type=Path,
        help='of the detector (default: the one beside the config; where '
        'there is none, it is trained)')
    parser.add_argument(
        '--base-iterations',
        type=int,
        help='of the training of a detector without a checkpoint (default: '
        'those of its config)')
    parser.add_argument('--means', nargs='+', choices=MEANS, default=['tuned'])
    parser.add_argument('--seeds', nargs='+', type=int, default=[0, 1, 2])
    parser.add_argument('--iterations', type=int, default=200)
    parser.add_argument(
        '--batch-size',
        type=int,
        default=8,
        help='captioned samples of a step; replay sees half as many boxed '
        'ones besides (default: %(default)s)')
    parser.add_argument('--lr', type=float, default=1e-4)
    parser.add_argument(
        '--distil',
        type=float,
        default=1.0,
        help='weight of distillation (default: %(default)s)')
    parser.add_argument('--freeze', nargs='+', default=())
    parser.add_argument('--cfg-options', nargs='+', action=DictAction)
    parser.add_argument('--only-choice', action='store_true')
    parser.add_argument('--most-lost', type=float, default=1.0)
    parser.add_argument(
        '--images',
        type=int,
        help='evaluate on so many images of either set (default: all)')
    return parser.parse_args()


def first_images(boxes: Path, count: int, out: Path) -> Path:
    """A file of the boxes of the first images."""
    if out.exists():
        return out
    content = json.loads(boxes.read_text())
    content['images'] = content['images'][:count]
    kept = {image['id'] for image in content['images']}
    content['annotations'] = [
        a for a in content['annotations'] if a['image_id'] in kept
    ]
    write_json(out, content)
    return out


def described(point: dict) -> str:
    """A point of a curve, in percent."""
    return (f'alpha {point["alpha"]:.2f}: old {100 * point["old_ap50"]:.1f} '
            f'(at most {100 * point["lost_at_most"]:.1f} lost) '
            f'new {100 * point["new_ap50"]:.1f}')


def _detector(args: argparse.Namespace) -> Path:
    """The checkpoint of the detector that knows the old words."""
    beside = args.config.with_suffix('.pth')
    if beside.exists():
        return beside
    cfg = resolve_run(args.config, args.out / 'base', 0, {})
    # It is evaluated beside the others.
    cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
    length = args.base_iterations
    if length is not None:
        share = length / cfg.train_cfg.max_iters
        cfg.train_cfg.update(max_iters=length, val_interval=length)
        # A warm-up has two iterations at least.
        begin = 0
        for part in cfg.param_scheduler:
            end = max(begin + 2, round(share * part.end))
            part.update(begin=begin, end=end)
            begin = end
    return finish_training(cfg)


class Benchmark:
    """Trainings and evaluations, each done once.

    Args:
        args (argparse.Namespace): Of the command.
    """

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        args.out.mkdir(parents=True, exist_ok=True)
        self.names = args.out / 'names.txt'
        with whole_file(self.names) as file:
            file.write('\n'.join(NOVEL_CLASSES))
        # Where the configs look for it.
        os.environ['OPENMOJI_ROOT'] = f'{args.data.absolute()}/'
        self.checkpoint = args.checkpoint or _detector(args)
        cfg = Config.fromfile(args.config)
        data = OwnData(args.data / CAPTIONS, args.data / 'captioned2017',
                       list(NOVEL_CLASSES))
        old = words_to_keep(None, cfg)
        self.judges: dict[str, KeptWords] = {}
        for split, root in (('choice', args.choice), ('val', args.val
                                                      or args.data)):
            boxes = root / BOXES
            if args.images:
                boxes = first_images(boxes, args.images,
                                     args.out / f'{split}_{args.images}.json')
            self.judges[split] = KeptWords(
                cfg, self.checkpoint,
                replace(data, val_boxes=boxes, val_images=root / 'val2017'),
                old, args.out, 0)

    def train(self, means: str, seed: int) -> Path:
        """The work dir of a training."""
        args = self.args
        options = dict(
            tuned={}, distil=dict(distil=args.distil),
            replay=dict(replay=0.5))[means]
        work_dir = args.out / f'{means}_seed{seed}'
        self._share_replay(means, work_dir)
        Finetuning(
            config=args.config,
            checkpoint=self.checkpoint,
            images=args.data / 'captioned2017',
            captions=args.data / CAPTIONS,
            vocabulary=self.names,
            work_dir=work_dir,
            iterations=args.iterations,
            batch_size=args.batch_size * (3 if means == 'replay' else 2) // 2,
            lr=args.lr,
            freeze=args.freeze,
            seed=seed,
            workers=0,
            cfg_options=args.cfg_options,
            leave=(),
            # Measured here, on boxes of both groups.
            keep=None if options else ['none'],
            **options).run()
        return work_dir

    def _share_replay(self, means: str, work_dir: Path) -> None:
        """What the original finds does not depend on the seed."""
        found = self.args.out / f'{means}_seed0'
        if not (found / REPLAYED_BOXES).exists() or work_dir.exists():
            return
        work_dir.mkdir()
        for name in (REPLAYED_TAGS, REPLAYED_BOXES):
            shutil.copy(found / name, work_dir)

    def points(self, split: str, work_dir: Path,
               alphas: list[float]) -> list[dict]:
        """AP50 of old and new words at some alphas."""
        judge = self.judges[split]
        file = work_dir / f'{split}.json'
        known = json.loads(file.read_text()) if file.exists() else []
        for alpha in alphas:
            if any(point['alpha'] == alpha for point in known):
                continue
            weights = judge.original
            if alpha:
                weights = read_checkpoint(work_dir /
                                          'detector.pth')['state_dict']
            known.append(judge.point(weights, alpha))
            write_json(file, known)
        return sorted((p for p in known if p['alpha'] in alphas),
                      key=lambda point: point['alpha'])

    def run(self) -> None:
        """Train, choose, evaluate and print."""
        args = self.args
        for means in args.means:
            chosen = args.out / f'{means}_alpha.json'
            for seed in args.seeds:
                work_dir = self.train(means, seed)
                if not chosen.exists() and seed == 0:
                    curve = self.points('choice', args.out, [0.0])
                    curve += self.points('choice', work_dir, list(ALPHAS[1:]))
                    write_json(
                        chosen,
                        dict(choose_point(curve, args.most_lost), curve=curve))
            if not chosen.exists():
                print(f'{means}: alpha is chosen by seed 0, which is not done')
                continue
            point = json.loads(chosen.read_text())
            for of in point['curve']:
                print(f'{means} seed 0 choice {described(of)}')
            if args.only_choice:
                continue
            alpha = point['alpha']
            before = self.points('val', args.out, [0.0])
            for seed in args.seeds:
                for point in before + self.points(
                        'val', args.out / f'{means}_seed{seed}',
                        sorted({alpha, 1.0} - {0.0})):
                    print(f'{means} seed {seed} {described(point)}')


if __name__ == '__main__':
    Benchmark(parse_args()).run()
