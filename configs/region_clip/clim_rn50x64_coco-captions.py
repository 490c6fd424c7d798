# CLIM on CLIP RN50x64 with COCO's captions: images of 448 pixels; layer4 and,
# of the attention pool, query, key and position trained, by another AdamW;
# averaged with weight 0.5 (REFERENCE.md, section 4).
_base_ = [
    './clim_vit-b-16_coco-captions.py',
    '../_base_/datasets/clip_images_448.py',
]
clip = dict(model='RN50x64-quickgelu', pretrained='{{$CLIP_RN50X64:openai}}')
model = dict(
    image_tower=clip,
    text_encoder=clip,
    unlocked_blocks=1,
    image_size=(448, 448))
train_dataloader = dict(dataset=dict(pipeline=_base_.own_crop_pipeline))
retrieval_dataset = _base_.retrieval_dataset
retrieval_dataset.pipeline = _base_.own_retrieval_pipeline
val_dataloader = dict(
    dataset=dict(datasets=[_base_.region_dataset, retrieval_dataset]))
test_dataloader = val_dataloader
optim_wrapper = dict(optimizer=dict(betas=(0.9, 0.999), eps=1e-8))
averaging = _base_.averaging
averaging.alpha = 0.5
custom_hooks = [*_base_.custom_hooks[:-1], averaging]
