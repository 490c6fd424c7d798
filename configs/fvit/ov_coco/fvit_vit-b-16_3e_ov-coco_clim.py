# F-ViT on the CLIP ViT-B/16 that configs/region_clip refines with CLIM.
# CLIM_VIT_B_16 names its checkpoint.
_base_ = './fvit_vit-b-16_3e_ov-coco.py'
model = dict(
    backbone=dict(
        pretrained=  # noqa: E251
        '{{$CLIM_VIT_B_16:work_dirs/clim_vit-b-16_coco-captions/open_clip.pt}}'
    ))
