"""A convolutional GAN: two networks that train each other, each with a step of its own.

The generator makes images of noise with transposed convolutions, the discriminator tells them from
real ones with convolutions (Radford, Metz and Chintala, 2016).  Both are part of both losses.  What
a step updates is what `wrt=` names, and nothing else: the discriminator's step leaves the
generator's weights alone, and the other way round.  `fit` takes any function as a step, here one
that calls both.  For images of 8 x 8 the networks are narrower than the paper's, and the steps are
larger, as there are few of them: enough to draw like someone who learns to write, not to draw all
digits equally often.

    python examples/dcgan.py
"""

import numpy as np
from digits import load_digits
from vae import nearest, show

import fluxc as fx
from fluxc import data, losses, nn, optim, train

LATENT, COUNT, EPOCHS = 32, 200, 30

discriminator = nn.Chain(
    nn.Conv((4, 4), 1, 32, stride=2, pad=1),  # 4 x 4
    lambda x: fx.leakyrelu(x, 0.2),
    nn.Dropout(0.25),
    nn.Conv((4, 4), 32, 64, stride=2, pad=1),  # 2 x 2
    lambda x: fx.leakyrelu(x, 0.2),
    nn.Dropout(0.25),
    nn.flatten,
    nn.Dense(64 * 2 * 2, 1),
)

generator = nn.Chain(
    nn.Dense(LATENT, 64 * 2 * 2),
    nn.BatchNorm(64 * 2 * 2, fx.relu),
    lambda x: x.reshape((-1, 64, 2, 2)),
    nn.ConvTranspose((5, 5), 64, 32, pad=2),  # 2 x 2
    nn.BatchNorm(32, fx.relu),
    nn.ConvTranspose((4, 4), 32, 16, stride=2, pad=1),  # 4 x 4
    nn.BatchNorm(16, fx.relu),
    nn.ConvTranspose((4, 4), 16, 1, stride=2, pad=1),  # 8 x 8
    fx.tanh,
)


def make(n):
    """Images of noise: [n, 1, 8, 8]."""
    return generator(fx.random.normal((n, LATENT)))


@fx.export(optimizer=optim.Adam(2e-3, beta=(0.5, 0.999)), wrt=discriminator)
def discriminator_step(x: fx.f32["batch", 1, 8, 8]):
    """Towards yes for real images and no for made ones; also the share that is told right."""
    real, made = discriminator(x), discriminator(make(x.shape[0]))
    loss = losses.logitbinarycrossentropy(real, 1.0) + losses.logitbinarycrossentropy(made, 0.0)
    return loss, ((real > 0).astype("f32").mean() + (made < 0).astype("f32").mean()) / 2


@fx.export(optimizer=optim.Adam(6e-3, beta=(0.5, 0.999)), wrt=generator)
def generator_step(x: fx.f32["batch", 1, 8, 8]):
    """Towards yes for made images."""
    return losses.logitbinarycrossentropy(discriminator(make(x.shape[0])), 1.0)


@fx.export
def draw():
    """New images, by the recorded statistics."""
    return make(COUNT).reshape((-1, 64))


def main():
    (x, _), _ = load_digits()
    digits = 2 * x - 1
    images = digits.reshape(-1, 1, 8, 8)
    model = fx.compile(__file__).Model(seed=0)

    def both(batch):
        """A step of each; returns the discriminator's loss, and what it told right."""
        found = model.discriminator_step(batch)
        model.generator_step(batch)
        return found

    def slower(moment):
        """The second half of the training goes more and more slowly, so that it settles."""
        share = min(1.0, 2 - 2 * moment.epoch / EPOCHS)
        model.optimizer["generator_step.lr"] = 6e-3 * share
        model.optimizer["discriminator_step.lr"] = 2e-3 * share

    before = model.draw()
    history = train.fit(
        both,
        data.DataLoader(images, 32, shuffle=True),
        epochs=EPOCHS,
        metrics={"right": lambda right, _: float(right)},
        callbacks=[slower],
        model=model,
    )
    after = model.draw()
    noise = np.random.default_rng(0).permuted(digits, axis=0)[:COUNT]
    print(f"told right by the discriminator: {history['right'][-1]:.0%}")
    untrained, trained = nearest(before, digits), nearest(after, digits)
    print(f"from a made image to the nearest digit: {untrained:.2f} -> {trained:.2f}", end=", ")
    print(f"from noise: {nearest(noise, digits):.2f}")
    print(show((after[:6] + 1) / 2))


if __name__ == "__main__":
    main()
