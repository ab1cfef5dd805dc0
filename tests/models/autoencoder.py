"""A denoising autoencoder whose decoder is the encoder transposed."""

import fluxc as fx
from fluxc import losses, optim

batch = fx.dim("batch", min=1, max=64)


class Tied(fx.Module):
    def __init__(self, size, code):
        self.weight = fx.Param((code, size))
        self.hidden_bias = fx.Param(code, init=0.0)
        self.visible_bias = fx.Param(size, init=0.0)

    def encode(self, x):
        return fx.tanh(x @ self.weight.T + self.hidden_bias)

    def decode(self, code):
        return fx.sigmoid(code @ self.weight + self.visible_bias)

    def __call__(self, x):
        return self.decode(self.encode(x))


model = Tied(12, 5)


@fx.export
def encode(x: fx.f32[batch, 12]):
    return model.encode(x)


@fx.export
def reconstruct(x: fx.f32[batch, 12]):
    return model(x)


@fx.export(optimizer=optim.Momentum(0.05))
def train_step(x: fx.f32[batch, 12]):
    target = fx.sigmoid(x)
    noisy = x + fx.random.normal(x.shape, std=0.1)
    y = model(noisy)
    return losses.binarycrossentropy(y, target), y


@fx.export(training=True)
def noisy(x: fx.f32[batch, 12]):
    return x + fx.random.normal(x.shape)


@fx.export
def sample(code: fx.f32[batch, 5]):
    return model.decode(code + fx.random.uniform(code.shape, -1, 1))
