"""A character at a time: a recurrent network of one's own learns a rhyme and recites it.

The cell is an ordinary module.  `fx.scan` carries its state along the text in training, and along
what it says itself when it recites; both compile to loops.  (`char_lstm.py` has ready layers.)
"""

import sys

import numpy as np

import fluxc as fx
from fluxc import losses, nn, optim

RHYME = """\
Round and round the little loop goes,
it takes a step, and what it knows
it carries on from door to door
and stacks the rest upon the floor.
"""
LETTERS = sorted(set(RHYME))
V, H = len(LETTERS), 64


class Cell(fx.Module):
    """A gated recurrent unit: the state moves by as much as the gate lets it."""

    def __init__(self, inputs, state):
        self.gates = nn.Dense(inputs + state, 2 * state, fx.sigmoid)
        self.candidate = nn.Dense(inputs + state, state, fx.tanh)

    def __call__(self, h, x):
        update, reset = fx.split(self.gates(fx.concatenate([x, h], axis=-1)), 2, axis=-1)
        new = self.candidate(fx.concatenate([x, reset * h], axis=-1))
        return h + update * (new - h)


cell, readout = Cell(V, H), nn.Dense(H, V)


def one_hot(letters):
    return (letters[..., None] == fx.arange(V)).astype(fx.f32)


@fx.export(optimizer=optim.Adam(5e-3))
def train_step(text: fx.i32["batch", "time"]):
    """Each letter but the first is predicted from those before it."""

    def step(h, letter):
        h = cell(h, one_hot(letter))
        return h, readout(h)

    before, after = text[:, :-1].T, text[:, 1:].T
    _, logits = fx.scan(step, fx.zeros((text.shape[0], H)), before)
    return losses.logitcrossentropy(logits.reshape(-1, V), after.reshape(-1))


@fx.export
def recite(first: fx.i32[()], warmth: fx.f32[()]):
    """160 letters, each drawn from what the network expects next; at warmth 0 the likeliest."""

    def step(carry, _):
        h, letter = carry
        h = cell(h, one_hot(letter))
        noise = -fx.log(-fx.log(fx.random.uniform((V,), 1e-6, 1 - 1e-6)))
        letter = fx.argmax(readout(h) + warmth * noise).astype(fx.i32)
        return (h, letter), letter

    return fx.scan(step, (fx.zeros(H), first), length=160)[1]


def main():
    rng = np.random.default_rng(0)
    text = np.array([LETTERS.index(c) for c in RHYME * 3], np.int32)
    model = fx.compile(__file__).Model(seed=0)
    for step in range(300):
        starts = rng.integers(0, len(RHYME), 16)
        loss = model.train_step(np.stack([text[i : i + 100] for i in starts]))
        if step % 100 == 0:
            print(f"step {step:3}: loss {loss:.3f}")
    said = RHYME[0] + "".join(LETTERS[i] for i in model.recite(LETTERS.index(RHYME[0]), 0.0))
    print(said)
    lines = said.split("\n")[:4]
    known = sum(line in RHYME.split("\n") for line in lines)
    print(f"lines of the rhyme: {known} of {len(lines)}")
    if known < len(lines):
        sys.exit("the network did not learn the rhyme")


if __name__ == "__main__":
    main()
