# Whole images with the options of centernet2_r18_lvis_clim_best_softmax.py,
# half of them drawn from those with a rare tag too; 14 of them, as many
# captioned views as centernet2_r18_lvis_clim_best_softmax_equal-views.py.
_base_ = './centernet2_r18_lvis_captions-tags.py'
model = dict(
    objectives=dict(
        tag=dict(
            regions='best',
            max_proposals=10,
            loss=dict(
                _delete_=True, **_base_.clim_softmax_loss, loss_weight=0.1))))
train_dataloader = dict(
    batch_size=22,
    sampler=dict(source_ratio=[8, 7, 7]),
    dataset=dict(datasets=[
        _base_.train_dataset, _base_.clim_caption_dataset,
        dict(_base_.clim_caption_dataset, filter_cfg=dict(novel_tags=True))
    ]))
auto_scale_lr = dict(base_batch_size=22)
