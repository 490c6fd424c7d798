# Swin-B, pretrained on ImageNet-21k, for the place of a ResNet-50 with FPN.
# SWIN_B names its checkpoint in Microsoft's format.
swin_b = dict(
    type='mmdet.SwinTransformer',
    embed_dims=128,
    depths=[2, 2, 18, 2],
    num_heads=[4, 8, 16, 32],
    window_size=7,
    drop_path_rate=0.3,
    out_indices=(0, 1, 2, 3),
    convert_weights=True,
    init_cfg=dict(
        type='Pretrained',
        checkpoint=  # noqa: E251
        '{{$SWIN_B:https://github.com/SwinTransformer/storage/releases/download/v1.0.0/swin_base_patch4_window7_224_22k.pth}}'  # noqa: E501
    ))
swin_b_channels = [128, 256, 512, 1024]
