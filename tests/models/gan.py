"""Two models trained against each other by two steps, each updating its own."""

import fluxc as fx
from fluxc import losses, nn, optim

generator = nn.Chain(nn.Dense(3, 16, fx.leakyrelu, bias=False), nn.BatchNorm(16), nn.Dense(16, 2))
critic = nn.Chain(nn.Dense(2, 16, fx.leakyrelu), nn.Dropout(0.1), nn.Dense(16, 1))


@fx.export
def generate(z: fx.f32["n", 3]):
    return generator(z)


@fx.export(optimizer=optim.Adam(2e-3, (0.5, 0.999)), wrt=critic)
def critic_step(real: fx.f32["n", 2], z: fx.f32["n", 3]):
    yes, no = critic(real), critic(fx.stop_gradient(generator(z)))
    return losses.logitbinarycrossentropy(yes, 1.0) + losses.logitbinarycrossentropy(no, 0.0)


@fx.export(optimizer=optim.Adam(2e-3, (0.5, 0.999)), wrt=[generator])
def generator_step(z: fx.f32["n", 3]):
    return losses.logitbinarycrossentropy(critic(generator(z)), 1.0)
