"""tasks.py - what is hidden in the stories and asked for: facts, two-hop chains, lists of values,
chains of names, counts.

A Task is a list of statements, to be spread over a text in this order, and ask(dice), a question to
put anywhere behind them. In both, [..] marks what can be looked up and (..) what cannot be known
yet; the marks never reach the model.

What is held out of training, to be tested on:
  subjects   one in eight, by a hash of their words (held_out)
  wordings   of each relation the last statement and the last question
tools/common/task.c asks the same questions for bin/needle: keep the two alike."""
import zlib
from typing import Callable, NamedTuple
import wordings
import words as W


KINDS_OF_TASK = ["fact", "hop", "several", "chain", "count", "list"]


class Task(NamedTuple):
    kind: str                   # one of KINDS_OF_TASK
    key: tuple                  # no two tasks of one text share it
    statements: list
    ask: Callable
    apart: tuple = ()           # nor any of these


def held_out(*subject): return zlib.crc32(" ".join(subject).encode()) % 8 == 0


def subject(d, draw, held):
    """Draws until the subject is on the wanted side of the split."""
    while True:
        s = draw()
        if held_out(*s) == held: return s


# ---- facts: one statement, one value -------------------------------------------------------------
# Each relation: (a subject, its value, statements with %s for the value, questions, what stands
# before the value in an answer).

def secret(d, held):
    k, p = subject(d, lambda: (d.pick(W.KINDS), d.place()), held)
    return (k, p), d.value(), [
        f"The secret {k} of the {p} is %s.", f"Remember that the secret {k} of the {p} is %s.",
        f"The {p} has a secret {k}: %s.", f"Nobody but you knows the secret {k} of the {p}, %s.",
        f"In the {p} the secret {k} is %s."], [
        f"What is the secret {k} of the {p}?", f"Which secret {k} does the {p} have?",
        f"Can you tell me the secret {k} of the {p}?",
        f"What was said about the secret {k} of the {p}?"], ""


def magic(d, held):
    k, n = subject(d, lambda: (d.pick(W.KINDS), d.name()), held)
    return (k, n), d.value(), [
        f"The special magic {k} for {n} is %s.", f"A special magic {k} for {n} is: %s.",
        f"For {n} the special magic {k} is %s.", f"{n} has a special magic {k}, which is %s."], [
        f"What is the special magic {k} for {n}?",
        f"What is the special magic {k} for {n} in the text above?",
        f"Which special magic {k} does {n} have?"], ""


def access(d, held):
    a, b = subject(d, lambda: (d.pick(W.KEY_FIRST), d.pick(W.KEY_SECOND)), held)
    k = f"{a}-{b}"
    return (a, b), d.number(7, 7), [
        f"The access number of {k} is %s.", f"Note that the access number of {k} is %s.",
        f"To enter {k} you need the number %s."], [
        f"What is the access number of {k}?",
        f"What does the text above say is the access number of {k}?",
        f"Which number opens {k}?"], ""


def keeps(d, held):
    n, t = subject(d, lambda: (d.name(), d.thing()), held)
    his = d.pick(["his", "her"])
    return (n, t), f"{d.pick(W.ADJECTIVES)} {d.pick(W.PLACES)}", [
        f"{n} keeps {his} {t} in the %s.", f"{n} has hidden {his} {t} in the %s.",
        f"The {t} of {n} is in the %s."], [
        f"Where does {n} keep {his} {t}?", f"Where is the {t} of {n}?",
        f"In which place has {n} hidden {his} {t}?"], "in the "


def owner(d, held):
    t, = subject(d, lambda: (d.thing(),), held)
    return (t,), d.name(), [
        f"The {t} belongs to %s.", f"The owner of the {t} is %s.",
        f"Everyone knows that the {t} belongs to %s."], [
        f"Who owns the {t}?", f"To whom does the {t} belong?", f"Who is the owner of the {t}?"], ""


def favourite(d, held):
    n, k = subject(d, lambda: (d.name(), d.pick(W.THINGS)), held)
    return (n, k), d.value(), [
        f"The favourite {k} of {n} is %s.", f"{n} says that the favourite {k} is %s.",
        f"The {k} that {n} loves most is %s."], [
        f"What is the favourite {k} of {n}?", f"Which {k} does {n} love most?",
        f"What does {n} say is the favourite {k}?"], ""


def phone(d, held):
    n, = subject(d, lambda: (d.name(),), held)
    return (n,), d.number(4, 6), [
        f"The phone number of {n} is %s.", f"You can call {n} at the number %s.",
        f"{n} has the phone number %s."], [
        f"What is the phone number of {n}?", f"At which number can you call {n}?",
        f"Which phone number does {n} have?"], ""


