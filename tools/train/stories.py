"""stories.py - endless little stories: what the facts are hidden among.

A story has a hero, a friend, a thing and one of several plots, whose sentences are drawn from
alternatives but keep to the same people, places and things. About one story in three is of the
loose kind that tools/common/story.c tells, sentence for sentence."""
import words as W


def stories(d):
    """Yields sentences for ever."""
    while True:
        yield from (loose(d) if d.chance(.35) else plotted(d))


class Cast:
    def __init__(self, d):
        self.hero, self.friend = d.name(), d.name()
        while self.friend == self.hero: self.friend = d.name()
        self.animal, self.animal2 = d.pick_some(W.ANIMALS, 2)
        self.home, self.away = d.pick_some(W.PLACES, 2)
        self.adj, self.obj = d.pick(W.ADJECTIVES), d.pick(W.OBJECTS)
        self.thing = f"{self.adj} {self.obj}"
        self.food = d.pick(W.FOODS)
        self.quality = d.pick(W.QUALITIES)
        self.he, self.his, self.him = d.pick([("he", "his", "him"), ("she", "her", "her")])
        self.He, self.His = self.he.capitalize(), self.his.capitalize()


def article(word): return f"an {word}" if word[0] in "aeiou" else f"a {word}"


def loose(d):
    c = Cast(d)
    N, M = c.hero, c.friend
    yield f"Once upon a time there was {article(c.quality)} {c.animal} named {N}."
    yield d.pick([f"{N} lived near the {c.home} with {c.his} friend {M}.",
                  f"{c.He} lived in a {d.pick(W.ADJECTIVES)} house by the {c.home}.",
                  f"{N} loved to play in the {c.home}."])
    if d.chance(.6):
        yield d.pick([f"Every day {c.he} ate {c.food} and walked to the {c.home}.",
                      f"{N} was always {d.pick(W.MOODS)} and liked to sing.",
                      f"{c.His} best friend was a {c.animal2} named {M}."])
    yield d.pick([f"{d.time()} {N} found a {c.thing} near the {c.away}.",
                  f"{d.time()} {N} lost {c.his} {c.thing} in the {c.away}.",
                  f"{d.time()} {M} gave {N} a {c.thing}."])
    yield d.pick([f'"What a {d.pick(W.ADJECTIVES)} {c.obj}!" said {N}.',
                  f'"Look at this {c.obj}," said {N} to {M}.',
                  f"{N} looked at the {c.obj} and felt {d.pick(W.MOODS)}."])
    for _ in range(d.between(1, 5)):
        yield middle(d, c)
    yield d.pick([f"{N} was {d.pick(W.MOODS)} and went home.",
                  f"In the end {N} and {M} were happy.",
                  f"{d.time()} {N} shared the {c.food} with {M} and they became friends.",
                  f"{N} kept the {c.obj} for a long time and never forgot that day."])


def middle(d, c):
    N, M = c.hero, c.friend
    place, place2, adj, adj2 = (d.pick(W.PLACES), d.pick(W.PLACES),
                                d.pick(W.ADJECTIVES), d.pick(W.ADJECTIVES))
    animal, obj, mood, mood2 = (d.pick(W.ANIMALS), d.pick(W.OBJECTS),
                                d.pick(W.MOODS), d.pick(W.MOODS))
    return d.pick([
        f"{d.time()} it began to rain and they ran to the {place}.",
        f"{M} the {c.animal2} came to help {c.him}.", f'"Can you help me?" asked {N}.',
        f'"Yes, I can help you," said {M}.', f"They walked past the {place} and over the {place2}.",
        f"{d.time()} they sat under a {adj} tree and ate {d.pick(W.FOODS)}.",
        f"{N} put the {c.obj} in a {adj} {obj}.", f"The {animal} in the {place} was very {mood}.",
        f"{M} was {mood}, but {N} was {mood2}.", f"{c.He} took the {obj} and went to the {place}.",
        f"They saw a {adj} {animal} with a {adj2} {obj}.",
        f"A {animal} lost {d.between(2, 99)} {obj}s in the {place}.",
        f"The {place} was {adj} and {adj2}."])


