# Licensed under the Apache License, Version 2.0.
"""What a CLIM branch asks of a GPU, counted without one.

One branch of the OV-LVIS recipe (CenterNet2, captions and tags) runs with
tensors that claim to be on a GPU: ``fakecuda.py``, which is no part of this
package, counts how often the host waits for the device, and the operators
that it starts. Widths and images are small; what is counted does not depend on
them. mmdet's own parts are the RoI extractors and the suppression of
proposals, one wait per image and level.

    python benchmarks/device_work.py --fakecuda ../shared/tools/fakecuda.py
"""
import argparse
import importlib.util
import json
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from mmdet.structures import DetDataSample
from mmdet.utils import register_all_modules
from mmengine.config import Config
from mmengine.registry import MODELS
from mmengine.structures import InstanceData
from torch import nn

import mmdet_clim  # noqa: F401  (first: it prepares the stack)

CONFIG = (
    Path(__file__).parents[1] / 'configs/detic/ov_lvis/'
    'detic_r50-centernet2_45k_ov-lvis_captions-tags_clim.py')
NUM_CLASSES = 1203
DIM = 64
GRIDS = dict(mosaic=((2, 2), (3, 3), (4, 4)), captions=((1, 1), ))
NAMES = [f'class {index}' for index in range(NUM_CLASSES)]
CAPTIONS = [f'caption {index}' for index in range(1000)]


def build(folder: Path) -> nn.Module:
    """The recipe's model with narrow layers and made-up texts."""
    texts = NAMES + CAPTIONS
    torch.manual_seed(0)
    torch.save(
        dict(names=texts, vectors=torch.randn(len(texts), DIM)),
        folder / 'texts.pth')
    encoder = dict(
        type='mmdet_clim.PrecomputedTextEncoder',
        file=str(folder / 'texts.pth'))
    model = Config.fromfile(CONFIG).model
    model['text_encoder'] = None  # the detector's own
    detector = model.detector
    detector.backbone.update(base_channels=8, init_cfg=None)
    detector.neck.update(in_channels=[32, 64, 128, 256], out_channels=16)
    detector.rpn_head.update(
        in_channels=16,
        feat_channels=16,
        norm_cfg=dict(type='GN', num_groups=4))
    roi_head = detector.roi_head
    roi_head.bbox_roi_extractor.out_channels = 16
    roi_head.mask_roi_extractor.out_channels = 16
    roi_head.mask_head.update(in_channels=16, conv_out_channels=16)
    for head in roi_head.bbox_head:
        head.update(in_channels=16, fc_out_channels=32, vocabulary=NAMES)
        head.classifier.pop('text_encoder')
        head.classifier['text_encoder'] = encoder
        head.classifier['templates'] = ('{}', )
    for objective in model.objectives.values():
        if 'vocabulary' in objective:
            objective.update(vocabulary=NAMES, templates=('{}', ))
        if 'queue' in objective:
            objective.queue.dim = DIM
    return MODELS.build(model).train()


def make_batch(num_images: int, side: int) -> dict:
    """So many images of each branch."""
    inputs, samples = [], []
    for branch, grids in GRIDS.items():
        for index in range(num_images):
            rows, cols = grids[index % len(grids)]
            count = rows * cols
            keys = [len(inputs) * 16 + tile for tile in range(count)]
            sample = DetDataSample(
                metainfo=dict(
                    branch=branch,
                    img_shape=(side, side),
                    ori_shape=(side, side),
                    captions=[[CAPTIONS[k % len(CAPTIONS)]] for k in keys],
                    tags=[[k % NUM_CLASSES] for k in keys],
                    image_ids=keys,
                    image_keys=keys,
                    mosaic_grid=(rows, cols)))
            boxes = [[
                side / cols * x, side / rows * y, side / cols * (x + 1),
                side / rows * (y + 1)
            ] for y in range(rows) for x in range(cols)]
            sample.gt_instances = InstanceData(
                bboxes=torch.tensor(boxes),
                labels=torch.zeros(count, dtype=torch.long))
            generator = torch.Generator().manual_seed(len(inputs))
            inputs.append(
                torch.randint(
                    256, (3, side, side),
                    generator=generator,
                    dtype=torch.uint8))
            samples.append(sample)
    return dict(inputs=inputs, data_samples=samples)


def measure(fakecuda: Path,
            num_images: int,
            side: int,
            lines: int = 0) -> dict[str, dict]:
    """Count what each branch asks for in a step, once its texts are known.

    Args:
        fakecuda (Path): The tool. It changes PyTorch in this process.
        num_images (int): Per branch.
        side (int): Of the images, in pixels.
        lines (int): How many lines of code to print of each branch.

    Returns:
        dict: Branch to ``waits``, those of mmdet's parts left out,
        ``all_waits`` and ``operators``.
    """
    register_all_modules()  # all of mmdet, before the tool changes PyTorch
    spec = importlib.util.spec_from_file_location('fakecuda', fakecuda)
    counter = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(counter)
    counter.patch_mmcv()
    with TemporaryDirectory() as folder:
        model = build(Path(folder))
    found = {}
    with counter.Mode():
        model.to('cuda:0')
        data = model.data_preprocessor(make_batch(num_images, side), True)
        model(**data, mode='loss')
        for branch in GRIDS:
            counter.reset()
            counter.enabled[0] = True
            model.branch_loss(branch, data['inputs'][branch],
                              data['data_samples'][branch])
            counter.enabled[0] = False
            if lines:
                counter.report(branch, lines)
            found[branch] = dict(
                # Where mmdet waits, its line stands behind that of ours.
                waits=sum(
                    count for (_, line), count in counter.counts.items()
                    if '->' not in line),
                all_waits=sum(counter.counts.values()),
                operators=counter.launches['n'])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__.split('\n', maxsplit=1)[0])
    parser.add_argument('--fakecuda', type=Path, required=True)
    parser.add_argument('--images', type=int, default=16)
    parser.add_argument('--side', type=int, default=320)
    parser.add_argument('--lines', type=int, default=0)
    parser.add_argument('--out', type=Path, help='write the numbers as JSON')
    args = parser.parse_args()
    found = measure(args.fakecuda, args.images, args.side, args.lines)
    print('| branch | host waits | with those of mmdet | operators |')
    print('|---|---|---|---|')
    for branch, numbers in found.items():
        print(f'| {branch} | ' + ' | '.join(map(str, numbers.values())) + ' |')
    if args.out:
        args.out.write_text(json.dumps(found))


if __name__ == '__main__':
    main()
