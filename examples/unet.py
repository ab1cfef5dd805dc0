"""A U-Net: say of each pixel whether it belongs to the shape.

What a pixel shows depends on what surrounds it, and where the edge runs depends on the pixel.  A
U-Net (Ronneberger, Fischer and Brox, 2015) goes down to a coarse image, where a pixel sees far, and
up again to the fine one, and at each level hands the fine image across, beside the one that comes
up.  One such level is a `nn.SkipConnection` around what is below it, so that the network is a
function of its depth.

The images are generated: discs and boxes, brighter than a background that shades from one side to
the other, under noise that hides the edges.  What can be done by hand is to blur and to take a
threshold; the best blur with the best threshold is printed beside.

    python examples/unet.py
"""

import sys

import numpy as np

import fluxc as fx
from fluxc import data, losses, nn, optim, train

SIZE = 16


def two_convolutions(inputs, outputs):
    return nn.Chain(
        nn.Conv((3, 3), inputs, outputs, pad=nn.SamePad(), bias=False),
        nn.BatchNorm(outputs, fx.relu),
        nn.Conv((3, 3), outputs, outputs, pad=nn.SamePad(), bias=False),
        nn.BatchNorm(outputs, fx.relu),
    )


def beside(a, b):
    """Both images in one, as channels."""
    return fx.concatenate([a, b], axis=1)


def unet(depth, inputs, width):
    """Convolutions; at half the size, a U-Net with twice as many channels; convolutions of both."""
    if depth == 0:
        return two_convolutions(inputs, width)
    below = nn.Chain(
        nn.MaxPool((2, 2)),
        unet(depth - 1, width, 2 * width),
        nn.ConvTranspose((2, 2), 2 * width, width, stride=2),
    )
    return nn.Chain(
        two_convolutions(inputs, width),
        nn.SkipConnection(below, beside),
        two_convolutions(2 * width, width),
    )


model = nn.Chain(unet(2, 1, 8), nn.Conv((1, 1), 8, 1))


@fx.export
def predict(image: fx.f32["batch", 1, SIZE, SIZE]):
    """The probability of each pixel to belong to the shape."""
    return fx.sigmoid(model(image))


@fx.export(optimizer=optim.Adam(3e-3))
def train_step(image: fx.f32["batch", 1, SIZE, SIZE], mask: fx.f32["batch", 1, SIZE, SIZE]):
    """Whether each pixel is told, and how much of the shape is covered."""
    logits = model(image)
    pixels = losses.logitbinarycrossentropy(logits, mask)
    return pixels + losses.dice_coeff_loss(fx.sigmoid(logits), mask)


def draw(rng, n):
    """n images and their masks: a disc or a box each, on a shaded background, under noise."""
    rows, columns = np.mgrid[:SIZE, :SIZE]
    radius = rng.uniform(3, 6, (n, 1, 1))
    middle = rng.uniform(4, SIZE - 4, (2, n, 1, 1))
    away = np.abs(rows - middle[0]), np.abs(columns - middle[1])
    disc = np.hypot(*away) < radius
    box = np.maximum(*away) < 0.85 * radius
    mask = np.where(rng.random((n, 1, 1)) < 0.5, disc, box)
    slope = rng.normal(size=(2, n, 1, 1))
    shade = (slope[0] * (rows - SIZE / 2) + slope[1] * (columns - SIZE / 2)) / SIZE
    image = mask + shade + 0.7 * rng.normal(size=mask.shape)
    return image[:, None].astype(np.float32), mask[:, None].astype(np.float32)


def overlap(found, mask):
    """Pixels in both over pixels in either, averaged over images."""
    found, mask = found.reshape(len(found), -1) > 0, mask.reshape(len(mask), -1) > 0
    return np.mean((found & mask).sum(1) / (found | mask).sum(1))


def blur(image, reach):
    """The mean of the pixels no farther than `reach` along either axis."""
    padded = np.pad(image, ((0, 0), (0, 0), (reach, reach), (reach, reach)), mode="edge")
    windows = np.lib.stride_tricks.sliding_window_view(
        padded, (2 * reach + 1, 2 * reach + 1), (2, 3)
    )
    return windows.mean((-2, -1))


def by_hand(image, mask):
    """The best overlap that one blur and one threshold reach, chosen with the masks in sight."""
    return max(
        overlap(blur(image, reach) > level, mask)
        for reach in range(4)
        for level in np.linspace(-0.5, 1.5, 21)
    )


def main():
    rng = np.random.default_rng(0)
    training, (image, mask) = draw(rng, 1000), draw(rng, 200)
    model = fx.compile(__file__).Model(seed=0)
    batches = data.DataLoader(training, 32, shuffle=True)
    history = train.fit(model.train_step, batches, epochs=5)
    print(f"loss: {history['loss'][0]:.2f} -> {history['loss'][-1]:.2f}")
    hand, net = by_hand(image, mask), overlap(model.predict(image) > 0.5, mask)
    print(f"overlap with the truth: {net:.1%}; by the best blur and threshold: {hand:.1%}")
    if net < hand + 0.1:
        sys.exit("the network is hardly better than a blur")


if __name__ == "__main__":
    main()
