# What is other in F-ViT on CLIP's ViT-L/14 of 336 pixels: 24 blocks of width
# 1024 and patches of 14 pixels, so that the levels have strides 3.5, 7, 14, 28
# and 56. The taps are those of 12 blocks at twice the depth.
# CLIP_VIT_L_14_336 names a checkpoint of CLIP, or open_clip's name of it.
vit_l_clip = dict(
    model='ViT-L-14-336-quickgelu', pretrained='{{$CLIP_VIT_L_14_336:openai}}')
vit_l_strides = [3.5, 7, 14, 28]
vit_l_model = dict(
    data_preprocessor=dict(pad_size_divisor=56),
    backbone=dict(taps=(7, 11, 15, 23), **vit_l_clip),
    neck=dict(in_channels=[1024, 1024, 1024, 1024]),
    rpn_head=dict(anchor_generator=dict(strides=[*vit_l_strides, 56])),
    roi_head=dict(
        bbox_roi_extractor=dict(featmap_strides=vit_l_strides),
        bbox_head=dict(classifier=dict(text_encoder=vit_l_clip))))
