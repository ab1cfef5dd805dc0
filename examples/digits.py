"""Handwritten digits: declared, compiled, trained and deployed in one file.

`fluxc compile examples/digits.py -o build/digits` takes this file as it is.  Run as a script, it
compiles itself, trains through the compiled training step, compiles the deployable artifact with
the trained weights, and checks it in a fresh Python process that has NumPy but not fluxc.
"""

import subprocess
import sys
from pathlib import Path

import numpy as np

import fluxc as fx
from fluxc import data, losses, nn, optim, train

model = nn.Chain(
    nn.Dense(64, 64, fx.relu),
    nn.Dropout(0.1),
    nn.Dense(64, 10),
)


@fx.export
def predict(x: fx.f32["batch", 64]):
    """Class probabilities of images whose pixels are scaled to 0..1."""
    return fx.softmax(model(x), axis=-1)


@fx.export(optimizer=optim.Adam(2e-3))
def train_step(x: fx.f32["batch", 64], y: fx.i32["batch"]):
    """One step of Adam on a batch of images and their labels; returns the loss."""
    return losses.logitcrossentropy(model(x), y)


def load_digits():
    """The images scaled to 0..1 and their labels: four fifths to train on, one held out."""
    with np.load(Path(__file__).parent / "data" / "digits.npz") as file:
        x, y = file["x"].astype(np.float32) / 16, file["y"].astype(np.int32)
    return data.splitobs((x, y), at=0.8, shuffle=True, stratified=y)


FRESH = """
import importlib.util, sys
import numpy as np
assert importlib.util.find_spec("fluxc") is None, "this process should not see fluxc"
sys.path.insert(0, sys.argv[1])
import digits
np.save(sys.argv[3], digits.predict(np.load(sys.argv[2])))
"""


def predict_without_fluxc(artifact, x):
    """What the artifact predicts in a Python process that has NumPy and nothing else."""
    x_file, out_file = artifact.parent / "x.npy", artifact.parent / "p.npy"
    np.save(x_file, x)
    numpy_folder = artifact.parent / "numpy_only"
    numpy_folder.mkdir(exist_ok=True)
    for part in ("numpy", "numpy.libs"):
        link, source = numpy_folder / part, Path(np.__file__).parent.parent / part
        if source.exists() and not link.exists():
            link.symlink_to(source)
    code = f"import sys; sys.path.insert(0, {str(numpy_folder)!r})\n" + FRESH
    # -S and -I: no site-packages, no environment; the one folder added holds NumPy.
    command = [sys.executable, "-I", "-S", "-c", code, artifact.parent, x_file, out_file]
    subprocess.run(command, check=True)
    return np.load(out_file)


def main():
    training, held_out = load_digits()
    build = Path("build/digits_example")
    build.mkdir(parents=True, exist_ok=True)

    compiled = fx.compile(__file__, output=build / "trainer" / "digits").Model(seed=0)
    train.fit(compiled.train_step, data.DataLoader(training, 64, shuffle=True), epochs=30)
    batches, metrics = data.DataLoader(held_out, 64), {"accuracy": train.accuracy}
    found = train.evaluate(compiled.predict, batches, metrics)
    print(f"held-out accuracy: {found['accuracy']:.1%}")
    if found["accuracy"] < 0.96:
        sys.exit("the model did not learn the digits")

    x_test, _ = held_out
    weights = build / "digits.safetensors"
    compiled.save(weights)
    fx.compile(__file__, output=build / "digits", weights=weights)
    deployed = predict_without_fluxc(build / "digits", x_test)
    if not np.array_equal(deployed, compiled.predict(x_test)):
        sys.exit("the deployed artifact predicts something else")
    print(f"deployed artifact: {build / 'digits'} (bit for bit the same, without fluxc)")


if __name__ == "__main__":
    main()
