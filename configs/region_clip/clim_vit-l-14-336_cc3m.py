# CLIM on CLIP ViT-L/14 of 336 pixels with CC3M's captions. No such recipe is
# published: this is that of ViT-B/16 at the size of this CLIP's images, with
# half of the blocks trained here, too.
_base_ = [
    './clim_vit-b-16_cc3m.py',
    '../_base_/datasets/clip_images_336.py',
]
clip = dict(
    model='ViT-L-14-336-quickgelu', pretrained='{{$CLIP_VIT_L_14_336:openai}}')
model = dict(
    image_tower=clip,
    text_encoder=clip,
    unlocked_blocks=12,
    image_size=(336, 336))
train_dataloader = dict(dataset=dict(pipeline=_base_.own_crop_pipeline))
retrieval_dataset = _base_.retrieval_dataset
retrieval_dataset.pipeline = _base_.own_retrieval_pipeline
val_dataloader = dict(
    dataset=dict(datasets=[_base_.region_dataset, retrieval_dataset]))
test_dataloader = val_dataloader
