"""A small GPT: a transformer that learns to write like the docstrings of Python's library.

The model is declared once and compiled to three entries: a training step, one that reads a prompt,
and one that adds a letter.  Keys and values of what was read stay in the model between calls, in an
`nn.KVCache`, so that the last letter of a text costs no more than the first.
"""

import inspect
import sys

import numpy as np

import fluxc as fx
from fluxc import losses, nn, optim

MODULES = ("argparse", "ast", "collections", "functools", "inspect", "pathlib", "random", "shutil")
LENGTH, DIM, DEPTH, HEADS = 64, 64, 2, 4
PROMPT = "Return a"


class SmallGPT(fx.Module):
    """Letters become vectors, blocks of attention mix them, and each says what may come next."""

    def __init__(self):
        self.letters = nn.Embedding(128, DIM, init=fx.init.truncated_normal(std=0.02))
        self.blocks = nn.TransformerEncoder(
            DEPTH, DIM, HEADS, activation=fx.gelu, norm_first=True, dropout_prob=0.0,
            rotary=nn.RotaryEmbedding(),  # how letters know where they stand
        )  # fmt: skip
        self.readout = nn.Dense(DIM, 128)

    def __call__(self, text):
        """Logits of the letter behind each letter: [batch, length] -> [batch, length, 128]."""
        return self.readout(self.blocks(self.letters(text), causal=True))

    def step(self, text, caches, position):
        """The same for letters from `position` on; those before them are in the caches."""
        x, _ = self.blocks.step(self.letters(text), caches, position)
        return self.readout(x)


gpt = SmallGPT()
caches = gpt.blocks.cache(batch=1, length=LENGTH)


@fx.export(optimizer=optim.Adam(3e-3))
def train_step(text: fx.i32["batch", LENGTH + 1]):
    return losses.logitcrossentropy(gpt(text[:, :-1]), text[:, 1:])


@fx.export(stateful=True)
def read(prompt: fx.i32[1, len(PROMPT)]):
    return fx.argmax(gpt.step(prompt, caches, 0)[0, -1])


@fx.export(stateful=True)
def write(letter: fx.i32, position: fx.i32, warmth: fx.f32):
    """The letter behind this one, drawn from what the model expects."""
    logits = gpt.step(letter.reshape(1, 1), caches, position)[0, 0]
    return fx.random.categorical(logits / warmth)


def corpus():
    """The docstrings as numbers of letters."""
    texts = []
    for module in map(__import__, MODULES):
        functions = [f for _, f in sorted(vars(module).items()) if inspect.isroutine(f)]
        texts += [inspect.getdoc(x) or "" for x in (module, *functions)]
    return np.frombuffer("\n\n".join(texts).encode("ascii", "ignore"), np.uint8).astype(np.int32)


def entropy(text):
    """The loss of a model that knows how frequent letters are, and nothing else."""
    p = np.bincount(text) / len(text)
    return -(p[p > 0] * np.log(p[p > 0])).sum()


def main():
    text, rng = corpus(), np.random.default_rng(0)
    model = fx.compile(__file__).Model(seed=0)
    print(f"{len(text)} letters; the loss by their frequencies alone: {entropy(text):.2f}")
    last = []
    for step in range(1, 501):
        starts = rng.integers(0, len(text) - LENGTH, 8)
        last.append(model.train_step(np.stack([text[i : i + LENGTH + 1] for i in starts])))
        if step % 100 == 0:
            print(f"step {step}: loss {np.mean(last[-50:]):.2f}")

    said = [*PROMPT.encode()]
    said.append(int(model.read(np.array([said], np.int32))))
    while len(said) < LENGTH:
        said.append(int(model.write(said[-1], len(said) - 1, 0.5)))
    print(bytes(said).decode())
    if np.mean(last[-50:]) > 0.75 * entropy(text):
        sys.exit("the model learned little")


if __name__ == "__main__":
    main()
