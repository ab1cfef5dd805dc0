"""A small convolutional network on the handwritten digits.

An image is [batch, channels, height, width].  Two convolutions find strokes and then what strokes
make up; pooling halves the image in between; one dense layer names the digit.

Run as a script, it compiles itself, trains through the compiled training step and prints how many
of the images that it never saw it names right.
"""

import sys
from pathlib import Path

from digits import load_digits

import fluxc as fx
from fluxc import data, losses, nn, optim, train

model = nn.Chain(
    nn.Conv((3, 3), 1, 16, fx.relu, pad=nn.SamePad()),  # 8 x 8, 16 kinds of strokes
    nn.Conv((3, 3), 16, 32, fx.relu, pad=nn.SamePad()),
    nn.MaxPool((2, 2)),  # 4 x 4
    nn.Conv((3, 3), 32, 64, fx.relu, pad=nn.SamePad()),
    nn.MaxPool((2, 2)),  # 2 x 2
    nn.flatten,
    nn.Dropout(0.4),
    nn.Dense(64 * 2 * 2, 10),
)


@fx.export
def predict(x: fx.f32["batch", 1, 8, 8]):
    """Class probabilities of images whose pixels are scaled to 0..1."""
    return fx.softmax(model(x), axis=-1)


@fx.export(optimizer=optim.Adam(2e-3))
def train_step(x: fx.f32["batch", 1, 8, 8], y: fx.i32["batch"]):
    """One step of Adam on a batch of images and their labels; returns the loss."""
    return losses.logitcrossentropy(model(x), y)


def as_images(part):
    """The pixels of each image in rows and columns, with one channel."""
    x, y = part
    return x.reshape(-1, 1, 8, 8), y


def main():
    training, (x_test, y_test) = map(as_images, load_digits())
    batches = data.DataLoader(training, 64, shuffle=True)

    build = Path("build/digits_cnn_example")
    build.mkdir(parents=True, exist_ok=True)
    compiled = fx.compile(__file__, output=build / "digits_cnn").Model(seed=0)
    train.fit(compiled.train_step, batches, epochs=20)
    compiled.optimizer["lr"] = 2e-4  # hyper-parameters are values of the running model
    train.fit(compiled.train_step, batches, epochs=10)

    right = compiled.predict(x_test).argmax(1) == y_test
    print(f"held-out accuracy: {right.mean():.1%}")
    if right.mean() < 0.98:
        sys.exit("the model did not learn the digits")


if __name__ == "__main__":
    main()
