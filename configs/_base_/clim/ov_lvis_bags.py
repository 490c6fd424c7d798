# BARON's bags of regions on OV-LVIS, captions of CC3M, and CLIM on them: the
# constants of OV-COCO. A fragment: it defines names of its own (clim_*).
_base_ = ['./ov_lvis_captions_tags.py', './baron_bags.py']

clim_bag_objective = dict(num_compositions=2)
