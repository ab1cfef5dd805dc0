"""Reading without knowing where the letters are: connectionist temporal classification.

A recording of a word is longer than the word, and nobody says which part of it belongs to which
letter.  Here each letter is a pattern of 8 channels that lasts for two to five steps, runs into its
neighbours and is noisy.  At each step the model says a letter, or nothing (the "blank"),
and the loss is minus the logarithm of the probability of the word: the sum over every way in which
the steps can say it.  Read greedily, the word is what is said at each step, without repetitions and
blanks.

    python examples/ctc.py
"""

import itertools
import sys

import numpy as np

import fluxc as fx
from fluxc import data, losses, nn, optim, train

ALPHABET, BLANK = "abcde", 5
CHANNELS, STEPS, LETTERS = 8, 40, 6  # the longest recording, the longest word


class Reader(fx.Module):
    """Scores of letters at each step, which its neighbours on both sides help to tell."""

    def __init__(self):
        self.layers = nn.Bidirectional(nn.GRU(CHANNELS, 32))
        self.readout = nn.Dense(64, len(ALPHABET) + 1)

    def __call__(self, recording, steps):
        return self.readout(self.layers(recording, lengths=steps))


reader = Reader()


@fx.export(optimizer=optim.Chain(optim.ClipNorm(1.0), optim.Adam(1e-2)))
def train_step(
    recording: fx.f32["batch", "time", CHANNELS], steps: fx.i32["batch"],
    word: fx.u8["batch", "letters"], letters: fx.i32["batch"],
):  # fmt: skip
    scores = reader(recording, steps)
    return losses.ctc_loss(scores, word, input_lengths=steps, target_lengths=letters, blank=BLANK)


@fx.export
def predict(recording: fx.f32["batch", "time", CHANNELS], steps: fx.i32["batch"]):
    """What is said at each step."""
    return fx.argmax(reader(recording, steps), axis=-1)


def spoken(path):
    """The letters that a path says: repetitions are one letter, blanks are none."""
    return "".join(ALPHABET[said] for said, _ in itertools.groupby(path) if said != BLANK)


def record(rng, word, patterns):
    """A word as [steps, CHANNELS]: silence, then letter after letter with silence between."""
    silence = np.zeros((1, CHANNELS))
    parts = [silence]
    for letter in word:
        parts += [np.repeat(patterns[letter][None], rng.integers(2, 6), axis=0), silence]
    sound = np.concatenate(parts)
    blurred = (np.roll(sound, 1, axis=0) + 2 * sound + np.roll(sound, -1, axis=0)) / 4
    return (blurred + 0.2 * rng.normal(size=sound.shape)).astype(np.float32)


def draw(rng, patterns, count):
    """Recordings and words of different lengths, padded, and their lengths."""
    words = [rng.integers(0, BLANK, rng.integers(1, LETTERS + 1)) for _ in range(count)]
    recordings = [record(rng, word, patterns) for word in words]
    return (
        data.batch_sequence(recordings, 0, STEPS),
        np.array([*map(len, recordings)], np.int32),
        data.batch_sequence([word.astype(np.uint8) for word in words], 0, LETTERS),
        np.array([*map(len, words)], np.int32),
    )


def main():
    rng = np.random.default_rng(0)
    patterns = rng.normal(size=(len(ALPHABET), CHANNELS))
    training, held_out = draw(rng, patterns, 1000), draw(rng, patterns, 200)
    compiled = fx.compile(__file__).Model(seed=0)
    loader = data.DataLoader(training, 20, shuffle=True)
    history = train.fit(compiled.train_step, loader, epochs=12)
    print(
        f"loss of the first epoch: {history['loss'][0]:.2f}, of the last: {history['loss'][-1]:.2f}"
    )

    recordings, steps, words, letters = held_out
    paths = [path[:n] for path, n in zip(compiled.predict(recordings, steps), steps, strict=True)]
    truth = ["".join(ALPHABET[i] for i in word[:n]) for word, n in zip(words, letters, strict=True)]
    one = letters.argmax()
    print("said at each step:", "".join((ALPHABET + "-")[i] for i in paths[one]))
    print(f"which is {spoken(paths[one])}; the word was {truth[one]}")
    right = np.mean([spoken(path) == word for path, word in zip(paths, truth, strict=True)])
    print(f"words without a mistake: {right:.1%}")
    if right < 0.9:
        sys.exit("the reader did not learn to read")


if __name__ == "__main__":
    main()
