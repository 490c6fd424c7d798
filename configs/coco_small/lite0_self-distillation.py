# Self-distillation of crops into region features (the idea of CLIPSelf, arXiv
# 2310.01403).
_base_ = './lite0_clim.py'
model = dict(
    objectives=dict(
        _delete_=True,
        distillation=dict(
            type='mmdet_clim.SelfDistillationObjective',
            boxes=dict(type='mmdet_clim.GridBoxes', max_rows=3, max_cols=3))))
train_dataloader = dict(batch_size=8)
auto_scale_lr = dict(base_batch_size=8)
