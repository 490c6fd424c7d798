# F-VLM on the CLIP RN50x64 that configs/region_clip refines with CLIM.
# CLIM_RN50X64 names its checkpoint.
_base_ = './fvlm_rn50x64_2880_ov-lvis.py'
model = dict(
    backbone=dict(
        pretrained=  # noqa: E251
        '{{$CLIM_RN50X64:work_dirs/clim_rn50x64_cc3m/open_clip.pt}}'))
