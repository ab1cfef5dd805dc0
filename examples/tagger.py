"""Which parenthesis has no partner?  Tags that depend on what comes before and after.

An opening parenthesis is answered for by what follows it, a closing one by what came before: who
reads from left to right, and has to tag each as it comes, cannot know.  `nn.Bidirectional` reads
both ways and joins what the two readers know at each place.

Texts differ in length, so a batch has padding.  Two things keep it out of the model: `lengths`,
which makes the reader from the right begin at each text's own end, and `ignore_index`, the tag that
counts for nothing in the loss.

    python examples/tagger.py
"""

import sys

import numpy as np

import fluxc as fx
from fluxc import data, losses, nn, optim, train

LETTERS = "_()x"  # the first is padding
LONGEST, PADDING = 20, -1  # letters of a text; the tag that is no tag


class Tagger(fx.Module):
    """Letters become vectors, a reader remembers, and each place gets the scores of two tags."""

    def __init__(self, reader, features):
        self.letters = nn.Embedding(len(LETTERS), 8)
        self.reader = reader
        self.readout = nn.Dense(features, 2)

    def __call__(self, text, lengths):
        return self.readout(self.reader(self.letters(text), lengths=lengths))


both_ways = Tagger(nn.Bidirectional(nn.LSTM(8, 32)), 64)
one_way = Tagger(nn.LSTM(8, 64), 64)


def loss(tagger, text, lengths, tags):
    return losses.logitcrossentropy(tagger(text, lengths), tags, ignore_index=PADDING)


@fx.export(optimizer=optim.Adam(1e-2))
def train_step(
    text: fx.u8["batch", "time"], lengths: fx.i32["batch"], tags: fx.i8["batch", "time"]
):
    """Both models on the same batch; neither sees anything of the other."""
    both, one = (loss(tagger, text, lengths, tags) for tagger in (both_ways, one_way))
    return both + one, both, one


@fx.export
def predict(text: fx.u8["batch", "time"], lengths: fx.i32["batch"]):
    """The tags by the model that reads both ways and by the one that does not."""
    return [fx.argmax(tagger(text, lengths), axis=-1) for tagger in (both_ways, one_way)]


def tags_of(text):
    """1 for each parenthesis without a partner, 0 for all other letters."""
    tags, waiting = [0] * len(text), []
    for place, letter in enumerate(text):
        if letter == "(":
            waiting.append(place)
        elif letter == ")" and waiting:
            waiting.pop()
        elif letter == ")":
            tags[place] = 1
    for place in waiting:
        tags[place] = 1
    return tags


def draw(rng, count):
    """Texts as numbers of letters, their lengths, and the tags of their letters."""
    texts = ["".join(rng.choice([*"(())x"], rng.integers(1, LONGEST + 1))) for _ in range(count)]
    numbers = [[LETTERS.index(letter) for letter in text] for text in texts]
    return (
        data.batch_sequence([np.array(n, np.uint8) for n in numbers], 0, LONGEST),
        np.array([*map(len, texts)], np.int32),
        data.batch_sequence([np.array(tags_of(t), np.int8) for t in texts], PADDING, LONGEST),
    )


def main():
    rng = np.random.default_rng(0)
    training, (text, lengths, tags) = draw(rng, 2000), draw(rng, 500)
    compiled = fx.compile(__file__).Model(seed=0)
    train.fit(compiled.train_step, data.DataLoader(training, 32, shuffle=True), epochs=8)

    counts = tags != PADDING
    both, one = (np.mean((found == tags)[counts]) for found in compiled.predict(text, lengths))
    print(f"tags that are right, read both ways: {both:.1%}")
    print(f"tags that are right, read one way: {one:.1%}")

    text = "(x)((x))x)((x"
    numbers = np.array([[LETTERS.index(letter) for letter in text]], np.uint8)
    found = compiled.predict(numbers, np.array([len(text)], np.int32))[0][0]
    print(text)
    print("".join(" ^"[tag] for tag in found).rstrip())
    if both < 0.97:
        sys.exit("the tagger did not learn its tags")


if __name__ == "__main__":
    main()
