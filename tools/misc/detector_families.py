# Licensed under the Apache License, Version 2.0.
r"""Try the detector families of the installed mmdet under CLIMDetector.

Each family is a config that mmdet ships: it gets class names of five classes
as text embeddings where that is possible, is wrapped, and has to build, to
run a training step on two boxed images and two mosaics with finite gradients
in every trainable part (and is asked which of the layers that name boxes the
mosaics alone train), one on mosaics of odd sizes, with MMEngine's EMAHook
beside them, and to be evaluated by mmdet's CocoMetric. Nothing is
mocked; ResNets are of depth 18, images of 320 pixels, weights random, and the
language models a small BERT that is made here.

    python tools/misc/detector_families.py --results work_dirs/families.json
    python tools/misc/detector_families.py --results work_dirs/families.json \
        --docs docs/detectors.md

What is in the results already is not tried again.
"""
import argparse
import json
import tempfile
from pathlib import Path

from mmdet_clim_cli.mistakes import run_command

FAMILIES = {
    'Faster R-CNN':
    'faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py',
    'Mask R-CNN':
    'mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py',
    'Cascade R-CNN':
    'cascade_rcnn/cascade-rcnn_r50_fpn_1x_coco.py',
    'HTC':
    'htc/htc-without-semantic_r50_fpn_1x_coco.py',
    'Grid R-CNN':
    'grid_rcnn/grid-rcnn_r50_fpn_gn-head_2x_coco.py',
    'TridentNet':
    'tridentnet/tridentnet_r50-caffe_1x_coco.py',
    'Libra R-CNN':
    'libra_rcnn/libra-faster-rcnn_r50_fpn_1x_coco.py',
    'Double-Head R-CNN':
    'double_heads/dh-faster-rcnn_r50_fpn_1x_coco.py',
    'Dynamic R-CNN':
    'dynamic_rcnn/dynamic-rcnn_r50_fpn_1x_coco.py',
    'PISA':
    'pisa/faster-rcnn_r50_fpn_pisa_1x_coco.py',
    'SABL':
    'sabl/sabl-faster-rcnn_r50_fpn_1x_coco.py',
    'Cascade RPN':
    'cascade_rpn/cascade-rpn_faster-rcnn_r50-caffe_fpn_1x_coco.py',
    'Mask Scoring R-CNN':
    'ms_rcnn/ms-rcnn_r50-caffe_fpn_1x_coco.py',
    'PointRend':
    'point_rend/point-rend_r50-caffe_fpn_ms-1x_coco.py',
    'Sparse R-CNN':
    'sparse_rcnn/sparse-rcnn_r50_fpn_1x_coco.py',
    'QueryInst':
    'queryinst/queryinst_r50_fpn_1x_coco.py',
    'RetinaNet':
    'retinanet/retinanet_r50_fpn_1x_coco.py',
    'FreeAnchor':
    'free_anchor/freeanchor_r50_fpn_1x_coco.py',
    'FoveaBox':
    'foveabox/fovea_r50_fpn_4xb4-1x_coco.py',
    'FSAF':
    'fsaf/fsaf_r50_fpn_1x_coco.py',
    'Guided Anchoring':
    'guided_anchoring/ga-retinanet_r50_fpn_1x_coco.py',
    'NAS-FCOS':
    'nas_fcos/nas-fcos_r50-caffe_fpn_nashead-gn-head_4xb4-1x_coco.py',
    'FCOS':
    'fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py',
    'ATSS':
    'atss/atss_r50_fpn_1x_coco.py',
    'PAA':
    'paa/paa_r50_fpn_1x_coco.py',
    'GFL':
    'gfl/gfl_r50_fpn_1x_coco.py',
    'VFNet':
    'vfnet/vfnet_r50_fpn_1x_coco.py',
    'TOOD':
    'tood/tood_r50_fpn_1x_coco.py',
    'DDOD':
    'ddod/ddod_r50_fpn_1x_coco.py',
    'AutoAssign':
    'autoassign/autoassign_r50-caffe_fpn_1x_coco.py',
    'RepPoints':
    'reppoints/reppoints-moment_r50_fpn_1x_coco.py',
    'RTMDet':
    'rtmdet/rtmdet_tiny_8xb32-300e_coco.py',
    'RTMDet-Ins':
    'rtmdet/rtmdet-ins_tiny_8xb32-300e_coco.py',
    'YOLOX':
    'yolox/yolox_tiny_8xb8-300e_coco.py',
    'YOLOv3':
    'yolo/yolov3_mobilenetv2_8xb24-ms-416-300e_coco.py',
    'YOLOF':
    'yolof/yolof_r50-c5_8xb8-1x_coco.py',
    'SSD':
    'ssd/ssd300_coco.py',
    'CenterNet':
    'centernet/centernet_r18_8xb16-crop512-140e_coco.py',
    'CenterNet (update)':
    'centernet/centernet-update_r18_fpn_8xb8-amp-lsj-200e_coco.py',
    'CornerNet':
    'cornernet/cornernet_hourglass104_8xb6-210e-mstest_coco.py',
    'YOLACT':
    'yolact/yolact_r50_1xb8-55e_coco.py',
    'SOLO':
    'solo/solo_r50_fpn_1x_coco.py',
    'SOLOv2':
    'solov2/solov2_r50_fpn_1x_coco.py',
    'CondInst':
    'condinst/condinst_r50_fpn_ms-poly-90k_coco_instance.py',
    'BoxInst':
    'boxinst/boxinst_r50_fpn_ms-90k_coco.py',
    'Mask2Former':
    'mask2former/mask2former_r50_8xb2-lsj-50e_coco.py',
    'DETR':
    'detr/detr_r50_8xb2-150e_coco.py',
    'Conditional DETR':
    'conditional_detr/conditional-detr_r50_8xb2-50e_coco.py',
    'DAB-DETR':
    'dab_detr/dab-detr_r50_8xb2-50e_coco.py',
    'Deformable DETR':
    'deformable_detr/deformable-detr_r50_16xb2-50e_coco.py',
    'DINO':
    'dino/dino-4scale_r50_8xb2-12e_coco.py',
    'DDQ':
    'ddq/ddq-detr-4scale_r50_8xb2-12e_coco.py',
    'GLIP-T (A)':
    'glip/glip_atss_swin-t_a_fpn_dyhead_16xb2_ms-2x_'
    'funtune_coco.py',
    'GLIP-T (B)':
    'glip/glip_atss_swin-t_b_fpn_dyhead_16xb2_ms-2x_'
    'funtune_coco.py',
    'Grounding DINO':
    'grounding_dino/grounding_dino_swin-t_finetune_16xb2_1x_coco.py',
    'MM-Grounding-DINO':
    'mm_grounding_dino/coco/grounding_dino_swin-t_'
    'finetune_16xb4_1x_coco_48_17.py',
}
KEYS = ('builds', 'trains', 'odd', 'ema', 'evaluates')
MARK = '<!-- what tools/misc/detector_families.py found -->'


