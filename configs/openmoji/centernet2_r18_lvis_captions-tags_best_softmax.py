# Whole images with the options of centernet2_r18_lvis_clim_best_softmax.py,
# half of them with a rare tag too.
_base_ = './centernet2_r18_lvis_captions-tags.py'
model = dict(
    objectives=dict(
        tag=dict(
            regions='best',
            max_proposals=10,
            loss=dict(
                _delete_=True, **_base_.clim_softmax_loss, loss_weight=0.1))))
train_dataloader = dict(
    sampler=dict(source_ratio=[8, 4, 4]),
    dataset=dict(datasets=[
        _base_.train_dataset, _base_.clim_caption_dataset,
        dict(_base_.clim_caption_dataset, filter_cfg=dict(novel_tags=True))
    ]))
