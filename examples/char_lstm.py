"""Letters from two LSTMs: a recurrent model that writes docstrings, one letter after another.

The layers are ready ones, and a chain of them maps a text to the scores of the letter behind each
letter.  That is all that training needs.  Writing needs more: what the layers remember when a text
ends is where the next letter begins.  A recurrent layer takes such a state and, called with
`return_state=True`, hands out the one at its end, so one loop over single letters, a `fx.scan`,
carries the states and the text from letter to letter.  (`char_rnn.py` makes a cell by hand.)

    python examples/char_lstm.py
"""

import inspect
import re
import sys

import numpy as np

import fluxc as fx
from fluxc import data, losses, nn, optim, train

MODULES = ("argparse", "ast", "collections", "functools", "inspect", "pathlib", "random", "shutil")
LETTERS, WIDTH, LENGTH = 128, 128, 50


def one_hot(text):
    return fx.one_hot(text, LETTERS)


model = nn.Chain(
    one_hot,
    nn.LSTM(LETTERS, WIDTH),
    nn.LSTM(WIDTH, WIDTH),
    nn.Dense(WIDTH, LETTERS),
)


@fx.export(optimizer=optim.Chain(optim.ClipNorm(1.0), optim.Adam(1e-2)))
def train_step(text: fx.u8["batch", "length"]):
    return losses.logitcrossentropy(model(text[:, :-1]), text[:, 1:])


def remembering(text, states):
    """Scores behind the last letter of one text, and the states in which the layers are then."""
    _, first, second, readout = model.layers
    x, one = first(one_hot(text), states[0], return_state=True)
    x, two = second(x, states[1], return_state=True)
    return readout(x[-1]), (one, two)


@fx.export
def write(prompt: fx.u8["letters"], warmth: fx.f32):
    """200 letters that go on from the prompt, each drawn from what the model expects."""

    def step(carry, _):
        scores, states = carry
        letter = fx.random.categorical(scores / warmth)
        return remembering(letter[None], states), letter

    return fx.scan(step, remembering(prompt, (None, None)), length=200)[1].astype(fx.u8)


def docstrings():
    """The docstrings of some modules and their functions, as numbers of letters."""
    modules = [__import__(name) for name in MODULES]
    functions = [vars(m)[name] for m in modules for name in sorted(vars(m))]
    texts = [inspect.getdoc(x) or "" for x in modules + [f for f in functions if callable(f)]]
    return np.frombuffer(" ".join(" ".join(texts).split()).encode("ascii", "ignore"), np.uint8)


def entropy(text):
    """The loss of a model that knows how frequent letters are, and nothing else."""
    p = np.bincount(text) / len(text)
    return -(p[p > 0] * np.log(p[p > 0])).sum()


def main():
    text = docstrings()
    compiled = fx.compile(__file__).Model(seed=0)
    print(f"{len(text)} letters; the loss by their frequencies alone: {entropy(text):.2f}")

    windows = data.slidingwindow(text, LENGTH + 1, stride=LENGTH)
    history = train.fit(compiled.train_step, data.DataLoader(windows, 8, shuffle=True), epochs=2)
    for row in history.rows:
        print(f"epoch {row['epoch']}: loss {row['loss']:.2f}")

    prompt = np.frombuffer(b"Return the ", np.uint8)
    said = bytes([*prompt, *compiled.write(prompt, 0.5)]).decode()
    print(said)
    words, known = (set(re.findall(r"\w\w+", t)) for t in (said, text.tobytes().decode()))
    print(f"words that the docstrings have too: {len(words & known)} of {len(words)}")
    if history["loss"][-1] > 0.65 * entropy(text):
        sys.exit("the model learned little")


if __name__ == "__main__":
    main()