def table(results: dict[str, dict]) -> str:
    """Results as a Markdown table."""
    lines = [
        '| family | region reader | classifies by text | mosaics reach names '
        '| builds | trains | odd sizes | EMA | evaluates | remarks |',
        '|---|---|---|---|---|---|---|---|---|---|'
    ]
    for name in FAMILIES:
        if name not in results:
            continue
        found = results[name]
        words = {True: 'yes', False: '**no**', None: '–'}
        closed = found['open'].startswith('no: ')
        remarks = [found['open'][4:]] if closed else []
        if 'unused' in found:
            remarks.append(f'{found["unused"]}: unused without CLIM too')
        if 'unset' in found:
            remarks.append(f'{found["unset"]}: mmdet initialises them by a '
                           'checkpoint alone')
        remarks += dict.fromkeys(found.get('reasons', {}).values())
        lines.append('| ' + ' | '.join([
            name,
            found.get('reader', '–'), 'no' if closed else found['open'],
            reach(*found.get('reaches', (0, 0))), *(words[found.get(key)]
                                                    for key in KEYS),
            ' '.join('; '.join(remarks).replace('|', r'\|').split())
        ]) + ' |')
    return '\n'.join(lines)


def reach(reached: int, layers: int) -> str:
    """Of the layers that name boxes, those that mosaics train, in words."""
    if not layers:
        return '–'
    if not reached:
        return 'no'
    return 'yes' if reached == layers else f'{reached} of {layers}'


def main() -> None:
    """Try what is missing, and write the table where it is asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__.partition('\n')[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument(
        '--results',
        type=Path,
        required=True,
        help='JSON file of the results so far')
    parser.add_argument(
        '--families',
        nargs='+',
        choices=list(FAMILIES),
        metavar='FAMILY',
        default=list(FAMILIES),
        help='families to try')
    parser.add_argument(
        '--docs',
        type=Path,
        help='only write the table to this page, without running anything')
    args = parser.parse_args()
    # Late, as all that takes seconds to import.
    from mmdet_clim.files import atomic_path
    results = {}
    if args.results.exists():
        results = json.loads(args.results.read_text())
    if args.docs is not None:
        before, mark, after = args.docs.read_text().partition(MARK)
        if not mark or MARK not in after:
            raise ValueError(
                f'--docs {args.docs}: expected two lines {MARK!r}')
        after = after.partition(MARK)[2]
        with atomic_path(args.docs) as beside:
            beside.write_text(
                f'{before}{MARK}\n{table(results)}\n{MARK}{after}')
        return
    from family_trials import examine
    from mmengine.logging import MMLogger
    MMLogger.get_instance('families', log_level='WARNING')
    with tempfile.TemporaryDirectory() as folder:
        for name in args.families:
            if name in results:
                continue
            results[name] = examine(FAMILIES[name], Path(folder))
            with atomic_path(args.results) as beside:
                beside.write_text(json.dumps(results, indent=1))
            print(name, results[name], flush=True)


if __name__ == '__main__':
    run_command(main)
