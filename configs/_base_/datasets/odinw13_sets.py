# ODinW-13: detection without training on 13 data sets. ODINW_ROOT names the
# folder that holds them, as published; prompts are mmdet's, also that of
# pothole, which mmdet's own config of the 13 has and does not use. A config
# takes sets_test_cfg for its test_cfg.
sets_test_cfg = dict(
    type='mmdet_clim.DetectionSetsLoop',
    root='{{$ODINW_ROOT:data/odinw/}}',
    sets=[
        'AerialMaritimeDrone/large', 'Aquarium', 'CottontailRabbits',
        'EgoHands/generic', 'NorthAmericaMushrooms', 'Packages', 'PascalVOC',
        'Raccoon', 'ShellfishOpenImages', 'VehiclesOpenImages', 'pistols',
        'pothole', 'thermalDogsAndPeople'
    ],
    ann_files=[
        '**/valid/annotations_without_background.json',
        '**/val_annotations_without_background.json'
    ],
    prompts={
        'CottontailRabbits': {
            'Cottontail-Rabbit': dict(name='rabbit')
        },
        'EgoHands/generic': {
            'hand': dict(suffix=' of a person')
        },
        'NorthAmericaMushrooms': {
            'CoW': dict(name='flat mushroom'),
            'chanterelle': dict(name='yellow mushroom')
        },
        'Packages': {
            'package': dict(prefix='there is a ', suffix=' on the porch')
        },
        'pothole': {
            'pothole':
            dict(
                name='holes', prefix='there are some ', suffix=' on the road')
        },
    })
