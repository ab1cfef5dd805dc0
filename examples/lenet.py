"""LeNet: the convolutional network that read cheques, on small handwritten digits.

An image is [batch, channels, height, width].  Two convolutions find strokes and then what strokes
make up; pooling halves the image behind each; three dense layers name the digit.  `nn.autosize`
works out how many numbers reach each layer, so that none of them is written down: with images of
28 x 28 and no padding this would be LeNet for MNIST, with its 44,426 parameters.  `train.fit`
calls the compiled step; the optimiser is a chain of two rules, weight decay before Adam.

    python examples/lenet.py
"""

import sys

from digits import load_digits

import fluxc as fx
from fluxc import data, losses, nn, optim, train

model = nn.autosize(
    ("batch", 1, 8, 8),
    nn.sized(lambda n: nn.Conv((5, 5), n, 6, fx.relu, pad=nn.SamePad())),
    nn.MaxPool((2, 2)),  # 4 x 4
    nn.sized(lambda n: nn.Conv((5, 5), n, 16, fx.relu, pad=nn.SamePad())),
    nn.MaxPool((2, 2)),  # 2 x 2
    nn.flatten,
    nn.sized(lambda n: nn.Dense(n, 120, fx.relu)),
    nn.sized(lambda n: nn.Dense(n, 84, fx.relu)),
    nn.sized(lambda n: nn.Dense(n, 10)),
)


@fx.export
def predict(x: fx.f32["batch", 1, 8, 8]):
    """Class probabilities of images whose pixels are scaled to 0..1."""
    return fx.softmax(model(x), axis=-1)


@fx.export(optimizer=optim.OptimiserChain(optim.WeightDecay(1e-2), optim.Adam(2e-3)))
def train_step(x: fx.f32["batch", 1, 8, 8], y: fx.i32["batch"]):
    """One step on a batch of images and their labels; returns the loss."""
    return losses.logitcrossentropy(model(x), y)


def as_images(part):
    """The pixels of each image in rows and columns, with one channel."""
    x, y = part
    return x.reshape(-1, 1, 8, 8), y


def main():
    print(model)
    training, held_out = map(as_images, load_digits())
    batches, unseen = data.DataLoader(training, 64, shuffle=True), data.DataLoader(held_out, 128)

    compiled = fx.compile(__file__).Model(seed=0)
    train.fit(compiled.train_step, batches, epochs=20)
    compiled.optimizer["lr"] = 2e-4  # hyper-parameters are values of the running model
    train.fit(compiled.train_step, batches, epochs=10)

    found = train.evaluate(compiled.predict, unseen, {"accuracy": train.accuracy})
    print(f"held-out accuracy: {found['accuracy']:.1%}")
    if found["accuracy"] < 0.97:
        sys.exit("the model did not learn the digits")


if __name__ == "__main__":
    main()
