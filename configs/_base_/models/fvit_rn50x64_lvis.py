# F-VLM on CLIP's RN50x64 (REFERENCE.md, section 5): the four stages of the
# ResNet, an FPN, norms in the RPN, regions by the attention pool.
# CLIP_RN50X64 names a checkpoint of CLIP, or open_clip's name.
_base_ = './fvit_vit-b-16_lvis.py'
clip = dict(model='RN50x64-quickgelu', pretrained='{{$CLIP_RN50X64:openai}}')
model = dict(
    backbone=dict(
        _delete_=True,
        type='mmdet_clim.OpenCLIPResNet',
        model='RN50x64-quickgelu',
        pretrained='{{$CLIP_RN50X64:openai}}'),
    neck=dict(
        _delete_=True,
        type='mmdet.FPN',
        in_channels=[512, 1024, 2048, 4096],
        out_channels=256,
        norm_cfg=_base_.norm,
        num_outs=5),
    rpn_head=dict(type='mmdet_clim.NormRPNHead', norm_cfg=_base_.norm),
    roi_head=dict(bbox_head=dict(classifier=dict(text_encoder=clip))))
