# F-VLM on the original CLIP RN50x64, images of 1024 pixels. 32 GPUs of 8
# images make its batch.
_base_ = [
    '../../_base_/models/fvit_rn50x64_lvis.py',
    '../../_base_/datasets/fvit_ov_lvis_1024.py',
    '../../_base_/schedules/fvit_sgd_2880.py',
    '../../_base_/default_runtime.py',
]
