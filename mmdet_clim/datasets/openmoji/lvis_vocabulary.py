# Licensed under the Apache License, Version 2.0.
"""The long-tailed vocabulary: hundreds of OpenMoji objects by name."""
import hashlib
from typing import Dict, List, Sequence, Tuple

import numpy as np

from .classes import Glyph, SceneClass

#: How many times oftener the commonest class is drawn than the rarest.
HEAD_TO_TAIL = 125.0

# Things with an outline of their own, picked from Unicode's names and from
# OpenMoji's own extras (E...), each drawing looked at. 'A+B' joins drawings
# of one thing.
_OBJECTS = """
1F9EE abacus, 1FA97 accordion, 1FA79 adhesive bandage, 1F6EB+1F6EC airliner,
2708 airplane, 23F0 alarm clock, E003 alpaca, 1F691 ambulance, 1F3FA amphora,
2693 anchor, 1F41C ant, 1F34E+1F34F apple, E141 armchair, 1F3A8 artist palette,
1F6FA auto rickshaw, 1F951 avocado, 1FA93 axe, 1F476 baby, 1F37C baby bottle,
1F424 baby chick, 1F392 backpack, 1F953 bacon, 1F9A1 badger,
1F3F8 badminton racket, 1F96F bagel, 1F956 baguette bread, 2696 balance scale,
1FA70 ballet shoes, 1F388 balloon, 1F34C banana, 1FA95 banjo,
1F488 barber pole, 26BE baseball, 1F9FA basket, 1F3C0 basketball, 1F987 bat,
E32B bathroom scale, 1F6C1 bathtub, 1F50B battery, 1F3D6 beach umbrella,
1FAD8 beans, 1F43B bear, 1F9AB beaver, 1F6CF bed, 1F37A beer mug, 1FAB2 beetle,
1F514 bell, 1FAD1 bell pepper, 1F6CE bellhop bell, 1F6B2 bicycle, 1F459 bikini,
1F9E2 billed cap, 1F3B1 billiard ball, 1F426 bird, 1F382 birthday cake,
1F9AC bison, 1F33C blossom, 1FAD0 blueberries, 1F417 boar, 1F9B4 bone,
1F4D5+1F4D7+1F4D8+1F4D9 book, 1F516 bookmark, 1FA83 boomerang, 1F490 bouquet,
1F963 bowl, 1F35E bread, E0CA bread loaf, 1F4BC briefcase, 1FA72 briefs,
1F966 broccoli, 1F9F9 broom, 1F9CB bubble tea, 1FAA3 bucket, 1F3AF bullseye,
1F32F burrito, 1F68C+1F68D bus, 1F98B butterfly, 1F335 cactus, 1F4C5 calendar,
1F42A+1F42B camel, 1F4F7 camera, 1F36C candy, 1F6F6 canoe, 1F697+1F698 car,
1F5C3 card file box, 1F38F carp streamer, 1F955 carrot, 1F3F0 castle,
1F408+1F431 cat, 1F41B caterpillar, 26D3 chain, 1F37E champagne bottle,
1F9C0 cheese wedge, 1F352 cherries, 1F338 cherry blossom, 1F330 chestnut,
1F414 chicken, 1F43F chipmunk, 1F36B chocolate bar, 1F962 chopsticks,
1F384 christmas tree, 26EA church, 1F6AC cigarette, 1F5DC clamp,
1F3AC clapper board, 1F4CB clipboard, 1F45D clutch bag, 1F9E5 coat,
1FAB3 cockroach, 1F378 cocktail glass, 1F965 coconut, 2615 coffee cup,
E155 coffee maker, 26B0 coffin, 1F9ED compass, 1F5B1 computer mouse,
1F35A cooked rice, 1F36A cookie, 1F372 cooking pot, 1F33D corn, 1F6CB couch,
1F404+1F42E cow, 1F980 crab, 1F58D crayon, 1F4B3 credit card,
1F997 cricket insect, 1F40A crocodile, 1F950 croissant, 2694 crossed swords,
1F451 crown, 1FA7C crutch, 1F52E crystal ball, 1F952 cucumber, 1F9C1 cupcake,
1F94C curling stone, 1F5E1 dagger, 1F333 deciduous tree, 1F98C deer,
1F69A delivery truck, 1F5A5 desktop computer, 1F9A4 dodo, 1F415+1F436 dog,
1F42C dolphin, 1FACF donkey, 1F369 donut, 1F6AA door, 1F409+1F432 dragon,
1F457 dress, E1D2 drone, 1F941 drum, 1F986 duck, 1F95F dumpling, 1F985 eagle,
1F95A egg, 1F346 eggplant, 1F418 elephant, 2709 envelope,
E150 espresso machine, 1F332 evergreen tree, 1F3ED factory, 1F4E0 fax machine,
1FAB6 feather, 1F3A1 ferris wheel, 1F5C4 file cabinet, 1F4C1 file folder,
1F4FD film projector, 1F525 fire, 1F692 fire engine, 1F9EF fire extinguisher,
1F9E8 firecracker, E140 first aid kit, 1F41F+1F420 fish, 1F3A3 fishing pole,
1F9A9 flamingo, 1F526 flashlight, 1F97F flat shoe, 1F4BE floppy disk,
1FA88 flute, 1FAB0 fly, 1F6F8 flying saucer, 1F3C8 football,
1F960 fortune cookie, 26F2 fountain, 1F58B fountain pen, 1F98A fox,
1F5BC framed picture, 1F35F french fries, 1F364 fried shrimp, 1F94F frisbee,
1F438 frog, E257 funnel, 1F3B2 game die, E342 gardening gloves, 1F9C4 garlic,
26FD gas pump, 2699 gear, 1F48E gem stone, 1F381 gift, 1FADA ginger root,
1F992 giraffe, E0CB glass bottle, 1F453 glasses, 1F410 goat, 1F97D goggles,
1F947 gold medal, 1FABF goose, 1F98D gorilla, 1F393 graduation cap,
1F347 grapes, 1F957 green salad, 1F9AE guide dog, 1F3B8 guitar,
1F354 hamburger, 1F528 hammer, 1F439 hamster, 1F45C handbag, 1FA89 harp,
1F3A7 headphone, 1F994 hedgehog, 1F681 helicopter, 1F33A hibiscus,
1F460 high-heeled shoe, 1F97E hiking boot, 1F6D5 hindu temple,
1F99B hippopotamus, 1F36F honey pot, 1F41D honeybee, 1F40E+1F434 horse,
1F32D hot dog, 1F336 hot pepper, 231B+23F3 hourglass, 1F3E0 house, 1F6D6 hut,
1FABB hyacinth, 1F368 ice cream, 1F366 ice cream cone, 26F8 ice skate,
1F383 jack-o-lantern, 1FAD9 jar, 1F456 jeans, 1FABC jellyfish, 1F579 joystick,
1F9C3 juice box, 1F998 kangaroo, 1F511 key, 2328 keyboard, 1F6F4 kick scooter,
1F52A kitchen knife, 1FA81 kite, 1F95D kiwi, 1F428 koala, 1F97C lab coat,
1F94D lacrosse stick, 1FA9C ladder, 1F41E ladybug, 1F4BB laptop,
E0C5 latte glass, E343 lawn mower, 1FABE leafless tree, 1F34B lemon,
1F406 leopard, 1F96C lettuce, 1F4A1 light bulb, 1F981 lion, 1F484 lipstick,
E143 lit candle, 1F98E lizard, 1F999 llama, 1F99E lobster, 1F682 locomotive,
1F36D lollipop, 1FA98 long drum, 1F9F4 lotion bottle, 1F4E2 loudspeaker,
1F9F3 luggage, 1FA84 magic wand, 1F9F2 magnet, 1F4EA+1F4EB mailbox,
1F9A3 mammoth, 1F468+1F466 man, 1F96D mango, 1F570 mantel clock, 1FA87 maracas,
1F356 meat, 1F4E3 megaphone, 1F348 melon, 1F3A4 microphone, 1F52C microscope,
1FA96 military helmet, 1F95B milk glass, 1F690 minibus, 1FA9E mirror,
1F4F1 mobile phone, E152 moka pot, 1F4B0 money bag, 1F412+1F435 monkey,
1FACE moose, 1F99F mosquito, 1F6E5 motor boat, 1F3CD motorcycle,
E14A motorcycle helmet, 1F401+1F42D mouse, 1F3A5 movie camera, E151 mug,
1F344 mushroom, 1F3B9 musical keyboard, 1F4DB name badge, 1F454 necktie,
1F4F0 newspaper, 1F35C noodle bowl, 1F4D3 notebook, 1F419 octopus,
1F6E2 oil drum, 1FAD2 olive, 1FA71 one-piece swimsuit, 1F9C5 onion,
1F9A7 orangutan, 1FACD orca, 1F9A6 otter, 1F989 owl, 1F402 ox, 1F9AA oyster,
1F4E6 package, 1F958 paella pan, 1F58C paintbrush, 1F334 palm tree,
1F95E pancakes, 1F43C panda, 1F964 paper cup, 1F4CE paperclip, 1FA82 parachute,
1F99C parrot, 1F351 peach, 1F99A peacock, 1F95C peanuts, 1F350 pear, 1F58A pen,
270F pencil, 1F427 penguin, 26CF pickaxe, 1F6FB pickup truck, 1F967 pie,
1F416+1F437 pig, 1F48A pill, 1FA85 pinata, 1F34D pineapple,
1F3D3 ping-pong paddle, 1F355 pizza, 1F6DD playground slide, 1F50C plug,
1FAA0 plunger, 1F693+1F694 police car, E0C4 pomegranate, 1F429 poodle,
1F37F popcorn, 1F4EF postal horn, 1F4EE postbox, 1F954 potato,
1FAB4 potted plant, 1F4FF prayer beads, 1F968 pretzel, 1F5A8 printer,
1F6E9 propeller plane, E0C7 pudding, 1F45B purse, 1F4CC pushpin,
1F9E9 puzzle piece, 1F407+1F430 rabbit, 1F99D raccoon, 1F3CE racing car,
1F4FB radio, 1F40F ram, E1C9 raspberry, 1F400 rat, 1FA92 razor, 1F9FE receipt,
1F3EE red paper lantern, 26D1 rescue helmet, 1F98F rhinoceros, 1F380 ribbon,
1F359 rice ball, 1F48D ring, 1F6DF ring buoy, 1FA90 ringed planet,
1F360 roasted sweet potato, 1F680 rocket, 1F6FC roller skate, 1F413 rooster,
1F339 rose, 1F3F5 rosette, 1F4CD round pushpin, 1F3C9 rugby ball,
1F45F running shoe, 1F9F7 safety pin, 26F5 sailboat, 1F376 sake bottle,
1F9C2 salt shaker, 1F96A sandwich, 1F6F0 satellite, 1F4E1 satellite dish,
1F995 sauropod, 1FA9A saw, 1F3B7 saxophone, 1F9E3 scarf, 2702 scissors,
1F6F5 scooter, 1F982 scorpion, 1FA9B screwdriver, 1F4DC scroll, 1F9AD seal,
1F41A seashell, 1F4BA seat, 1F331 seedling, 1F69B semi truck,
1FAA1 sewing needle, 1F988 shark, 1F411 sheep, 1F6E1 shield, 1F6A2 ship,
1F6CD shopping bags, 1F6D2 shopping cart, 1F370 shortcake, 1FA73 shorts,
1FA8F shovel, 1F6BF shower, 1F990 shrimp, 1F6F9 skateboard, 1F3BF skis,
1F9A8 skunk, 1F6F7 sled, E1CE smartwatch, 1F40D snake, 26C4 snowman,
1F9FC soap, 26BD soccer ball, 1F9E6 socks, 1F94E softball, E1D6 solar panel,
E20B space shuttle, 1F35D spaghetti, 1F6A4 speedboat, 1F577 spider,
1F578 spider web, 1F5D3 spiral calendar, 1F5D2 spiral notepad, 1F9FD sponge,
1F9F5 spool of thread, 1F944 spoon, 1F699 sport utility vehicle,
1F3C5 sports medal, E0B1 spray bottle, 1F991 squid, 1F5FD statue of liberty,
1F969 steak, 1FA7A stethoscope, 23F1 stopwatch, 1F4CF straight ruler,
1F353 strawberry, E328 stretcher, 1F399 studio microphone, 1F33B sunflower,
1F576 sunglasses, 1F363 sushi, 1F9A2 swan, 1F489 syringe, 1F455 t-shirt,
E1CC tablet, 1F32E taco, 1F34A tangerine, 1F695+1F696 taxi, 1F375 teacup,
1FAD6 teapot, 1F9F8 teddy bear, 260E telephone, 1F4DE telephone receiver,
1F52D telescope, 1F4FA television, 1F3BE tennis racket, 26FA tent,
1F9EA test tube, 1FA74 thong sandal, 1F3AB ticket, 1F405+1F42F tiger,
1F6BD toilet, 1F9FB toilet paper, 1F345 tomato, 1F9F0 toolbox, 1F9B7 tooth,
1FAA5 toothbrush, 1F3A9 top hat, 1F5B2 trackball, 1F69C tractor,
1F6A6 traffic light, 1F686 train, 1F68A tram, E262 trash can,
1F4D0 triangular ruler, 1F68E trolleybus, 1FA8A trombone, 1F3C6 trophy,
1F379 tropical drink, E346 trowel, 1F3BA trumpet, 1F337 tulip,
1F943 tumbler glass, 1F983 turkey, 1F422 turtle, 1F996 tyrannosaurus,
2602+1F302 umbrella, 1F984 unicorn, 1F4F9 video camera, 1F4FC videocassette,
1F3BB violin, 1F3D0 volleyball, E1CF washing machine, 1F5D1 wastebasket,
231A watch, E0CC water bottle, 1F403 water buffalo, 1F52B water pistol,
1F349 watermelon, 1F433+1F40B whale, 1F6DE wheel, E344 wheelbarrow,
E327 wheelchair, 1F940 wilted flower, E2D1 wind turbine, 1FA9F window,
1F377 wine glass, 1F43A wolf, 1F469+1F467 woman, 1F527 wrench, 1F9F6 yarn,
1FA80 yo-yo, 1F993 zebra
"""