def best_thing(d, held):
    p, = subject(d, lambda: (d.place() if d.chance(.5) else d.invented(),), held)
    where = f"in {p}" if p[0].isupper() else f"in the {p}"
    a, b = d.pick_some(W.ACTIVITIES, 2)
    return (p,), f"{a} and {b}", [
        f"The best thing to do {where} is to %s.",
        f"If you come to {where[3:]}, the best thing to do is to %s.",
        f"People say the best thing to do {where} is to %s."], [
        f"What is the best thing to do {where}?", f"What should you do {where}?",
        f"What do people say is best to do {where}?"], "to "


RELATIONS = [secret, magic, access, keeps, owner, favourite, phone, best_thing]


def fact(d, held, relation, variety=True):
    """variety: in any wording of training, those of wordings.py too; without, in the first."""
    subj, value, says, asks, lead = relation(d, held)
    first, says, asks = says[0], says[:-1], asks[:-1]
    if variety:
        more_says, more_asks = wordings.more(d, relation.__name__, subj, 4)
        says, asks = says + more_says, asks + more_asks

    def told(d): return wordings.opened(d, d.pick(says)) if variety else first

    def ask(d):
        k = d.uniform()
        if k < .2:
            return d.pick(["", "Remember: ", "As we said: ", "Again: "]) + told(d) % f"[{value}]"
        q = wordings.dressed(d, d.pick(asks)) if variety else asks[0]
        if k < .88: return f"Question: {q} Answer: {lead}[{value}]."
        return f"Question: {q} Full answer: " + first % f"[{value}]"
    return Task("fact", (relation.__name__, *subj), [told(d) % f"({value})"], ask)


# ---- more than one place to look at --------------------------------------------------------------

def two_hop(d, held):
    """Where a thing lies, and whose it is: the question names the place and asks for the owner."""
    (t, p) = subject(d, lambda: (d.thing(), d.place()), held)
    n = d.name()
    says = [d.pick([f"The {p} holds the ({t}).", f"What lies in the {p} is the ({t})."]),
            d.pick([f"The {t} belongs to ({n}).", f"The owner of the {t} is ({n})."])]
    if d.chance(.5): says.reverse()

    def ask(d):
        q = d.pick([f"Who owns what lies in the {p}?",
                    f"To whom does the thing in the {p} belong?"])
        return f"Question: {q} " + (f"Answer: the [{t}], so [{n}]." if d.chance(.6)
                                    else f"Short answer: [{n}].")
    return Task("hop", (p,), says, ask)


def several(d, held):
    """Several values of one key, told one at a time and asked for together, in the order they were
    told."""
    k, n = subject(d, lambda: (d.pick(W.KINDS), d.name()), held)
    adj = d.pick(["lucky", "hidden", "golden"])
    drawn = [d.number(3, 4) if k in ("number", "code") else d.word() for _ in range(12)]
    values = d.pick_some(dict.fromkeys(drawn), d.between(2, 4))
    listed = ", ".join(f"[{v}]" for v in values)
    return Task("several", (k, n), [f"One of the {adj} {k}s of {n} is ({v})." for v in values],
                lambda d: f"Question: What are all the {adj} {k}s of {n}? Answer: {listed}.")


def chain(d, held):
    """A name given to a number, and to that name another name, and so on: what is the number
    called?"""
    names = d.pick_some(dict.fromkeys(d.name() if d.chance(.7) else d.pick(W.NAMES)
                                      for _ in range(20)), d.between(2, 5))
    v = d.number(5, 5)
    says = [f"The number {v} is called ({names[0]})."] + [
        f"What is called {a} is also called ({b})." for a, b in zip(names, names[1:])]
    listed = ", also ".join(f"[{n}]" for n in names)
    return Task("chain", (v,), says,
                lambda d: f"Question: What is the number {v} called? Answer: {listed}.",
                tuple(names))


def count(d, held):
    """How often something was told, each time with somebody else: the answer names them, then their
    number."""
    a, p = subject(d, lambda: (d.pick(W.ANIMALS), d.place()), held)
    did, do = d.pick(W.DEEDS)
    names = d.pick_some(W.NAMES, d.between(1, 5))
    listed = ", ".join(f"[{n}]" for n in names)
    return Task("count", (a, do, p), [f"The {a} {did} the {p} with ({n})." for n in names],
                lambda d: f"Question: How many times did the {a} {do} the {p}? "
                          f"Answer: with {listed}, so [{len(names)}].")


def listing(d, held):
    """A list to be copied, so that looking back forms early."""
    w = [d.word() if d.chance(.6) else d.number(3, 7) if d.chance(.7) else d.name()
         for _ in range(d.between(4, 12))]
    return Task("list", (*w,), ["List: (" + " ".join(w) + ")."],
                lambda d: f"Again: {w[0]} [" + " ".join(w[1:]) + "].")


HARDER = [two_hop, several, several, chain, count, count, count]
