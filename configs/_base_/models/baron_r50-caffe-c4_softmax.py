# BARON's Faster R-CNN with a C4 ResNet-50 as it is distilled: a softmax with a
# learned background instead of sigmoids, as its checkpoint has it. tau 50 and
# the background's weight are those of the FPN (REFERENCE.md, section 3).
_base_ = './baron_r50-caffe-c4.py'

classifier = _base_.model.roi_head.bbox_head.classifier
classifier.pop('bias')
classifier.update(
    type='mmdet_clim.SoftmaxPseudoWordClassifier', temperature=50.0)
model = dict(
    roi_head=dict(
        bbox_head=dict(
            classifier=dict(_delete_=True, **classifier),
            loss_cls=dict(
                type='mmdet_clim.BaseClassSoftmaxLoss',
                background_weight=0.7))))