def plotted(d):
    c = Cast(d)
    yield from opening(d, c)
    yield from d.pick([lost, storm, gift, quarrel, journey, contest, trade])(d, c)
    if d.chance(.4):
        yield d.pick([f"From that day on {c.hero} and {c.friend} met at the {c.home} "
                      "every evening.",
                      f"And if you go to the {c.home}, you may still hear {c.hero} tell of it.",
                      f"{c.hero} slept well that night and dreamt of the {c.away}.",
                      f'"Tomorrow we shall go to the {c.away} again," said {c.friend}.'])


def opening(d, c):
    N, M = c.hero, c.friend
    yield d.pick([f"Once upon a time there was {article(c.quality)} {c.animal} named {N}.",
                  f"There once was a {c.animal} named {N}, who lived by the {c.home}.",
                  f"Near the {c.home} lived {N}, {article(c.quality)} {c.animal}.",
                  f"Once there was a {d.pick(W.TRADES)} named {N}, who had {article(c.quality)} "
                  f"house by the {c.home}."])
    if d.chance(.7):
        yield d.pick([f"{c.His} best friend was a {c.animal2} named {M}.",
                      f"{M} the {c.animal2} was {c.his} friend.",
                      f"Every morning {c.he} shared {c.his} {c.food} with {M}, the {c.animal2}."])
    if d.chance(.4):
        yield d.pick([f"{N} liked nothing better than {c.food}.",
                      f"{c.He} was proud of {c.his} {c.thing}.",
                      f"The other animals said that {N} was too {c.quality}.",
                      f"In the evening {c.he} sat by the door and sang."])


def lost(d, c):
    N, M = c.hero, c.friend
    where = d.pick(W.PLACES)
    yield f"{d.time()} {N} could not find {c.his} {c.thing}."
    yield d.pick([f'"Have you seen my {c.obj}?" {c.he} asked {M}.',
                  f"{c.He} looked in the {c.home} and under the bed, but it was gone."])
    yield d.pick([f"They looked in the {where}, but there was only a {d.thing()}.",
                  f"{M} went to the {where} and came back with nothing."])
    yield d.pick([f"{N} was so {d.pick(['sad', 'tired', 'angry'])} that {c.he} did not eat.",
                  f"{N} sat down and began to cry."])
    yield d.pick([f"Then {M} looked behind the {d.pick(W.OBJECTS)} in the {c.away}.",
                  f"At last they came to the {c.away}."])
    yield d.pick([f'"Here is your {c.obj}!" said {M}.',
                  f"There lay the {c.thing}, and it was not even broken."])
    yield (f"{N} was {d.pick(['happy', 'excited', 'surprised'])} and gave {M} "
           f"the biggest {c.food} in the house.")


def storm(d, c):
    N, M = c.hero, c.friend
    yield f"{d.time()} {N} and {M} were in the {c.away} when the sky became dark."
    yield d.pick(["The wind was so strong that the trees began to bend.",
                  "It rained and rained, and the path was gone.", "The water came up to the door."])
    yield d.pick([f'"I am scared," said {M}.',
                  f'"We must go home," said {N}, but nobody knew the way.'])
    yield d.pick([f"{N} took {c.his} {c.thing} and held it up.",
                  f"{N} remembered the {c.thing} and lit a candle."])
    yield d.pick([f"In the light they saw the old {c.home}.",
                  f"A {d.pick(W.ANIMALS)} heard them and showed them the way."])
    yield d.pick([f"Inside it was warm, and there was {c.food} for everyone.",
                  f"They dried their feet and ate {c.food} until the rain stopped."])


