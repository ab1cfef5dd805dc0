"""Golden outputs of PyTorch's layers, for weights that are converted.

`python tests/golden/converted.py` writes converted.npz beside this file and needs PyTorch; the
tests need the file alone.  It holds, for each case, the module's state_dict, its input and its
output in test mode.
"""

from pathlib import Path

import numpy as np

FILE = Path(__file__).with_suffix(".npz")


def Attention(nn, *sizes, **options):
    """Attention to what a query begins with; its output alone."""

    class Own(nn.MultiheadAttention):
        def forward(self, x):
            return super().forward(x, x[..., : self.kdim], x[..., : self.vdim])[0]

    return Own(*sizes, batch_first=True, **options)


# name: the module, the input's shape
CASES = {
    "linear": (lambda nn: nn.Linear(3, 4), (2, 3)),
    "conv": (lambda nn: nn.Conv2d(4, 6, 3, groups=2), (2, 4, 5, 6)),
    "conv_transpose": (lambda nn: nn.ConvTranspose2d(4, 6, 3, stride=2, groups=2), (2, 4, 3, 2)),
    "batch_norm": (lambda nn: nn.BatchNorm1d(3), (4, 3)),
    "layer_norm": (lambda nn: nn.LayerNorm(5), (2, 5)),
    "attention": (lambda nn: Attention(nn, 6, 2), (2, 5, 6)),
    "attention_sizes": (lambda nn: Attention(nn, 6, 2, bias=False, kdim=4, vdim=5), (2, 5, 6)),
    "model": (
        lambda nn: nn.Sequential(
            nn.Conv1d(2, 3, 2), nn.BatchNorm1d(3), nn.ReLU(), nn.Flatten(), nn.Linear(12, 2)
        ),
        (2, 2, 5),
    ),
}


def main():
    import torch  # the one program here that needs it

    torch.manual_seed(0)
    arrays = {}
    for name, (make, shape) in CASES.items():
        module = make(torch.nn).eval()
        for key, x in module.state_dict().items():
            if x.dtype == torch.float32:  # whatever it starts with, a variance is positive
                x.copy_(torch.rand_like(x) + 0.5 if key.endswith("var") else torch.randn_like(x))
            arrays[f"{name}.weights.{key}"] = x.numpy()
        x = torch.randn(shape)
        arrays |= {f"{name}.x": x.numpy(), f"{name}.y": module(x).detach().numpy()}
    np.savez_compressed(FILE, **arrays)
    print(f"{len(CASES)} cases, {FILE.stat().st_size} bytes")


if __name__ == "__main__":
    main()
