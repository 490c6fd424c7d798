# CLIM on SigLIP ViT-B/16 with COCO's captions and SigLIP's own loss, which
# goes on from its temperature and bias. No such recipe is published: all else
# is that of ViT-B/16.
_base_ = [
    './clim_vit-b-16_coco-captions.py',
    '../_base_/datasets/clip_images_siglip.py',
]
clip = dict(model='ViT-B-16-SigLIP', pretrained='{{$SIGLIP_VIT_B_16:webli}}')
model = dict(
    image_tower=clip,
    text_encoder=clip,
    objectives=dict(clim=dict(loss=dict(kind='sigmoid'))))
region_dataset = _base_.region_dataset
region_dataset.pipeline = _base_.own_region_pipeline
retrieval_dataset = _base_.retrieval_dataset
retrieval_dataset.pipeline = _base_.own_retrieval_pipeline
val_dataloader = dict(
    dataset=dict(datasets=[region_dataset, retrieval_dataset]))
test_dataloader = val_dataloader
