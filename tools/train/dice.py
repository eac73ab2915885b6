"""dice.py - random choices from the word lists. Everything a corpus contains follows from the seed
of its dice."""
import numpy as np
import words as W


class Dice:
    def __init__(self, seed):
        self.rng = np.random.default_rng(seed)
        self.pool, self.at = self.rng.random(65536), 0

    def uniform(self):                      # in bulk: a call a number costs more than all the rest
        if self.at == len(self.pool):
            self.pool, self.at = self.rng.random(65536), 0
        self.at += 1
        return float(self.pool[self.at - 1])

    def chance(self, p): return self.uniform() < p
    def below(self, n): return int(self.uniform() * n)
    def between(self, a, b): return a + self.below(b - a + 1)
    def pick(self, items): return items[self.below(len(items))]

    def pick_some(self, items, n):          # n different ones, in random order
        items, out = list(items), []
        for _ in range(n):
            out.append(items.pop(self.below(len(items))))
        return out

    def number(self, shortest=3, longest=5):
        return "".join(str(self.below(10)) for _ in range(self.between(shortest, longest)))

    def invented(self):
        return "".join(self.pick(W.SYLLABLES) for _ in range(self.between(2, 3))).capitalize()

    def name(self): return self.pick(W.NAMES) if self.chance(.5) else self.invented()
    def thing(self): return f"{self.pick(W.ADJECTIVES)} {self.pick(W.OBJECTS)}"

    def place(self):
        return (f"{self.pick(W.ADJECTIVES)} {self.pick(W.PLACES)}" if self.chance(.5)
                else self.pick(W.PLACES))

    def time(self): return self.pick(W.TIMES).capitalize()

    def word(self):
        return self.pick(self.pick([W.ADJECTIVES, W.OBJECTS, W.PLACES, W.ANIMALS, W.FOODS]))

    def value(self):                        # what a secret may be
        k = self.uniform()
        if k < .25: return f"{self.number(4, 4)} {self.thing()}"
        if k < .55: return self.number(3, 7)
        if k < .75: return self.thing()
        if k < .85: return f"{self.name()} {self.pick(W.ANIMALS)}"
        return " ".join(self.word() for _ in range(self.between(1, 4)))
