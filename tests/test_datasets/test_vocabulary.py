# Licensed under the Apache License, Version 2.0.
import pytest

from mmdet_clim.datasets.vocabulary import ClassesFromFile


def test_classes_from_a_file_need_a_way_to_read_it():

    class Forgetful(ClassesFromFile):
        pass

    with pytest.raises(TypeError, match='read_metainfo'):
        Forgetful()
