"""Derivatives: Zygote's examples, and models as vectors."""

# ruff: noqa: ARG001 (runners of one signature)

import numpy as np

import fluxc as fx
from conformance.cases import array, covers
from dsl import run
from fluxc import nn


def gradients(f, *values):
    """The gradients of f by all of these numbers or arrays."""
    return list(run(fx.grad(f, range(len(values))), *map(array, values)))


def rows(matrix, inputs):
    """A matrix as the file has it: for each output, the derivatives by all inputs."""
    return matrix.reshape(-1, inputs).tolist()


@covers("grad 3x^2+2x+1 at 5")
def polynomial(case):
    return gradients(lambda x: 3 * x**2 + 2 * x + 1, case.args["x"])[0]


@covers("grad of product of three")
def product_of_three(case):
    return gradients(lambda x, y, z: x * y * z, *case.args["at"])


@covers("grad sum(abs2)")
def squares(case):
    return gradients(lambda x: fx.square(x).sum(), case.args["x"])[0]


@covers("grad with a non-differentiable argument")
def argument_without_gradient(case):
    """An axis is Python's here; there is no gradient by it."""
    x, y, axis = case.args["args"]
    dx, dy = gradients(lambda x, y: (x ** x.shape[axis - 1] + y).sum(), x, y)
    return {"x": dx, "y": dy, "d": None}


@covers("withgradient division")
def division(case):
    f = fx.value_and_grad(lambda x, y: x / y, (0, 1))
    value, dx, dy = run(f, *map(array, case.args["at"]))
    return {"val": value, "grad": [dx, dy]}


@covers("withgradient with auxiliary output")
def auxiliary(case):
    f = lambda x: (fx.sum(1 / x), 1 / x)
    value, z, dx = run(fx.value_and_grad(f, has_aux=True), array(case.args["x"]))
    return {"val": [value, z], "grad": dx}


@covers("withgradient named outputs")
def named_outputs(case):
    f = fx.value_and_grad(lambda x, y: (x / y, {"mul": x * y}), (0, 1), has_aux=True)
    div, mul, dx, dy = run(f, *map(array, case.args["at"]))
    return {"val": {"div": div, "mul": mul}, "grad": [dx, dy]}


@covers("grad while loop pow")
def loop(case):
    n = case.args["n"]
    return gradients(lambda x: fx.fori_loop(0, n, lambda _, r: r * x, x * 0 + 1), case.args["x"])[0]


@covers("grad recursion pow")
def recursion(case):
    power = lambda x, n: 1 if n == 0 else x * power(x, n - 1)
    return gradients(lambda x: power(x, case.args["n"]), case.args["x"])[0]


@covers("grad product over loop")
def product_over_loop(case):
    f = lambda xs: fx.scan(lambda r, x: (r * x, None), fx.ones_like(xs[0]), xs)[0]
    return gradients(f, case.args["xs"])[0]


@covers("second derivative sin''")
def second_derivative(case):
    return run(fx.grad(fx.grad(fx.sin)), array(case.args["x"]))


@covers("nested gradient")
def nested(case):
    f = lambda x: x * fx.grad(lambda y: x * y)(fx.ones_like(x))
    return run(fx.grad(f), np.float64(4))


@covers("hook negates gradient")
def hook(case):
    return gradients(lambda a, b: fx.hook(fx.negative, a) * b, *case.args["at"])


@covers("grad filtered comprehension")
def filtered(case):
    """A condition on values chooses by `where`."""
    f = lambda x: fx.where(x % 2 == 0, x**2, 0).sum()
    return gradients(f, np.arange(2.0, 10))[0]


@covers("grad broadcast power with negative exponent")
def powers(case):
    exponents = array(case.args["p"])
    return gradients(lambda x: (x**exponents).sum(), case.args["x"])[0]


@covers("jacobian of a.^2 .* x")
def jacobian(case):
    f = fx.jacobian(lambda a, x: a**2 * x, (0, 1))
    by_a, by_x = run(f, array(case.args["a"]), array(case.args["x"]))
    return {"Ja": rows(by_a, 3), "Jx": by_x}


@covers("jacobian of prod over dim 1")
def jacobian_of_products(case):
    return rows(run(fx.jacobian(lambda a: fx.prod(a, axis=-1)), array(case.args["a"])), 4)


@covers("withjacobian cumsum doc")
def withjacobian(case):
    f = fx.jacobian(lambda x: (fx.cumsum(x), fx.cumsum(x)), has_aux=True)
    matrix, value = run(f, array(case.args["x"]))
    return {"val": value, "grad": rows(matrix, 3)}


@covers("hessian sum(x^3) on 2x2")
def hessian_of_a_matrix(case):
    return rows(run(fx.hessian(lambda x: (x**3).sum()), array(case.args["x"])), 4)


@covers("hessian x1*x2")
def hessian_of_a_product(case):
    return rows(run(fx.hessian(lambda x: x[0] * x[1]), np.array([1.0, 1.0])), 2)


@covers("hessian of sin at pi/2")
def hessian_of_a_number(case):
    return run(fx.hessian(fx.sin), array(case.args["x"]))


def angle(x):
    return fx.atan2(x[0], x[1])


@covers("diaghessian atan(1,2) doc")
def diaghessian(case):
    return run(fx.diaghessian(angle), array(case.args["at"]))


@covers("hessian atan doc")
def hessian(case):
    return rows(run(fx.hessian(angle), array(case.args["at"])), 2)


# ---- models as vectors


class Two(fx.Module):
    """Two parameters, the first in two places."""

    def __init__(self, shared, own):
        self.x, self.y = (
            fx.Param(np.shape(v), init=np.array(v), dtype="f64") for v in (shared, own)
        )
        self.z = [self.x, self.y]


def rebuilt(loss, **start):
    model = Two(**start)

    def f():
        flat, re = fx.destructure(model)
        return fx.grad(lambda v: loss(re(v)))(flat)

    return run(f, namespace={"model": model})


@covers("destructure flattens*")
def destructure(case):
    model = Two(np.array([1.0, 2, 3]), array([[4, 6], [5, 7]]))
    return run(lambda: fx.destructure(model)[0], namespace={"model": model})


@covers("gradient through rebuild with shared array")
def shared_parameter(case):
    loss = lambda m: 3 * m.x.sum() + 13 * m.z[0].sum()
    return rebuilt(loss, shared=[1.0, 2], own=[3.0, 4])


@covers("gradient through rebuild with shared array 2")
def shared_parameters(case):
    loss = lambda m: 4 * (m.x.sum() + m.y.sum()) + 13 * m.z[0].sum()
    return rebuilt(loss, shared=[1.0, 2], own=[3.0, 4])


@covers("2nd derivative through destructure")
def second_derivative_of_a_model(case):
    """Flux's model is a pair of arrays, the first of which is the argument."""
    total = lambda m: fx.square(fx.destructure(m)[0]).sum()

    def squared_slope(v):
        dv, _ = fx.grad(total)((v, fx.array([4.0, 5, 6], fx.f64)))
        return fx.square(dv).sum()

    return run(fx.grad(squared_slope), array(case.args["v"]))


@covers("gradient of sum(norm, trainables)")
def norms(case):
    start = {k: array(v) for k, v in case.args.items()}
    model = {k: fx.Param(v.shape, init=v, dtype="f64") for k, v in start.items()}
    f = fx.grad(lambda m: sum(fx.norm(p) for p in nn.trainables(m)))
    dx, dy = run(lambda: f(model), namespace=model)
    return {"x": dx, "y": dy}
