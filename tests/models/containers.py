"""A module with lists, dicts and a shared layer, frozen in parts."""

import fluxc as fx
from fluxc import losses, nn, optim


class Block(fx.Module):
    def __init__(self, size, shared):
        self.own = nn.Dense(size, size, fx.swish)
        self.shared = shared
        self.gain = fx.Param((), init=0.5)

    def __call__(self, x):
        return x + self.gain * self.shared(self.own(x))


class Net(fx.Module):
    def __init__(self, size=6, depth=3):
        shared = nn.Dense(size, size, bias=False)
        self.blocks = [Block(size, shared) for _ in range(depth)]
        self.ends = {"in": nn.Dense(4, size), "out": nn.Dense(size, 2)}
        self.scales = (fx.Param(size, init=1.0), fx.Param(size, init=1.0, trainable=False))
        self.count = fx.State((), init=0.0)

    def __call__(self, x):
        x = self.ends["in"](x)
        for block in self.blocks:
            x = block(x)
        if fx.training():
            self.count.assign(self.count + 1)
        return self.ends["out"](x * self.scales[0] * self.scales[1])


net = Net()
nn.freeze(net)
nn.thaw(net)
nn.freeze(net.blocks[1].own, net.ends["in"].bias)


@fx.export
def predict(x: fx.f32["n", 4]):
    return net(x), net.count


@fx.export(optimizer=optim.Chain(optim.WeightDecay(1e-3), optim.Nesterov(0.02)))
def train_step(x: fx.f32["n", 4], y: fx.f32["n", 2]):
    return losses.mse(net(x), y)
