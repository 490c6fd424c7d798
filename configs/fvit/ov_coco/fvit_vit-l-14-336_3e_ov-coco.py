# F-ViT on the original CLIP ViT-L/14 of 336 pixels.
_base_ = [
    './fvit_vit-b-16_3e_ov-coco.py',
    '../../_base_/models/fvit_vit-l-14-336.py',
]
model = _base_.vit_l_model
