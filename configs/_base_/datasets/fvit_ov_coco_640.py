# OV-COCO at 640 pixels, 8 images per GPU, by epochs (REFERENCE.md, section 5).
_base_ = './ov_coco_detection.py'
train_dataset = _base_.train_dataset
train_dataset.pipeline[2].scale = (640, 640)
train_dataloader = dict(batch_size=8, num_workers=4, dataset=train_dataset)
val_dataloader = _base_.val_dataloader
val_dataloader.dataset.pipeline[1].scale = (640, 640)
test_dataloader = val_dataloader
