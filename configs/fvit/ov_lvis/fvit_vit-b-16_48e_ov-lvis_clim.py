# F-ViT on the CLIP ViT-B/16 that configs/region_clip refines with CLIM.
# CLIM_VIT_B_16 names its checkpoint.
_base_ = './fvit_vit-b-16_48e_ov-lvis.py'
model = dict(
    backbone=dict(
        pretrained=  # noqa: E251
        '{{$CLIM_VIT_B_16:work_dirs/clim_vit-b-16_cc3m/open_clip.pt}}'))