def lvis_classes() -> List[SceneClass]:
    """The objects in alphabetical order, with ids from 1.

    Returns:
        list[SceneClass]: ``weight`` falls geometrically, by
        ``HEAD_TO_TAIL`` over the whole vocabulary, in an order that follows
        from the names alone. Novelty is not set here: it follows from the
        images that a data set has of a class.
    """
    table: Dict[str, Tuple[Glyph, ...]] = {}
    for entry in ' '.join(_OBJECTS.split()).split(', '):
        codes, name = entry.split(' ', 1)
        table[name] = tuple(Glyph(code) for code in codes.split('+'))
    shuffled = sorted(
        table, key=lambda name: hashlib.sha256(name.encode()).hexdigest())
    step = HEAD_TO_TAIL**(-1 / (len(table) - 1))
    weight = {name: step**rank for rank, name in enumerate(shuffled)}
    return [
        SceneClass(
            name=name,
            id=number,
            supercategory='object',
            novel=False,
            glyphs=table[name],
            weight=weight[name])
        for number, name in enumerate(sorted(table), start=1)
    ]


def frequencies(image_counts: Sequence[int], train_images: int) -> List[str]:
    """LVIS's rare, common and frequent classes, for a smaller data set.

    LVIS v1 calls a class rare with 1 to 10 training images of 100,170,
    common with 11 to 100, frequent with more. With a scene per 800 in place
    of 10 per 100,170, and ten times as many for common, a data set of a few
    thousand scenes has about LVIS's shares of the three.

    Args:
        image_counts (Sequence[int]): Training images that show each class.
        train_images (int): Training images in all.

    Returns:
        list[str]: 'r', 'c' or 'f' per class.
    """
    rare = max(1, round(train_images / 800))
    counts = np.asarray(image_counts)
    return np.where(counts <= rare, 'r', np.where(counts <= 10 * rare, 'c',
                                                  'f')).tolist()
