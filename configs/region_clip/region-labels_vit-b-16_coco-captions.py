# What CLIM is compared with ("RegionCLIP" in REFERENCE.md, section 4):
# proposals that CLIP labels with nouns (4,764 there), federated BCE on 100 of
# them at CLIP's own scale, without a bias. COCO_NOUNS names a file with a noun
# per line, COCO_PROPOSALS one of boxes in COCO's result format.
_base_ = './clim_vit-b-16_coco-captions.py'
model = dict(
    image_size=(1024, 1024),
    objectives=dict(
        _delete_=True,
        labels=dict(
            type='mmdet_clim.RegionLabelObjective',
            boxes=dict(
                type='mmdet_clim.FileBoxes',
                file='{{$COCO_PROPOSALS:data/coco/proposals_train2017.json}}',
                num_boxes=100),
            vocabulary='{{$COCO_NOUNS:data/coco/caption_nouns.txt}}',
            loss=dict(
                type='mmdet_clim.FederatedClassLoss',
                num_sampled=100,
                gather=True))))
train_dataloader = dict(
    batch_size=4, dataset=dict(pipeline=_base_.whole_pipeline))
# Of 8 GPUs.
auto_scale_lr = dict(base_batch_size=32)
