# Licensed under the Apache License, Version 2.0.
"""Other words for COCO's classes, as people write captions."""
from typing import Dict, Tuple

#: What captions of OpenMoji-COCO may call an object. Their random draws
#: depend on the number and order of these words.
SCENE_SYNONYMS: Dict[str, Tuple[str, ...]] = {
    'person': ('human', ),
    'bicycle': ('bike', ),
    'car': ('automobile', ),
    'motorcycle': ('motorbike', ),
    'airplane': ('plane', 'aeroplane'),
    'bus': ('coach', ),
    'train': ('railway train', ),
    'cat': ('kitty', 'feline'),
    'dog': ('puppy', 'hound'),
    'horse': ('pony', ),
    'sheep': ('lamb', ),
    'cow': ('cattle', ),
    'backpack': ('rucksack', ),
    'handbag': ('bag', ),
    'tie': ('necktie', ),
    'suitcase': ('luggage', ),
    'frisbee': ('flying disc', ),
    'skis': ('pair of skis', ),
    'orange': ('tangerine', ),
    'donut': ('doughnut', ),
    'couch': ('sofa', ),
    'tv': ('television', ),
    'laptop': ('laptop computer', 'notebook computer'),
    'mouse': ('computer mouse', ),
    'keyboard': ('computer keyboard', ),
    'vase': ('urn', ),
    'scissors': ('shears', ),
}

#: Of them, the words that mostly mean something else in photos' captions: a
#: paper bag, the coach of a team, lamb on a plate.
_NOT_IN_PHOTOS = frozenset(('bag', 'coach', 'lamb'))

# Common knowledge: kinds of the class that COCO annotates as such, and other
# spellings. Words of several meanings are left out ('chick', 'set', 'desk').
_FURTHER_WORDS: Dict[str, Tuple[str, ...]] = {
    'person':
    ('man', 'woman', 'boy', 'girl', 'child', 'kid', 'baby', 'toddler', 'guy',
     'lady', 'gentleman', 'skier', 'snowboarder', 'skateboarder', 'surfer',
     'cyclist', 'bicyclist', 'motorcyclist', 'biker', 'pedestrian',
     'policeman', 'police officer', 'fireman', 'farmer', 'cook', 'chef',
     'dancer', 'runner', 'astronaut', 'bride', 'groom', 'tennis player',
     'baseball player', 'soccer player', 'frisbee player', 'batter', 'umpire'),
    'bicycle': ('tandem bike', 'mountain bike'),
    'car': ('taxi', 'cab', 'sedan', 'suv', 'police car', 'minivan'),
    'motorcycle': ('motor bike', 'motor cycle', 'moped', 'scooter',
                   'motor scooter', 'dirt bike'),
    'airplane': ('jet', 'air plane', 'airliner', 'jetliner', 'biplane',
                 'aircraft', 'fighter jet', 'jumbo jet'),
    'bus':
    ('double decker', 'minibus', 'school bus', 'trolleybus', 'tour bus'),
    'train':
    ('locomotive', 'tram', 'freight train', 'steam engine', 'subway train'),
    'truck': ('lorry', 'pickup', 'pick up truck', 'fire truck', 'fire engine',
              'semi truck', 'dump truck'),
    'boat': ('sailboat', 'sail boat', 'canoe', 'kayak', 'ship', 'speedboat',
             'rowboat', 'row boat', 'yacht', 'ferry', 'gondola', 'motorboat'),
    'bird': ('parrot', 'duck', 'eagle', 'dove', 'owl', 'swan', 'seagull',
             'sea gull', 'pigeon', 'goose', 'pelican', 'flamingo', 'sparrow',
             'hummingbird', 'peacock', 'heron', 'hawk', 'penguin', 'parakeet',
             'rooster', 'hen', 'gull'),
    'cat': ('kitten', ),
    'dog': ('poodle', 'pup', 'labrador', 'terrier', 'bulldog', 'dalmatian',
            'golden retriever', 'german shepherd', 'doggy'),
    'horse': ('foal', 'mare', 'stallion', 'colt'),
    'sheep': ('ram', 'ewe'),
    'cow': ('calf', 'bull', 'ox', 'steer'),
    'bear': ('polar bear', 'panda', 'panda bear', 'grizzly', 'bear cub'),
    'backpack': ('back pack', 'knapsack'),
    'umbrella': ('parasol', 'sunshade'),
    'handbag': ('purse', 'hand bag'),
    'tie': ('bow tie', 'neck tie', 'bowtie'),
    'suitcase': ('suit case', 'briefcase', 'baggage'),
    'frisbee': ('frisby', 'flying disk', 'freesbee'),
    'skis': ('ski', ),
    'snowboard': ('snow board', ),
    'skateboard': ('skate board', 'longboard'),
    'surfboard': ('surf board', 'boogie board'),
    'bottle': ('wine bottle', 'beer bottle', 'water bottle'),
    'cup': ('mug', 'teacup', 'tea cup', 'coffee cup', 'paper cup'),
    'knife': ('butter knife', 'pocket knife'),
    'sandwich':
    ('hamburger', 'burger', 'cheeseburger', 'sub sandwich', 'panini'),
    'orange': ('clementine', ),
    'broccoli': ('brocolli', 'broccolli'),
    'cake': ('birthday cake', 'wedding cake', 'cupcake', 'cheesecake',
             'carrot cake', 'chocolate cake'),
    'chair': ('armchair', 'arm chair', 'seat', 'stool', 'rocking chair',
              'lawn chair'),
    'couch': ('loveseat', 'love seat', 'settee'),
    'toilet': ('urinal', 'commode'),
    'tv': ('monitor', 'television set', 'computer monitor', 'flatscreen'),
    'laptop': ('lap top', 'macbook'),
    'remote': ('remote control', 'wii remote', 'wii controller',
               'game controller'),
    'microwave': ('microwave oven', ),
    'oven': ('stove', 'range oven'),
    'refrigerator': ('fridge', 'refridgerator'),
    'sink': ('wash basin', 'washbasin'),
    'clock': ('alarm clock', 'clock tower', 'wall clock'),
    'toothbrush': ('tooth brush', ),
}

#: Phrases that hold a class's word without showing the class.
OTHER_PHRASES = ('bus stop', 'bus station', 'bus lane', 'train station',
                 'train track', 'car park', 'dog house', 'doghouse',
                 'bird house', 'bird bath', 'bird feeder', 'boat dock',
                 'boat house', 'cat food', 'dog food', 'mouse pad', 'ski lift',
                 'ski slope', 'ski resort', 'ski pole', 'chair lift',
                 'apple juice', 'apple pie', 'orange juice', 'carrot juice',
                 'book shelf', 'book case', 'cup holder', 'cup board',
                 'knife block', 'toilet paper', 'bed room', 'bath tub',
                 'piano keyboard', 'stuffed bear', 'toy bear', 'toy car',
                 'toy train')


def coco_words(name: str) -> Tuple[str, ...]:
    """Every word that names a class of COCO in a photo's caption.

    Args:
        name (str): The class name, which comes first.
    """
    scene = [
        word for word in SCENE_SYNONYMS.get(name, ())
        if word not in _NOT_IN_PHOTOS
    ]
    return tuple(dict.fromkeys([name, *scene, *_FURTHER_WORDS.get(name, ())]))
