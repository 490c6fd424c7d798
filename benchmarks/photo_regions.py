# Licensed under the Apache License, Version 2.0.
r"""Region recognition on photographs: CLIM beside three other refinements.

The CLIP of configs/coco_small has a frozen backbone, so all that its head
ever sees of a region is one vector: the mean of the fused map over it. This
script collects these vectors once, of whole photographs, tiles of mosaics,
random boxes, crops and the annotated boxes of the evaluation photographs;
each head then trains in seconds, so that five seeds and an interval cost
minutes. What it leaves out of the recipes is that a mosaic comes again: they
draw new ones at each step.

Example:
    python benchmarks/photo_regions.py --data-root data/coco_small \
        --out work_dirs/photo_regions
"""
import argparse
import copy
import json
import random
from pathlib import Path

import mmdet_clim  # noqa: F401  isort: skip
import numpy as np
import torch
import torch.nn.functional as F
from mmengine.config import Config
from torch import Tensor, nn

from mmdet_clim.datasets import OVCocoDataset, build_vocabulary
from mmdet_clim.datasets.image_files import read_image_file
from mmdet_clim.evaluation import region_classification_metric
from mmdet_clim.files import atomic_path
from mmdet_clim.models.backbones import ImageTower
from mmdet_clim.models.clip_refinement.batch_mosaic import BatchMosaic
from mmdet_clim.models.clip_refinement.box_sources import RandomBoxes
from mmdet_clim.models.clip_refinement.objectives import crop_images
from mmdet_clim.models.text_encoders import (
    build_text_encoder,
    encode_classes,
)
from mmdet_clim.progress import track
from mmdet_clim.registry import MODELS

CONFIG = Path(__file__).parents[1] / 'configs/coco_small/lite0_clim.py'
SIDE = 256
#: Mosaics that are collected, by rows and columns.
MOSAICS = {2: 400, 3: 180}
#: Mosaics of 2x2 whose tiles are as large as the photographs.
LARGE_MOSAICS = 60
#: Random boxes of a photograph, with a crop each.
BOXES_PER_IMAGE = 1
#: Of a refinement's batch: tiles of each grid, whole photographs.
TILES = {2: 12, 3: 9}
WHOLE = 7
LABELLED = 28
TEMPERATURE = 20.0
LABEL_BIAS = -8.0
RESAMPLES = 1000


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--data-root', type=Path, default='data/coco_small')
    parser.add_argument('--out', type=Path, required=True)
    parser.add_argument(
        '--texts',
        type=Path,
        help='a file of PrecomputedTextEncoder with all captions and prompts')
    parser.add_argument('--seeds', type=int, nargs='+', default=[*range(5)])
    parser.add_argument('--pretrain-iters', type=int, default=600)
    parser.add_argument('--refine-iters', type=int, default=100)
    parser.add_argument('--pretrain-lr', type=float, default=1e-3)
    parser.add_argument('--refine-lr', type=float, default=1e-4)
    return parser.parse_args()


class Collector:
    """Vectors of regions, by the backbone of a tower."""

    def __init__(self, tower: ImageTower, root: Path) -> None:
        self.tower, self.root = tower, root

    def read(self, entry: dict) -> Tensor:
        """A photograph (3, h, w), normalised."""
        image = read_image_file(self.root / 'images' / entry['file_name'])
        image = torch.from_numpy(image[..., ::-1].copy()).movedim(2, 0)
        mean, std = (
            torch.tensor(value).view(3, 1, 1) * 255
            for value in (self.tower.mean, self.tower.std))
        return (image - mean) / std

    def frame(self, image: Tensor) -> Tensor:
        """It on the 256 x 256 that the recipes pad it to."""
        return F.pad(image,
                     (0, SIDE - image.shape[2], 0, SIDE - image.shape[1]))

    @torch.no_grad()
    def regions(self, images: Tensor, rois: Tensor) -> Tensor:
        """Means of the fused map over regions (R, 5), (R, C)."""
        from mmcv.ops import roi_align
        encoded = self.tower.encode(images)[1]
        return roi_align(encoded.features.contiguous(), rois, 1,
                         1 / self.tower.stride, 0, 'avg', True).flatten(1)

    @torch.no_grad()
    def whole(self, images: Tensor) -> Tensor:
        """Means over whole images (N, C)."""
        return self.tower.encode(images)[1].features.mean((2, 3))


