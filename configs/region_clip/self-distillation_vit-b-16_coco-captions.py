# Self-distillation of crops into dense features (the idea of CLIPSelf, arXiv
# 2310.01403), on the images of the other recipes and without their captions.
_base_ = './clim_vit-b-16_coco-captions.py'
model = dict(
    image_size=(1024, 1024),
    objectives=dict(
        _delete_=True,
        distillation=dict(
            type='mmdet_clim.SelfDistillationObjective',
            boxes=dict(type='mmdet_clim.GridBoxes', max_rows=6, max_cols=6))))
train_dataloader = dict(
    batch_size=4, dataset=dict(pipeline=_base_.whole_pipeline))
# Of 8 GPUs.
auto_scale_lr = dict(base_batch_size=32)
