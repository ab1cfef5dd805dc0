"""A variational autoencoder: digits as points of a space that new digits can be drawn from.

The encoder tells, for each image, where in a space of 8 dimensions it may lie: the middle and the
spread of a normal distribution.  A point is drawn there and the decoder turns it into pixels again.
The loss (Kingma and Welling, 2014) has two terms: how badly the pixels are told, and how far the
distribution is from the standard one, so that afterwards standard normal numbers decode to digits:

    logitbinarycrossentropy(decoded, x) + sum(exp(2 logs) + mu**2 - 1 - 2 logs) / 2

each summed over an image and averaged over the batch.  The random numbers are part of the compiled
step, and of the entry that draws.

    python examples/vae.py
"""

import numpy as np
from digits import load_digits

import fluxc as fx
from fluxc import data, losses, nn, optim, train

LATENT, HIDDEN, COUNT = 8, 128, 200


class Encoder(fx.Module):
    """x -> mu, log sigma."""

    def __init__(self):
        self.hidden = nn.Dense(64, HIDDEN, fx.tanh)
        self.mu = nn.Dense(HIDDEN, LATENT)
        self.logs = nn.Dense(HIDDEN, LATENT)

    def __call__(self, x):
        h = self.hidden(x)
        return self.mu(h), self.logs(h)


encoder = Encoder()
decoder = nn.Chain(nn.Dense(LATENT, HIDDEN, fx.tanh), nn.Dense(HIDDEN, 64))


@fx.export(optimizer=optim.AdamW(2e-3, lambda_=1e-4))
def train_step(x: fx.f32["batch", 64]):
    """One step on a batch of images; returns the loss of an image, in the mean."""
    mu, logs = encoder(x)
    z = mu + fx.random.normal(mu.shape) * fx.exp(logs)
    told = losses.logitbinarycrossentropy(decoder(z), x, agg=fx.sum)
    spread = 0.5 * (fx.exp(2 * logs) + mu * mu - 1 - 2 * logs).sum()
    return (told + spread) / x.shape[0]


@fx.export
def reconstruct(x: fx.f32["batch", 64]):
    """The image at the middle of what the encoder says."""
    mu, _ = encoder(x)
    return fx.sigmoid(decoder(mu))


@fx.export
def draw():
    """New images."""
    return fx.sigmoid(decoder(fx.random.normal((COUNT, LATENT))))


def nearest(images, others):
    """How far each image is from the nearest of the others, in the mean."""
    return np.linalg.norm(images[:, None] - others, axis=-1).min(axis=1).mean()


def show(images):
    """Images side by side, two characters for a pixel."""
    shades = np.array([*" .:+#@"])[(images.reshape(-1, 8, 8) * 5.99).astype(int)].repeat(2, axis=2)
    return "\n".join("  ".join(map("".join, row)) for row in shades.swapaxes(0, 1))


def main():
    (x, _), (unseen, _) = load_digits()
    model = fx.compile(__file__).Model(seed=0)
    loss = train.fit(model.train_step, data.DataLoader(x, 64, shuffle=True), epochs=50)["loss"]
    print("loss:", " -> ".join(f"{loss[epoch - 1]:.1f}" for epoch in (1, 5, 50)))

    told = np.square(model.reconstruct(unseen) - unseen).mean()
    print(f"error of unseen images: {told:.4f}, of the mean image: {unseen.var(axis=0).mean():.4f}")

    drawn, noise = model.draw(), np.random.default_rng(0).permuted(x, axis=0)[:COUNT]
    print(f"from a drawn image to the nearest digit: {nearest(drawn, x):.2f}", end=", ")
    print(f"from an unseen digit: {nearest(unseen, x):.2f}, from noise: {nearest(noise, x):.2f}")
    print(show(drawn[:6]))


if __name__ == "__main__":
    main()