def collect(tower: ImageTower, root: Path) -> dict:
    """All vectors that the trainings and the evaluation need."""
    collector = Collector(tower, root)
    entries = _read(root, 'captions_train2017_tags.json')['images']
    captioned, sizes, found = [], [], {}
    boxes = RandomBoxes(BOXES_PER_IMAGE)
    torch.manual_seed(0)
    vectors, of_boxes, crops, whose = [], [], [], []
    for number, entry in enumerate(track(entries, 'photographs')):
        image = collector.read(entry)
        sizes.append(tuple(image.shape[1:]))
        frame = collector.frame(image)[None]
        captioned.append(frame.half())
        height, width = sizes[-1]
        drawn = boxes(_Shaped((height, width)))
        rois = torch.cat([torch.tensor([[0., 0., width, height]]), drawn])
        rois = torch.cat([torch.zeros(len(rois), 1), rois], 1)
        seen = collector.regions(frame, rois)
        vectors.append(seen[:1])
        of_boxes.append(seen[1:])
        crops.append(
            collector.whole(crop_images(frame, rois[1:], tower.native_size)))
        whose += [number] * len(drawn)
    found.update(
        whole=torch.cat(vectors),
        boxes=torch.cat(of_boxes),
        crops=torch.cat(crops),
        captions=[entry['captions'] for entry in entries])
    rng = random.Random(0)
    for side, count in MOSAICS.items():
        tiles, members = [], []
        make = BatchMosaic(((side, side), ))
        for _ in track(range(count), f'mosaics of {side}x{side}'):
            chosen = [rng.randrange(len(entries)) for _ in range(side**2)]
            images = torch.cat([captioned[i] for i in chosen]).float()
            tiles.append(
                collector.regions(*make(images, [sizes[i] for i in chosen])))
            members += chosen
        found[f'tiles{side}'] = torch.cat(tiles)
        found[f'members{side}'] = torch.tensor(members)
    found.update(_evaluation(collector, root))
    return found