def gift(d, c):
    N, M = c.hero, c.friend
    yield d.pick([f"{d.time()} {N} wanted to make {M} a present.",
                  f"Soon it was the birthday of {M}."])
    yield f"So {c.he} went to the {c.away} and looked for {article(c.thing)}."
    yield d.pick([f'"That will be {d.between(2, 99)} coins," said the {d.pick(W.TRADES)}.',
                  f"But the {c.obj} cost more than {c.he} had."])
    yield d.pick([f"{N} worked in the {c.away} all day and was very tired.",
                  f"{N} gave away {c.his} {d.thing()} for it."])
    yield d.pick([f"When {M} saw the {c.obj}, {M} was too happy to speak.",
                  f'"It is the best {c.obj} in the world!" said {M}.'])
    yield f"They ate {c.food} and laughed until it was night."


def quarrel(d, c):
    N, M = c.hero, c.friend
    yield f"{d.time()} {N} and {M} found {article(c.thing)} in the {c.away}."
    yield f'"It is mine," said {N}. "I saw it first."'
    yield d.pick([f'"No, it is mine," said {M}, and ran away with it.',
                  f"{M} was so angry that {M} did not say a word for days."])
    yield d.pick([f"{N} sat alone in the {c.home} and felt {d.pick(['lonely', 'sad', 'angry'])}.",
                  f"Without {M} the {c.food} was not as good."])
    yield d.pick([f"Then {c.he} went to {M} and said that {c.he} was sorry.",
                  f"An old {d.pick(W.ANIMALS)} told them to share it."])
    yield f"Since then the {c.obj} belongs to both of them, one day to {N} and the next day to {M}."


def journey(d, c):
    N, M = c.hero, c.friend
    a, b = d.pick_some(W.PLACES, 2)
    yield d.pick([f"{d.time()} {N} said, \"I want to see the {c.away}.\"",
                  f"{N} had a map that showed a way to the {c.away}."])
    yield f"{c.He} packed {c.food} and {article(c.thing)} and called {M}."
    yield f"They walked past the {a} and over the {b}."
    yield d.pick([f"At the {b} a {d.pick(W.ANIMALS)} asked them for {c.food}, "
                  "and they gave it some.",
                  f"By the {a} they slept under a {d.pick(W.QUALITIES)} tree."])
    yield d.pick([f"When they came to the {c.away}, "
                  f"it was {d.pick(W.QUALITIES)} and {d.pick(W.QUALITIES)}.",
                  f"The {c.away} was even more {d.pick(['quiet', 'bright', 'wild'])} "
                  "than they had thought."])
    yield f"{N} left the {c.obj} there, so that others could find it."


def contest(d, c):
    N, M = c.hero, c.friend
    yield f"{d.time()} there was a race from the {c.home} to the {c.away}."
    yield d.pick([f"The winner would get {article(c.thing)}.",
                  f'"I shall win the {c.thing}," said {N}.'])
    yield d.pick([f"{M} was fast, but {N} was clever.", f"{N} ran as fast as {c.he} could."])
    yield d.pick([f"Near the {d.pick(W.PLACES)} {M} fell and could not get up.",
                  f"Half way there they met a {d.pick(W.ANIMALS)} who had lost its way."])
    yield d.pick([f"{N} stopped to help, and the others ran past them.",
                  f"{N} turned around, although the {c.away} was so near."])
    yield d.pick([f"They came in last, but everyone clapped for {N}.",
                  f"{N} did not win the {c.obj}, but {c.he} had won a friend."])


def trade(d, c):
    N, M = c.hero, c.friend
    first, second = d.pick_some(W.OBJECTS, 2)
    yield f"{d.time()} {N} took {c.his} {first} to the market."
    yield f"A {d.pick(W.TRADES)} gave {c.him} a {second} for it."
    yield f"Then {M} came by and wanted the {second}, and {N} got {article(c.thing)}."
    yield d.pick([f"{N} liked the {c.obj} so much that {c.he} never gave it away.",
                  f"At home {c.he} put the {c.obj} on the table and looked at it."])
    yield d.pick([f'"You began with a {first}," said {M}, "and now look at you!"',
                  f"So a {first} became {article(c.obj)}."])
