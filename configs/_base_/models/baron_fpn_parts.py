# What BARON changes in a detector with a ResNet-50 and an FPN (REFERENCE.md,
# section 3): nothing of the backbone is frozen, it starts from SoCo's weights,
# batch norms are over all GPUs, those of the box head without learned weights;
# a box head of 4 convs and 1 fc speaks pseudo-words, read by CLIP's text
# encoder before its last norm and projection, dropped with probability 0.5 in
# training; a softmax with tau 50 and a learned background, weighted 0.7.
# A fragment: it defines names of its own (baron_*).
# Files may lie elsewhere: CLIP_VIT_B_32 names a checkpoint of CLIP ViT-B/32,
# SOCO_RESNET50 one of SoCo's ResNet-50.
baron_checkpoint = \
    '{{$SOCO_RESNET50:checkpoints/res50_fpn_soco_star_400.pth}}'
baron_norm = dict(type='SyncBN', requires_grad=True)
baron_backbone = dict(
    frozen_stages=-1,
    norm_cfg=baron_norm,
    norm_eval=False,
    init_cfg=dict(
        type='Pretrained', prefix='backbone.', checkpoint=baron_checkpoint))
baron_classifier = dict(
    type='mmdet_clim.SoftmaxPseudoWordClassifier',
    text_encoder=dict(
        type='mmdet_clim.OpenCLIPTextEncoder',
        model='ViT-B-32-quickgelu',
        pretrained='{{$CLIP_VIT_B_32:openai}}',
        before_projection=True),
    templates='vild',
    temperature=50.0,
    drop_prob=0.5)
baron_box_head = dict(
    type='mmdet_clim.ZeroShotConvFCBBoxHead',
    num_shared_convs=4,
    num_shared_fcs=1,
    norm_cfg=dict(type='SyncBN', requires_grad=False),
    in_channels=256,
    conv_out_channels=256,
    fc_out_channels=1024,
    roi_feat_size=7,
    reg_class_agnostic=True,
    reg_predictor_cfg=dict(type='mmdet_clim.MLPRegressor'),
    bbox_coder=dict(
        type='mmdet.DeltaXYWHBBoxCoder',
        target_means=[0., 0., 0., 0.],
        target_stds=[0.1, 0.1, 0.2, 0.2]),
    loss_cls=dict(
        type='mmdet_clim.BaseClassSoftmaxLoss', background_weight=0.7),
    loss_bbox=dict(type='mmdet.L1Loss', loss_weight=1.0))
