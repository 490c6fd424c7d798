# Detic's Faster R-CNN with a C4 ResNet-50, modified from mmdet's
# faster-rcnn_r50-caffe-c4: the box head classifies by CLIP embeddings of the
# class names and regresses boxes class-agnostically by an MLP.
# REFERENCE.md, section 2 (OV-COCO): 80 classes, the prompts of ViLD, tau 25,
# learnable b from -20.
# Two files may lie elsewhere: CLIP_VIT_B_32 names a checkpoint of CLIP
# ViT-B/32, RESNET50_CAFFE one of the backbone.
_base_ = 'mmdet::_base_/models/faster-rcnn_r50-caffe-c4.py'

vocabulary = dict(dataset='mmdet_clim.OVCoco80Dataset')
text_encoder = dict(
    type='mmdet_clim.OpenCLIPTextEncoder',
    model='ViT-B-32-quickgelu',
    pretrained='{{$CLIP_VIT_B_32:openai}}')
resnet_checkpoint = \
    '{{$RESNET50_CAFFE:open-mmlab://detectron2/resnet50_caffe}}'

model = dict(
    backbone=dict(
        init_cfg=dict(type='Pretrained', checkpoint=resnet_checkpoint)),
    roi_head=dict(
        shared_head=dict(
            init_cfg=dict(type='Pretrained', checkpoint=resnet_checkpoint)),
        bbox_head=dict(
            _delete_=True,
            type='mmdet_clim.ZeroShotBBoxHead',
            vocabulary=vocabulary,
            classifier=dict(
                text_encoder=text_encoder,
                templates='vild',
                temperature=25.0,
                bias=-20.0),
            with_avg_pool=True,
            roi_feat_size=7,
            in_channels=2048,
            reg_class_agnostic=True,
            reg_predictor_cfg=dict(type='mmdet_clim.MLPRegressor'),
            bbox_coder=dict(
                type='mmdet.DeltaXYWHBBoxCoder',
                target_means=[0., 0., 0., 0.],
                target_stds=[0.1, 0.1, 0.2, 0.2]),
            loss_bbox=dict(type='mmdet.L1Loss', loss_weight=1.0))),
    # A sigmoid score of an open vocabulary starts near 0.
    test_cfg=dict(rcnn=dict(score_thr=0.0001)))
