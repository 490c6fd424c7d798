# Zero-shot DINO: whole images with the options of
# dino_r18_256_captions-tags_clim_query.py.
_base_ = './dino_r18_256_captions-tags.py'
model = dict(
    objectives=dict(
        tag=dict(
            _delete_=True,
            type='mmdet_clim.QueryTagObjective',
            vocabulary=_base_.clim_vocabulary,
            templates=_base_.clim_templates,
            loss=dict(_base_.clim_softmax_loss, loss_weight=0.3),
            query_loss=_base_.model.detector.bbox_head.head.loss_cls)))
