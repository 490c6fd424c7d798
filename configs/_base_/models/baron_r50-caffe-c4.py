# BARON's Faster R-CNN with a C4 ResNet-50: that of Detic, whose box head
# classifies by four pseudo-words of a region, read by CLIP's text encoder.
# REFERENCE.md, section 3: 4 words of width 512, tau 25, b from -20.
_base_ = './detic_r50-caffe-c4.py'

model = dict(
    roi_head=dict(
        bbox_head=dict(
            classifier=dict(
                type='mmdet_clim.PseudoWordClassifier', num_words=4))))
