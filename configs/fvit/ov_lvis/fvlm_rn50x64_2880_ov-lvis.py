# F-VLM on the original CLIP RN50x64. REFERENCE.md names no image size: 1024 is
# that of Kuo et al., "F-VLM", ICLR 2023. 32 GPUs of 8 images make its batch.
_base_ = [
    '../../_base_/models/fvit_rn50x64_lvis.py',
    '../../_base_/datasets/ov_lvis_detection.py',
    '../../_base_/schedules/fvit_sgd_2880.py',
    '../../_base_/default_runtime.py',
]
train_dataset = _base_.train_dataset
train_dataset.dataset.pipeline[2].scale = (1024, 1024)
train_dataset.dataset.pipeline[3].crop_size = (1024, 1024)
train_dataloader = dict(batch_size=8, dataset=train_dataset)
val_dataloader = _base_.val_dataloader
val_dataloader.dataset.pipeline[1].scale = (1024, 1024)
test_dataloader = val_dataloader
