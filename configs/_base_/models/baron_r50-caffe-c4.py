# BARON's Faster R-CNN with a C4 ResNet-50: that of Detic, whose box head
# classifies by four pseudo-words of a region, read by CLIP's text encoder.
# REFERENCE.md, section 3: 4 words of width 512, dropped with probability 0.5
# in training, tau 25, b from -20, and a space before the text encoder's last
# norm and projection.
_base_ = './detic_r50-caffe-c4.py'

model = dict(
    roi_head=dict(
        bbox_head=dict(
            classifier=dict(
                type='mmdet_clim.PseudoWordClassifier',
                num_words=4,
                drop_prob=0.5,
                text_encoder=dict(before_projection=True)))))
