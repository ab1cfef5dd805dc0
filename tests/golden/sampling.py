"""Golden values of distributions: where PyTorch has their quantiles, and how likely numbers are.

`python tests/golden/sampling.py` writes sampling.npz beside this file and needs PyTorch; the tests
need the file alone.  A continuous case has fluxc's draw and PyTorch's distribution: the file holds
its distribution function at 31 places.  A discrete one has the probability of 0, 1, 2, ...
"""

from pathlib import Path

import numpy as np

FILE = Path(__file__).with_suffix(".npz")
COUNT = 40_000  # numbers that a test draws
LOGITS = np.array([0.0, 1.5, -1.0, 0.3, -4.0])

# name: fluxc's draw of COUNT numbers; PyTorch's distribution.
CONTINUOUS = {
    "uniform": (
        lambda r: r.uniform(COUNT, -1.0, 3.0),
        lambda d: d.Uniform(-1.0, 3.0),
    ),
    "normal": (lambda r: r.normal(COUNT, 1.0, 2.0), lambda d: d.Normal(1.0, 2.0)),
    "exponential": (lambda r: r.exponential(COUNT, 2.0), lambda d: d.Exponential(0.5)),
    "gumbel": (lambda r: r.gumbel(COUNT), lambda d: d.Gumbel(0.0, 1.0)),
    "laplace": (lambda r: r.laplace(COUNT), lambda d: d.Laplace(0.0, 1.0)),
    "cauchy": (lambda r: r.cauchy(COUNT), lambda d: d.Cauchy(0.0, 1.0)),
    "logistic": (
        lambda r: r.logistic(COUNT),
        lambda d: d.TransformedDistribution(
            d.Uniform(0.0, 1.0), [d.transforms.SigmoidTransform().inv]
        ),
    ),
    "truncated_normal": (lambda r: r.truncated_normal(COUNT, -1.0, 2.5), None),
}
DISCRETE = {
    "bernoulli": (lambda r: r.bernoulli(0.3, COUNT), lambda d, t: d.Bernoulli(t(0.3)), 2),
    "categorical": (
        lambda r: r.categorical(LOGITS, shape=(COUNT,)),
        lambda d, t: d.Categorical(logits=t(LOGITS)),
        5,
    ),
    "randint": (
        lambda r: r.randint(COUNT, 0, 7),
        lambda d, t: d.Categorical(probs=t(np.ones(7))),
        7,
    ),
    "rademacher": (
        lambda r: (r.rademacher(COUNT) + 1) / 2,
        lambda d, t: d.Bernoulli(t(0.5)),
        2,
    ),
}
SHARES = np.linspace(0.001, 0.999, 31)


def _truncated(torch, places, low, high):
    """The distribution function of a normal that is confined to low .. high."""
    cdf = torch.distributions.Normal(0.0, 1.0).cdf
    whole = cdf(torch.tensor(high)) - cdf(torch.tensor(low))
    return (cdf(places) - cdf(torch.tensor(low))) / whole


def main():
    import torch  # the one program here that needs it

    torch.set_default_dtype(torch.float64)
    d, arrays = torch.distributions, {}
    for name, (_, distribution) in CONTINUOUS.items():
        if distribution is None:
            places = torch.linspace(-0.99, 2.49, 31)
            below = _truncated(torch, places, -1.0, 2.5)
        else:
            places = distribution(d).icdf(torch.tensor(SHARES))
            below = torch.tensor(SHARES)
        arrays |= {f"{name}.places": places.numpy(), f"{name}.below": below.numpy()}
    for name, (_, distribution, classes) in DISCRETE.items():
        logs = distribution(d, torch.tensor).log_prob(torch.arange(float(classes)))
        arrays[f"{name}.probabilities"] = logs.exp().numpy()
    np.savez_compressed(FILE, **arrays)
    print(f"{len(CONTINUOUS) + len(DISCRETE)} cases, {FILE.stat().st_size} bytes")


if __name__ == "__main__":
    main()
