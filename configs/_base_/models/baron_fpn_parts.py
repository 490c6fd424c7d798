# What BARON changes in a detector with a ResNet-50 and an FPN: batch norm over
# all GPUs in backbone, neck and box head, and a box head of 4 convs and 1 fc
# that speaks four pseudo-words, read by CLIP's text encoder (REFERENCE.md,
# section 3). A fragment: it defines names of its own (baron_*).
# Files may lie elsewhere: CLIP_VIT_B_32 names a checkpoint of CLIP ViT-B/32,
# RESNET50 one of the backbone.
baron_norm = dict(type='SyncBN', requires_grad=True)
baron_backbone = dict(
    norm_cfg=baron_norm,
    norm_eval=False,
    init_cfg=dict(
        type='Pretrained', checkpoint='{{$RESNET50:torchvision://resnet50}}'))
baron_classifier = dict(
    type='mmdet_clim.PseudoWordClassifier',
    text_encoder=dict(
        type='mmdet_clim.OpenCLIPTextEncoder',
        model='ViT-B-32-quickgelu',
        pretrained='{{$CLIP_VIT_B_32:openai}}'),
    num_words=4)
baron_box_head = dict(
    type='mmdet_clim.ZeroShotConvFCBBoxHead',
    num_shared_convs=4,
    num_shared_fcs=1,
    norm_cfg=baron_norm,
    in_channels=256,
    conv_out_channels=256,
    fc_out_channels=1024,
    roi_feat_size=7,
    reg_class_agnostic=True,
    bbox_coder=dict(
        type='mmdet.DeltaXYWHBBoxCoder',
        target_means=[0., 0., 0., 0.],
        target_stds=[0.1, 0.1, 0.2, 0.2]),
    loss_bbox=dict(type='mmdet.L1Loss', loss_weight=1.0))
