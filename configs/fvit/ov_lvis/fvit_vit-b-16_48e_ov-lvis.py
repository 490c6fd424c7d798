# F-ViT on the original CLIP ViT-B/16.
_base_ = [
    '../../_base_/models/fvit_vit-b-16_lvis.py',
    '../../_base_/datasets/fvit_ov_lvis_640.py',
    '../../_base_/schedules/fvit_adamw_48e.py',
    '../../_base_/epoch_runtime.py',
]
