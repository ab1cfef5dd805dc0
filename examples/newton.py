"""Newton's method: a logistic regression fitted in a handful of steps.

Gradient descent needs hundreds of small steps where the curvature of a loss differs much from
direction to direction.  Newton's method divides by the curvature: each step goes to the lowest
point of the parabola that touches the loss,

    w  <-  w - H**-1 @ g,      g = gradient(w),  H = matrix of second derivatives(w).

`fx.grad` gives g and `fx.hessian` gives H, as parts of one compiled function; the linear system is
solved by conjugate gradients, which for a symmetric positive matrix of size n are exact after n
steps.  Run it:

    python examples/newton.py
"""

import numpy as np

import fluxc as fx

FEATURES = 5


def loss(w, x, y):
    """Mean logistic loss of labels y in {0, 1}, and a small penalty that keeps w finite."""
    z = x @ w
    return (fx.softplus(z) - y * z).mean() + 1e-3 * (w * w).sum()


def solve(h, g):
    """H**-1 @ g by conjugate gradients, one step for each unknown."""
    x, r = fx.zeros_like(g), g
    p, rr = r, r @ r
    for _ in range(FEATURES):
        hp = h @ p
        a = rr / (p @ hp + 1e-30)
        x, r = x + a * p, r - a * hp
        rr, before = r @ r, rr
        p = r + (rr / (before + 1e-30)) * p
    return x


@fx.export
def newton(w: fx.f64[FEATURES], x: fx.f64["n", FEATURES], y: fx.f64["n"]):
    """One step of Newton's method: the new weights, the loss before it, the gradient's length."""
    value, g = fx.value_and_grad(loss)(w, x, y)
    return w - solve(fx.hessian(loss)(w, x, y), g), value, fx.sqrt(g @ g)


@fx.export
def descend(w: fx.f64[FEATURES], x: fx.f64["n", FEATURES], y: fx.f64["n"]):
    """One step of gradient descent, as long as the steepest direction allows."""
    value, g = fx.value_and_grad(loss)(w, x, y)
    return w - 0.02 * g, value, fx.sqrt(g @ g)


def data(rng, n=500):
    """Points whose features have very different sizes, and noisy labels of a plane."""
    x = rng.normal(size=(n, FEATURES)) * np.logspace(-1, 1, FEATURES)
    z = x @ (rng.normal(size=FEATURES) * np.logspace(1, -1, FEATURES))
    return x, (rng.random(n) < 1 / (1 + np.exp(-z))).astype(float)


def fit(step, x, y, tolerance=1e-9, limit=20000):
    """Repeat a step until the gradient vanishes; the weights and the number of steps."""
    w = np.zeros(FEATURES)
    for count in range(limit):
        new, value, slope = step(w, x, y)
        if step.__name__ == "newton" or count % 4000 == 0:
            print(f"  step {count:5}: loss {value:.10f}, gradient {slope:.2e}")
        if slope < tolerance:
            return w, count
        w = new
    return w, limit


def main():
    x, y = data(np.random.default_rng(0))
    model = fx.compile(globals())
    print("Newton's method")
    w, steps = fit(model.newton, x, y)
    print("gradient descent")
    slow, many = fit(model.descend, x, y)
    right = np.mean((x @ w > 0) == (y > 0.5))
    print(f"Newton's method arrives in {steps} steps; after {many} steps of gradient descent the")
    print(f"weights are still {np.abs(w - slow).max():.2f} away")
    print(f"training accuracy: {100 * right:.1f}%")


if __name__ == "__main__":
    main()
