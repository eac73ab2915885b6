"""corpus.py - training sequences: stories with tasks spread through them, as token ids with
weights, positions and key biases.

Most sequences are short (256 .. 4096 tokens) and the model is to work at 16k and more, so length is
simulated, in training only:
  positions  jump ahead at random between sentences, so that any distance up to max_position is met;
  key bias   log M on the keys of story tokens further back than attention.NEAR: the softmax then
             behaves as if each of them occurred M times, which is what dilution in a context M
             times longer is, and an answer has to win by that margin. Facts nobody asks about get
             at most log 8, facts asked about none."""
import math
from typing import NamedTuple
import numpy as np
import sentencepiece
import tasks as K
import words as W
from dice import Dice
from stories import stories

STORY, DISTRACTOR, FACT = 1, 2, 0           # what a token belongs to
PLAIN, UNKNOWABLE, ANSWER = 0, 1, 2         # whether it could be foretold


class Item(NamedTuple):
    belongs: int        # STORY, DISTRACTOR, FACT
    text: str           # with marks
    task: int           # index into KINDS_OF_TASK of the task asked about, -1: nothing is asked


def document(d, n_tokens, listing, plain, variety=True, held=False):
    """Items in order, about n_tokens long. listing: share of list copying among the tasks;
    plain: stories only; variety: of wordings."""
    room, used, placed, keys = n_tokens * 1.15, 0.0, [], set()
    # Sparse: long stretches of nothing but story, as when a model is tested.
    sparse = n_tokens >= 2048 and d.chance(.6 if n_tokens < 16384 else .8)
    spacing = 90 * (n_tokens / 360) ** d.uniform() if sparse else d.between(25, 90)
    wanted = 0 if plain else max(2, int(n_tokens / spacing))
    # Few kinds, so that facts can be taken for each other.
    relations = d.pick_some(K.RELATIONS, d.between(1, 4))
    while wanted > 0:
        k = d.uniform()
        if k < listing: task = K.listing(d, held)
        elif k < listing + .28: task = d.pick(K.HARDER)(d, held)
        else: task = K.fact(d, held, d.pick(relations), variety)
        wanted -= max(1, len(task.statements) - 1)
        taken = {(task.kind, k) for k in (task.key, *task.apart)}
        if taken & keys: continue
        keys |= taken
        asked = d.pick([1, 1, 1, 2] if sparse else [0, 1, 1, 2, 2])
        at = sorted(d.uniform() * .85 for _ in task.statements)
        for u, s in zip(at, task.statements):
            placed.append((u, Item(FACT if asked else DISTRACTOR, s, -1)))
            used += 17
        for _ in range(asked):
            u = at[-1] + (1 - at[-1]) * d.uniform() ** d.pick([.5, 1, 2])
            placed.append((u, Item(FACT, task.ask(d), K.KINDS_OF_TASK.index(task.kind))))
            used += 22
    story, n = stories(d), max(1, int((room - used) / 14))
    placed += [((i + .5) / n, Item(STORY, next(story), -1)) for i in range(n)]
    return [item for _, item in sorted(placed, key=lambda p: p[0])]


class Tokenizer:
    """SentencePiece word by word: its pieces never cross a space, so this is exact, and a cache of
    words makes it fast."""
    def __init__(self, path):
        self.sp = sentencepiece.SentencePieceProcessor(model_file=path)
        self.cache = {}

    def word(self, w):
        ids = self.cache.get(w)
        if ids is None:
            if len(self.cache) > 200000: self.cache.clear()
            ids = self.cache[w] = self.sp.encode(w)
        return ids

    def marked(self, text, newline=False):
        """ids of a text with marks, and PLAIN, UNKNOWABLE or ANSWER for each. newline: it begins a
        line."""
        ids, marks, state = [], [], PLAIN
        for i, w in enumerate(text.split(" ")):
            if w[0] == "[": state, w = ANSWER, w[1:]
            elif w[0] == "(": state, w = UNKNOWABLE, w[1:]
            end = "]" in w or ")" in w
            if end: w = w.replace("]", "", 1).replace(")", "", 1)
            # [1:]: a lone space
            new = self.sp.encode("\n" + w)[1:] if newline and i == 0 else self.word(w)
            ids += new
            marks += [state] * len(new)
            if end: state = PLAIN
        return ids, marks


class Sample(NamedTuple):
    ids: np.ndarray             # [T + 1]
    marks: np.ndarray           # [T + 1]
    task: np.ndarray            # [T + 1] index into KINDS_OF_TASK, -1
    positions: np.ndarray       # [T]
    key_bias: np.ndarray        # [T] float32


def sample(d, tok, T, listing=.05, stretch=True, variety=True, max_position=36000,
           max_multiplied=1 << 17):
    # BOS occurs once in any context.
    ids, marks, task, belongs, starts = [1], [PLAIN], [-1], [FACT], [0]
    on_lines, plain = d.chance(.3), d.chance(.14)
    while len(ids) < T + 1:
        for item in document(d, T + 1 - len(ids), listing, plain, variety):
            starts.append(len(ids))
            new, m = tok.marked(item.text, on_lines and item.text.startswith("Question"))
            ids += new
            marks += m
            task += [item.task] * len(new)
            belongs += [item.belongs] * len(new)
            if len(ids) > T: break
    positions, bias = np.arange(T), np.zeros(T, np.float32)
    belongs = np.array(belongs[:T])
    if stretch and d.chance(.7):
        total = math.exp(math.log(64) + d.uniform() * math.log(max_position / 64))
        starts = [s for s in starts if s < T]
        jumps = [d.pick(starts) for _ in range(d.between(1, 10))]
        for at, n in zip(jumps, d.rng.dirichlet(np.ones(len(jumps))) * total):
            positions[at:] += int(n)
    if stretch and d.chance(.7):
        log_m = d.uniform() * math.log(min(128, max_multiplied / T))
        bias[belongs == STORY] = log_m
        bias[belongs == DISTRACTOR] = min(log_m, math.log(8))
    return Sample(*(np.array(x[:T + 1]) for x in (ids, marks, task)), positions, bias)


def train_tokenizer(prefix, vocabulary, seed=1, lines=60000):
    """Writes prefix.model: BPE with byte fallback, digits one by one, fitted to what the dice of
    that seed tell."""
    d = Dice(seed)
    story, text = stories(d), []
    for i in range(lines):
        if i % 3: text.append(next(story)); continue
        task = d.pick(K.HARDER)(d, False) if d.chance(.4) else K.fact(d, False, d.pick(K.RELATIONS))
        text.append(d.pick(task.statements + [task.ask(d)]))
    text = [t.translate({ord(c): None for c in "[]()"}) for t in text]
    for group in W.EVERYTHING:
        text += [" ".join(group), ", ".join(w.capitalize() for w in group), "s ".join(group)] * 20
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(text), model_prefix=prefix, vocab_size=vocabulary, model_type="bpe",
        byte_fallback=True, split_digits=True, normalization_rule_name="identity",
        remove_extra_whitespaces=False, add_dummy_prefix=True, character_coverage=1.0,
        unk_id=0, bos_id=1, eos_id=2, pad_id=-1, num_threads=1, minloglevel=2)


if __name__ == "__main__":      # a look at the corpus
    import sys
    for item in document(Dice(int(sys.argv[1]) if len(sys.argv) > 1 else 1), 1024, .05, False):
        print(item.text)
