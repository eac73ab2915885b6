#include "tools/common/words.h"

#define LIST(name, ...) \
    static const char *const name[] = { __VA_ARGS__ }; \
    const struct words words_##name = { name, (int)(sizeof name / sizeof *name) };

LIST(names,
    "Mira", "Tom", "Lily", "Ben", "Anna", "Max", "Zoe", "Sam", "Ella", "Leo", "Nora", "Finn",
    "Ruby", "Oscar", "Ivy", "Hugo", "Clara", "Felix", "Rosa", "Theo", "Maya", "Jack", "Lucy",
    "Noah", "Emma", "Owen", "Alice", "Peter", "Sara", "Daniel")
LIST(syllables,
    "ta", "ri", "mo", "ka", "len", "vor", "sel", "du", "ba", "no", "fi", "gar", "mel", "zu", "pe",
    "ran", "ti", "lo", "shi", "bru", "wen", "dal", "ko", "vi", "hes", "jun", "ar")
LIST(adjectives,
    "red", "blue", "green", "yellow", "orange", "purple", "white", "black", "golden", "silver",
    "brown", "pink", "small", "big", "old", "new", "tiny", "huge", "round", "shiny", "soft",
    "heavy", "quiet", "bright", "dark", "wooden", "broken", "clean", "dusty", "warm", "cold",
    "empty", "wild", "gentle", "sleepy", "brave", "clever", "lucky", "hidden", "little")
LIST(objects,
    "key", "box", "book", "hat", "bell", "lamp", "ring", "map", "coin", "kettle", "cup", "ball",
    "drum", "kite", "boat", "clock", "basket", "blanket", "candle", "ladder", "mirror", "spoon",
    "bottle", "button", "hammer", "rope", "chair", "letter", "flag", "flute", "whistle", "shovel",
    "bucket", "pencil", "scarf", "glove", "boot", "crown", "feather", "stone", "shell")
LIST(places,
    "lighthouse", "harbour", "garden", "forest", "castle", "kitchen", "library", "market", "school",
    "tower", "bridge", "farm", "river", "mountain", "village", "museum", "station", "bakery",
    "barn", "cave", "island", "office", "attic", "cellar", "hill", "lake", "mill", "temple",
    "theatre", "hospital", "palace", "workshop", "stable", "tunnel", "valley")
LIST(animals,
    "fox", "bear", "rabbit", "cat", "dog", "bird", "mouse", "owl", "frog", "duck", "horse", "cow",
    "goat", "sheep", "lion", "tiger", "wolf", "turtle", "squirrel", "hedgehog", "pig", "bee",
    "fish", "deer")
LIST(foods,
    "bread", "cake", "soup", "apple", "cheese", "honey", "pear", "rice", "pie", "milk", "berry",
    "nut", "egg", "carrot", "pancake", "melon", "plum", "cookie")
LIST(moods,
    "happy", "sad", "tired", "proud", "hungry", "angry", "scared", "surprised", "calm", "excited",
    "lonely", "curious")
LIST(kinds,
    "password", "code", "number", "word", "name", "sign")
LIST(things,
    "colour", "food", "song", "game", "book", "animal", "place", "story")
LIST(times,
    "One day", "The next morning", "Later", "After a while", "In the evening", "At night", "Soon",
    "Then", "That afternoon", "In the spring")
LIST(key_first,
    "amber", "brisk", "copper", "dapper", "eager", "fuzzy", "granite", "hollow", "indigo", "jolly",
    "kindly", "lunar", "mellow", "nimble", "opal", "placid", "quaint", "rustic", "silent", "tidal",
    "upper", "velvet", "windy", "yonder")
LIST(key_second,
    "anchor", "badger", "canyon", "dolphin", "engine", "falcon", "glacier", "hammock", "iguana",
    "jacket", "kernel", "lantern", "magnet", "notebook", "orchard", "paddle", "quarry", "rocket",
    "saddle", "tractor", "umbrella", "violin", "walrus", "zeppelin")
LIST(activities,
    "eat a pear", "sit by the lake", "read a book", "fly a kite", "sing a song", "walk to the mill",
    "feed the duck", "climb the hill", "drink milk", "watch the bird", "sleep in the barn",
    "play the flute", "bake bread", "row a boat", "look at the map", "ring the bell",
    "count the sheep", "swim in the river", "paint a picture", "dance in the garden")
LIST(told,
    "rang the bell of", "knocked at the door of", "slept near", "danced around", "sang a song in",
    "lost a coin in")
LIST(asked,
    "ring the bell of", "knock at the door of", "sleep near", "dance around", "sing a song in",
    "lose a coin in")
