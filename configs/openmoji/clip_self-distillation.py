# Self-distillation of crops into dense features (the idea of CLIPSelf, arXiv
# 2310.01403) on the small CLIP.
_base_ = './clip_clim.py'
model = dict(
    objectives=dict(
        _delete_=True,
        distillation=dict(
            type='mmdet_clim.SelfDistillationObjective',
            boxes=dict(type='mmdet_clim.GridBoxes', max_rows=5, max_cols=5))))
train_dataloader = dict(batch_size=8)
