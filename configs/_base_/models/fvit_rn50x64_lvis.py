# F-VLM on CLIP's RN50x64: the four stages of the ResNet, regions by its
# attention pool. CLIP_RN50X64 names a checkpoint of CLIP, or open_clip's name.
_base_ = './fvit_vit-b-16_lvis.py'
clip = dict(model='RN50x64-quickgelu', pretrained='{{$CLIP_RN50X64:openai}}')
model = dict(
    backbone=dict(
        _delete_=True,
        type='mmdet_clim.OpenCLIPResNet',
        model='RN50x64-quickgelu',
        pretrained='{{$CLIP_RN50X64:openai}}'),
    neck=dict(in_channels=[512, 1024, 2048, 4096]),
    roi_head=dict(bbox_head=dict(classifier=dict(text_encoder=clip))))
