# An upper bound: boxes of the novel classes too. No open-vocabulary row.
_base_ = './faster-rcnn_lite0_256_boxes.py'
# The classes of OVCocoDataset; of a list, all are base.
every_class = [
    'person', 'bicycle', 'car', 'motorcycle', 'airplane', 'bus', 'train',
    'truck', 'boat', 'bench', 'bird', 'cat', 'dog', 'horse', 'sheep',
    'cow', 'elephant', 'bear', 'zebra', 'giraffe', 'backpack', 'umbrella',
    'handbag', 'tie', 'suitcase', 'frisbee', 'skis', 'snowboard', 'kite',
    'skateboard', 'surfboard', 'bottle', 'cup', 'fork', 'knife', 'spoon',
    'bowl', 'banana', 'apple', 'sandwich', 'orange', 'broccoli', 'carrot',
    'pizza', 'donut', 'cake', 'chair', 'couch', 'bed', 'toilet', 'tv',
    'laptop', 'mouse', 'remote', 'keyboard', 'microwave', 'oven',
    'toaster', 'sink', 'refrigerator', 'book', 'clock', 'vase',
    'scissors', 'toothbrush',
]
model = dict(roi_head=dict(bbox_head=dict(vocabulary=every_class)))
train_dataloader = dict(
    dataset=dict(ann_file='annotations/instances_train2017_all.json'))
