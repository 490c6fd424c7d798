# mmdet's runtime, with iteration-based logs and repeatable model randomness.
default_scope = 'mmdet'

default_hooks = dict(
    timer=dict(type='IterTimerHook'),
    logger=dict(type='LoggerHook', interval=50),
    param_scheduler=dict(type='ParamSchedulerHook'),
    checkpoint=dict(
        type='mmdet_clim.AtomicCheckpointHook',
        by_epoch=False,
        interval=1000,
        max_keep_ckpts=2),
    sampler_seed=dict(type='DistSamplerSeedHook'),
    unreadable=dict(type='mmdet_clim.UnreadableImagesHook'),
    visualization=dict(type='mmdet_clim.DetectionsHook'))
custom_hooks = [
    dict(type='mmdet_clim.IterationSeedHook'),
    dict(type='mmdet_clim.UnreachedWeightsHook'),
    dict(type='mmdet.CheckInvalidLossHook', interval=50),
]

env_cfg = dict(
    cudnn_benchmark=False,
    mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0),
    dist_cfg=dict(backend='nccl'))

vis_backends = [dict(type='LocalVisBackend')]
visualizer = dict(
    type='mmdet.DetLocalVisualizer',
    vis_backends=vis_backends,
    name='visualizer')
# Recall and accuracy of one step say little: they are averaged as losses are.
log_processor = dict(
    type='LogProcessor',
    window_size=50,
    by_epoch=False,
    mean_pattern=r'.*(loss|time|data_time|grad_norm|recall@1|acc).*')
log_level = 'INFO'
load_from = None
resume = False