def collect_large(tower: ImageTower, root: Path) -> dict:
    """Vectors of tiles that are as large as the photographs themselves."""
    collector = Collector(tower, root)
    entries = _read(root, 'captions_train2017_tags.json')['images']
    rng = random.Random(1)
    tiles, members = [], []
    for _ in track(range(LARGE_MOSAICS), 'large mosaics of 2x2'):
        chosen = [rng.randrange(len(entries)) for _ in range(4)]
        images = [collector.read(entries[i]) for i in chosen]
        above, below = (
            torch.cat([collector.frame(i) for i in pair], 2)
            for pair in (images[:2], images[2:]))
        rois = torch.tensor([[
            0., SIDE * (n % 2), SIDE * (n // 2),
            SIDE * (n % 2) + image.shape[2], SIDE * (n // 2) + image.shape[1]
        ] for n, image in enumerate(images)])
        tiles.append(
            collector.regions(torch.cat([above, below], 1)[None], rois))
        members += chosen
    return dict(tilesL=torch.cat(tiles), membersL=torch.tensor(members))


class _Shaped:
    """What a box source asks of a sample."""

    def __init__(self, shape: tuple[int, int]) -> None:
        self.img_shape = shape


def _read(root: Path, name: str) -> dict:
    return json.loads((root / 'annotations' / name).read_text())


def _evaluation(collector: Collector, root: Path) -> dict:
    """Vectors, classes and images of the annotated boxes."""
    content = _read(root, 'instances_val2017.json')
    classes = OVCocoDataset.METAINFO['classes']
    label = {c['id']: classes.index(c['name']) for c in content['categories']}
    of_image: dict[int, list[dict]] = {}
    for box in content['annotations']:
        if not box.get('iscrowd'):
            of_image.setdefault(box['image_id'], []).append(box)
    vectors, labels, images = [], [], []
    for entry in track(content['images'], 'evaluation photographs'):
        boxes = of_image.get(entry['id'], [])
        if not boxes:
            continue
        rois = torch.tensor([[0, *box['bbox']] for box in boxes])
        rois[:, 3:] += rois[:, 1:3]
        frame = collector.frame(collector.read(entry))[None]
        vectors.append(collector.regions(frame, rois))
        labels += [label[box['category_id']] for box in boxes]
        images += [entry['id']] * len(boxes)
    return dict(
        annotated=torch.cat(vectors),
        labels=torch.tensor(labels),
        images=torch.tensor(images))


class Trainer:
    """Heads on collected vectors.

    Args:
        found (dict): What :func:`collect` gave.
        texts (dict): Embedding (D,) of each caption.
        classes (Tensor): (C, D) of the class prompts.
        head (Callable): Makes a head.
    """

    def __init__(self, found: dict, texts: dict[str, Tensor], classes: Tensor,
                 head) -> None:
        self.found, self.texts, self.classes = found, texts, classes
        self.make_head = head

    def fit(self, head: nn.Module, step, iters: int, lr: float) -> nn.Module:
        """Train with a loss per step, as the recipes' schedule has it."""
        loss = MODELS.build(
            dict(
                type='mmdet_clim.CLIMRegionLoss',
                kind='infonce',
                temperature=TEMPERATURE,
                learn_temperature=True))
        bias = nn.Parameter(torch.tensor(LABEL_BIAS))
        matrices = [p for p in head.parameters() if p.ndim > 1]
        others = [p for p in head.parameters() if p.ndim < 2]
        optimizer = torch.optim.AdamW([
            dict(params=matrices, weight_decay=.1),
            dict(params=[*others, *loss.parameters(), bias], weight_decay=0.)
        ],
                                      lr=lr)
        warm_up = max(1, iters // 10)
        head.train()
        for i in range(iters):
            part = min((i + 1) / warm_up, .5 * (1 + np.cos(np.pi * i / iters)))
            for group in optimizer.param_groups:
                group['lr'] = lr * part
            value = step(head, loss, bias)
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
        return head.eval()

    def contrast(self, **counts: int):
        """A step that contrasts regions with captions.

        Args:
            **counts: Of 'whole', 'tiles2', 'tiles3', 'tilesL', how
                many.
        """

        def step(head, loss, bias):
            vectors, whose = [], []
            for name, count in counts.items():
                pool = self.found[name]
                chosen = torch.randint(len(pool), (count, ))
                vectors.append(pool[chosen])
                whose.append(chosen if name == 'whole' else self.
                             found[name.replace('tiles', 'members')][chosen])
            whose = torch.cat(whose)
            captions = [
                random.choice(self.found['captions'][i])
                for i in whose.tolist()
            ]
            texts = torch.stack([self.texts[c] for c in captions])
            same = whose[:, None] == whose[None]
            return loss(head(torch.cat(vectors)), texts, same)

        return step

    def label(self, original: nn.Module, min_confidence: float = 0.3):
        """A step of RegionCLIP's way: crops named by the original."""
        with torch.no_grad():
            named = F.normalize(original(self.found['crops']), dim=1)
            chances = (TEMPERATURE * named @ self.classes.t()).softmax(1)
        confidence, labels = chances.max(1)
        sure = (confidence >= min_confidence).nonzero().flatten()

        def step(head, loss, bias):
            chosen = sure[torch.randint(len(sure), (LABELLED, ))]
            regions = F.normalize(head(self.found['boxes'][chosen]), dim=1)
            logits = TEMPERATURE * regions @ self.classes.t() + bias
            targets = F.one_hot(labels[chosen], len(self.classes))
            return F.binary_cross_entropy_with_logits(
                logits, targets.to(logits), reduction='sum') / LABELLED

        return step, len(sure) / len(labels)

    def distil(self, original: nn.Module):
        """A step of self-distillation: a region as its crop is seen."""
        with torch.no_grad():
            wanted = F.normalize(original(self.found['crops']), dim=1)

        def step(head, loss, bias):
            chosen = torch.randint(len(wanted), (LABELLED, ))
            regions = F.normalize(head(self.found['boxes'][chosen]), dim=1)
            return (1 - (regions * wanted[chosen]).sum(1)).mean()

        return step

    def rows(self, seed: int, args: argparse.Namespace) -> dict[str, Tensor]:
        """Of each row, where the true class of each box stands."""
        torch.manual_seed(seed)
        random.seed(seed)
        first = self.fit(self.make_head(), self.contrast(whole=64),
                         args.pretrain_iters, args.pretrain_lr)

        def refine(step):
            head = self.make_head()
            head.load_state_dict(first.state_dict())
            return self.fit(head, step, args.refine_iters, args.refine_lr)

        tiles = {f'tiles{side}': count for side, count in TILES.items()}
        label, share = self.label(first)
        print(f'seed {seed}: {100 * share:.0f} % of the crops are labelled')
        heads = {
            'captions of whole photographs':
            first,
            '+ as many iterations more':
            refine(self.contrast(whole=WHOLE + sum(TILES.values()))),
            '+ region labels':
            refine(label),
            '+ self-distillation':
            refine(self.distil(first)),
            '+ CLIM, tiles of a half and a third':
            refine(self.contrast(whole=WHOLE, **tiles)),
            '+ CLIM, tiles as large as photographs':
            refine(self.contrast(whole=WHOLE, tilesL=sum(TILES.values()))),
        }
        return {name: self.places(head) for name, head in heads.items()}

    @torch.no_grad()
    def places(self, head: nn.Module) -> Tensor:
        """How many classes come before the true one, per box."""
        regions = F.normalize(head(self.found['annotated']), dim=1)
        return region_classification_metric.true_class_places(
            regions @ self.classes.t(), self.found['labels'])


class Accuracy:
    """Top-k accuracies, mean over classes, with resampled photographs."""

    def __init__(self, labels: Tensor, images: Tensor) -> None:
        meta = OVCocoDataset.METAINFO
        count = len(meta['classes'])
        base = np.isin(meta['classes'], meta['base_classes'])
        self.groups = dict(all=np.ones(count, bool), base=base, novel=~base)
        every, row = np.unique(images.numpy(), return_inverse=True)
        self.cell = row * count + labels.numpy()
        self.shape = len(every), count
        rng = np.random.default_rng(0)
        self.draws = rng.multinomial(
            len(every), np.full(len(every), 1 / len(every)),
            RESAMPLES).astype(float)
        self.boxes = self._table(np.ones(len(labels)))

    def _table(self, weights: np.ndarray) -> np.ndarray:
        """Sums per photograph and class."""
        return np.bincount(self.cell, weights,
                           np.prod(self.shape)).reshape(self.shape)

    def __call__(self, places: Tensor) -> dict[str, np.ndarray]:
        """In percent; the first value is of the photographs themselves."""
        found = {}
        draws = np.concatenate([np.ones((1, self.shape[0])), self.draws])
        boxes = draws @ self.boxes
        for k in (1, 5):
            hits = draws @ self._table((places.numpy() < k).astype(float))
            with np.errstate(invalid='ignore'):
                share = hits / boxes
            for group, members in self.groups.items():
                found[f'{group}_top{k}'] = 100 * np.nanmean(
                    share[:, members], axis=1)
        return found


def summarise(rows: list[dict[str, dict[str, np.ndarray]]]) -> list[dict]:
    """Means over seeds, and differences to the first and second row."""
    table = []
    names = list(rows[0])
    for name in names:
        entry = dict(name=name, metrics={}, differences={})
        for key in rows[0][name]:
            values = [seed[name][key][0] for seed in rows]
            entry['metrics'][key] = dict(
                mean=float(np.mean(values)),
                sd=float(np.std(values, ddof=1)) if len(values) > 1 else None,
                values=[float(v) for v in values])
            for other in names[:2]:
                if other == name:
                    continue
                # The same photographs are drawn for both; seeds are averaged.
                gap = np.mean(
                    [seed[name][key] - seed[other][key] for seed in rows], 0)
                low, high = np.percentile(gap[1:], [2.5, 97.5])
                entry['differences'].setdefault(other, {})[key] = dict(
                    mean=float(gap[0]), low=float(low), high=float(high))
        table.append(entry)
    return table


def main() -> None:
    """Collect, train, compare."""
    args = parse_args()
    torch.set_num_threads(1)
    cfg = Config.fromfile(CONFIG)
    tower_cfg = cfg.model.image_tower
    tower_cfg.pop('pretrained')
    tower = MODELS.build(tower_cfg).eval()
    found: dict = {}
    for name, make in (('vectors', collect), ('large', collect_large)):
        file = args.out / f'{name}.pth'
        if not file.exists():
            with atomic_path(file) as beside:
                torch.save(make(tower, args.data_root), beside)
        found.update(torch.load(file, weights_only=True))
    encoder = build_text_encoder(
        dict(type='mmdet_clim.PrecomputedTextEncoder', file=str(args.texts)
             ) if args.texts else cfg.model.text_encoder)
    captions = sorted({c for of in found['captions'] for c in of})
    classes = encode_classes(encoder,
                             build_vocabulary(cfg.model.vocabulary).names,
                             cfg.model.templates)

    def head() -> nn.Module:
        made = copy.deepcopy(tower.visual)
        for layer in made.modules():
            if isinstance(layer, (nn.Linear, nn.LayerNorm)):
                layer.reset_parameters()
        return made

    trainer = Trainer(found, dict(zip(captions, encoder(captions))), classes,
                      head)
    accuracy = Accuracy(found['labels'], found['images'])
    seeds = []
    for seed in args.seeds:
        places = trainer.rows(seed, args)
        seeds.append({name: accuracy(row) for name, row in places.items()})
        for name, values in seeds[-1].items():
            print(f'{name:38}',
                  *(f'{k} {v[0]:5.1f}' for k, v in values.items()))
    table = summarise(seeds)
    with atomic_path(args.out / 'table.json') as beside:
        beside.write_text(json.dumps(table, indent=1) + '\n')
    for entry in table:
        print(
            f"{entry['name']:38}",
            *(f"{key} {v['mean']:5.1f}"
              for key, v in entry['metrics'].items()))
        for other, gaps in entry['differences'].items():
            print(
                f'    minus {other}:',
                *(f"{key} {v['mean']:+.1f} [{v['low']:+.1f}, {v['high']:+.1f}]"
                  for key, v in gaps.items()))


if __name__ == '__main__':
    main()
