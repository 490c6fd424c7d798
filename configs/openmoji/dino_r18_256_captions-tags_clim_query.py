# Zero-shot DINO: the same, where each tag of a tile has the query that
# resembles it most, which is asked which of the classes it is; and all queries
# learn by the detector's own loss which classes their tile has no tag of.
_base_ = './dino_r18_256_captions-tags_clim.py'
model = dict(
    objectives=dict(
        tag=dict(
            _delete_=True,
            type='mmdet_clim.QueryTagObjective',
            vocabulary=_base_.clim_vocabulary,
            templates=_base_.clim_templates,
            loss=dict(_base_.clim_softmax_loss, loss_weight=0.3),
            query_loss=_base_.model.detector.bbox_head.head.loss_cls)))
