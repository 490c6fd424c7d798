# ODinW-35: detection without training on 35 data sets. ODINW_ROOT names the
# folder that holds them, as published. Where mmdet's override_category.py has
# written files with other class names, those are read. A config takes
# sets_test_cfg for its test_cfg.
sets_test_cfg = dict(
    type='mmdet_clim.DetectionSetsLoop',
    root='{{$ODINW_ROOT:data/odinw/}}',
    sets=[
        'AerialMaritimeDrone/large', 'AerialMaritimeDrone/tiled',
        'AmericanSignLanguageLetters', 'Aquarium', 'BCCD', 'ChessPieces',
        'CottontailRabbits', 'DroneControl', 'EgoHands/generic',
        'EgoHands/specific', 'HardHatWorkers', 'MaskWearing',
        'MountainDewCommercial', 'NorthAmericaMushrooms',
        'OxfordPets/by-breed', 'OxfordPets/by-species', 'PKLot', 'Packages',
        'PascalVOC', 'Raccoon', 'ShellfishOpenImages', 'ThermalCheetah',
        'UnoCards', 'VehiclesOpenImages', 'WildfireSmoke', 'boggleBoards',
        'brackishUnderwater', 'dice', 'openPoetryVision', 'pistols',
        'plantdoc', 'pothole', 'selfdrivingCar', 'thermalDogsAndPeople',
        'websiteScreenshots'
    ],
    ann_files=[
        '**/valid/new_annotations_without_background.json',
        '**/valid/annotations_without_background.json',
        '**/val_annotations_without_background.json'
    ],
    prompts={
        'EgoHands/generic': {
            'hand': dict(suffix=' of a person')
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
