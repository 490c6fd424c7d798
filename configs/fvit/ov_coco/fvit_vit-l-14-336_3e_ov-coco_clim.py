# F-ViT on the CLIP ViT-L/14 that configs/region_clip refines with CLIM.
# CLIM_VIT_L_14_336 names its checkpoint.
_base_ = './fvit_vit-l-14-336_3e_ov-coco.py'
model = dict(
    backbone=dict(
        pretrained=  # noqa: E251
        '{{$CLIM_VIT_L_14_336:work_dirs/clim_vit-l-14-336_coco-captions/open_clip.pt}}'  # noqa: E501
    ))
