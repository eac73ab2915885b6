"""words.py - the vocabulary of the stories and of the facts hidden among them.

Every word is meant to be one piece of the tokenizer, so that a model of a few megabytes can spend
its layers on looking things up rather than on spelling. To train on another world, change these
lists and train the tokenizer anew."""

NAMES = """Mira Tom Lily Ben Anna Max Zoe Sam Ella Leo Nora Finn Ruby Oscar Ivy Hugo Clara Felix
Rosa Theo Maya Jack Lucy Noah Emma Owen Alice Peter Sara Daniel""".split()
SYLLABLES = """ta ri mo ka len vor sel du ba no fi gar mel zu pe ran ti lo shi bru wen dal ko vi hes
jun ar""".split()
COLOURS = "red blue green yellow orange purple white black golden silver brown pink".split()
QUALITIES = """small big old new tiny huge round shiny soft heavy quiet bright dark wooden broken
clean dusty warm cold empty wild gentle sleepy brave clever lucky hidden little""".split()
ADJECTIVES = COLOURS + QUALITIES
OBJECTS = """key box book hat bell lamp ring map coin kettle cup ball drum kite boat clock basket
blanket candle ladder mirror spoon bottle button hammer rope chair letter flag flute whistle shovel
bucket pencil scarf glove boot crown feather stone shell""".split()
PLACES = """lighthouse harbour garden forest castle kitchen library market school tower bridge farm
river mountain village museum station bakery barn cave island office attic cellar hill lake mill
temple theatre hospital palace workshop stable tunnel valley""".split()
ANIMALS = """fox bear rabbit cat dog bird mouse owl frog duck horse cow goat sheep lion tiger wolf
turtle squirrel hedgehog pig bee fish deer""".split()
FOODS = """bread cake soup apple cheese honey pear rice pie milk berry nut egg carrot pancake melon
plum cookie""".split()
MOODS = "happy sad tired proud hungry angry scared surprised calm excited lonely curious".split()
TRADES = """baker sailor farmer teacher doctor painter singer miller guard tailor
gardener cook""".split()
KINDS = "password code number word name sign".split()
THINGS = "colour food song game book animal place story".split()
TIMES = ["one day", "the next morning", "later", "after a while", "in the evening", "at night",
         "soon", "then", "that afternoon", "in the spring"]
# Keys of two words, in the manner of public needle tests.
KEY_FIRST = """amber brisk copper dapper eager fuzzy granite hollow indigo jolly kindly lunar mellow
nimble opal placid quaint rustic silent tidal upper velvet windy yonder""".split()
KEY_SECOND = """anchor badger canyon dolphin engine falcon glacier hammock iguana jacket kernel
lantern magnet notebook orchard paddle quarry rocket saddle tractor umbrella violin walrus
zeppelin""".split()
ACTIVITIES = """eat a pear|sit by the lake|read a book|fly a kite|sing a song|walk to the mill|
feed the duck|climb the hill|drink milk|watch the bird|sleep in the barn|play the flute|bake bread|
row a boat|look at the map|ring the bell|count the sheep|swim in the river|paint a picture|
dance in the garden""".replace("\n", "").split("|")
# Things done again and again, to be counted: as told, and as asked.
DEEDS = [("rang the bell of", "ring the bell of"),
         ("knocked at the door of", "knock at the door of"), ("slept near", "sleep near"),
         ("danced around", "dance around"), ("sang a song in", "sing a song in"),
         ("lost a coin in", "lose a coin in")]
EVERYTHING = [NAMES, SYLLABLES, ADJECTIVES, OBJECTS, PLACES, ANIMALS, FOODS, MOODS, TRADES, KINDS,
              THINGS, KEY_FIRST, KEY_SECOND]
