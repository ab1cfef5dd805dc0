"""Calling an artifact from Python: what works, and every kind of call that must not."""
# ruff: noqa: E501  the table of wrong calls is read in rows

import array
import inspect
import os
import pickle
import threading

import numpy as np
import pytest
from native import hand

from fluxc.compiler.driver import load_package

pytestmark = pytest.mark.cc


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    folder = tmp_path_factory.mktemp("artifact")
    hand.write_hand(folder / "hand", hand.hand_object(folder))
    return load_package(folder / "hand")


@pytest.fixture
def model(package):
    return package.Model(seed=3, threads=2)


X = np.arange(20, dtype=np.float32).reshape(5, 4)
Y = np.array([0, 1, 2, 1, 0], np.int32)


def mix_arguments(n=3):
    a, b = np.arange(n, dtype=np.float32), np.ones(n + 1, np.float32)
    return {"a": a, "b": b, "flag": np.array(True), "ids": np.arange(2 * n) % 9}


# ---- what works ----


def test_predict_computes_what_the_parameters_say(model):
    np.testing.assert_allclose(model.predict(X), hand.expected_predict(model, X), rtol=1e-6)


def test_outputs_come_in_the_form_that_the_entry_returns(model):
    result = model.mix(**mix_arguments())
    doubled, total = result["all"]
    np.testing.assert_array_equal(result["sum"], [1, 2, 3])
    np.testing.assert_array_equal(doubled, [0, 2, 4, 6, 8, 10])
    assert total == np.float32(6)
    assert isinstance(total, np.float32)


def test_out_takes_the_results_and_is_returned(model):
    out = np.empty((5, 3), np.float32)
    assert model.predict(X, out=out) is out
    np.testing.assert_array_equal(out, model.predict(X))
    loss = np.empty((), np.float32)
    assert model.train_step(X, Y, out=loss) is loss
    tree = {
        "sum": np.empty(3, np.float32),
        "all": (np.empty(6, np.int64), np.empty((), np.float32)),
    }
    assert model.mix(**mix_arguments(), out=tree) is tree
    np.testing.assert_array_equal(tree["sum"], [1, 2, 3])


def unaligned(x):
    raw = bytearray(x.nbytes + 1)
    view = np.frombuffer(raw, np.uint8)[1:].view(x.dtype).reshape(x.shape)
    view[...] = x
    return view


class Capsule:
    """Nothing but DLPack."""

    def __init__(self, array):
        self.array = array

    def __dlpack__(self, **options):
        return self.array.__dlpack__(**options)

    def __dlpack_device__(self):
        return self.array.__dlpack_device__()


class Subclass(np.ndarray):
    pass


READABLE = {
    "strided": lambda x: np.repeat(x, 2, axis=0)[::2],
    "reversed": lambda x: x[::-1].copy()[::-1],
    "transposed": np.asfortranarray,
    "unaligned": unaligned,
    "read-only": lambda x: np.frombuffer(x.tobytes(), x.dtype).reshape(x.shape),
    "DLPack": Capsule,
    "memoryview": memoryview,
    "array.array": lambda x: (
        memoryview(array.array("f", x.ravel().tolist())).cast("B").cast("f", x.shape)
    ),
    "subclass": lambda x: x.view(Subclass),
    "broadcast": lambda x: np.broadcast_to(x[0], x.shape),
}


@pytest.mark.parametrize("kind", READABLE)
def test_any_array_is_read_right(model, kind):
    x = READABLE[kind](X)
    plain = np.broadcast_to(X[0], X.shape).copy() if kind == "broadcast" else X
    np.testing.assert_array_equal(model.predict(x), model.predict(plain))


def test_numbers_stand_for_arrays_of_rank_0(model):
    arguments = mix_arguments()
    wanted = model.mix(**arguments)["sum"]
    for flag in (True, np.True_, np.array(True)):
        np.testing.assert_array_equal(model.mix(**{**arguments, "flag": flag})["sum"], wanted)


def test_bfloat16_travels_as_bits(model):
    h, g = np.zeros(4, np.float16), np.array([0x3F80, 0x4000, 0x7FC0, 0], np.uint16)
    np.testing.assert_array_equal(model.half(h, g), g)


def test_empty_batches_are_calls_too(model):
    assert model.predict(np.empty((0, 4), np.float32)).shape == (0, 3)


def test_training_changes_the_live_parameters(model):
    bias = model.parameters["layer.bias"]
    before = bias.copy()
    x = model.predict(X)
    assert model.train_step(X, Y) == X[:, 0].sum()
    np.testing.assert_allclose(bias, before + 0.125 * np.bincount(Y))
    np.testing.assert_allclose(model.predict(X), hand.expected_predict(model, X), rtol=1e-6)
    assert not np.array_equal(model.predict(X), x)
    model.optimizer["lr"] = 1e-4
    assert model.optimizer["lr"] == 1e-4  # the shortest decimal of the f32 that is stored
    assert model.optimizer["train_step.lr"] == model.optimizer["lr"]


def test_views_outlive_their_model(package):
    model = package.Model()
    bias = model.parameters["layer.bias"]
    predict = model.predict
    del model
    np.testing.assert_array_equal(bias, np.full(3, 0.5, np.float32))
    assert predict(X).shape == (5, 3)


def test_parameters_are_set_by_assignment(model):
    model.parameters["layer.weight"] = np.ones((3, 4), np.float32)
    model.parameters["layer.bias"] = np.zeros(3, np.float32)
    np.testing.assert_array_equal(model.predict(X), np.repeat(X.sum(1, keepdims=True), 3, axis=1))
    assert set(model.parameters) == {"layer.weight", "layer.bias"}
    assert set(model.states) == {"norm.mean"}


def test_saving_and_loading_restores_everything(package, tmp_path):
    model, file = package.Model(seed=9), tmp_path / "w.safetensors"
    model.train_step(X, Y)
    model.optimizer["lr"] = 0.5
    model.save(file)
    loss, bias = model.train_step(X, Y), model.parameters["layer.bias"].copy()
    other = package.Model(weights=file)
    assert other.optimizer["lr"] == 0.5
    assert other.train_step(X, Y) == loss
    np.testing.assert_array_equal(other.parameters["layer.bias"], bias)
    model.load(str(file))
    assert model.train_step(X, Y) == loss
    model.save(tmp_path / "a")
    other.save(tmp_path / "b")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "b", "w.safetensors"]


def test_an_explicit_seed_wins_over_the_one_in_a_file(package, tmp_path):
    file = tmp_path / "w.safetensors"
    package.Model(seed=9).save(file)
    package.Model(weights=file, seed=11).save(tmp_path / "explicit")
    package.Model(weights=file).save(tmp_path / "kept")
    assert (11).to_bytes(8, "little") in (tmp_path / "explicit").read_bytes()
    assert (9).to_bytes(8, "little") in (tmp_path / "kept").read_bytes()


def test_module_level_functions_share_one_model(package):
    assert package.predict(X).shape == (5, 3)
    before = package.predict(X)
    package.train_step(X, Y)
    assert not np.array_equal(package.predict(X), before)


def test_entries_say_their_types(package):
    assert [str(t) for t in package.entries["predict"].inputs] == ["f32[batch, 4]"]
    assert [str(t) for t in package.entries["mix"].outputs] == ["f32[n]", "i64[2*n]", "f32[]"]
    assert package.entries["train_step"].training
    assert not package.entries["predict"].training


def test_entries_have_signatures_and_docstrings(package, model):
    assert str(inspect.signature(model.train_step)) == "(x, y, *, out=None)"
    assert "x: f32[batch, 4]" in package.predict.__doc__
    assert "f32[batch, 3]" in model.predict.__doc__


def test_concurrent_predictions_of_one_model_agree(model):
    wanted = [model.predict(X[:n]) for n in range(6)]
    wrong = []

    def work():
        for i in range(300):
            n = i % 6
            if not np.array_equal(model.predict(X[:n]), wanted[n]):
                wrong.append(n)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not wrong


def test_a_forked_child_predicts_and_trains(model):
    wanted = model.predict(np.repeat(X, 50, axis=0))
    child = os.fork()
    if child == 0:
        same = np.array_equal(model.predict(np.repeat(X, 50, axis=0)), wanted)
        model.train_step(X, Y)
        os._exit(0 if same else 1)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    np.testing.assert_array_equal(model.predict(np.repeat(X, 50, axis=0)), wanted)


# ---- what must not work: kind, call, error, words of the message ----


def mix_with(**changed):
    return lambda m: m.mix(**{**mix_arguments(), **changed})


def out_of(a):
    return lambda m: m.predict(X, out=a)


def assign(mapping, name, value):
    return lambda m: getattr(m, mapping).__setitem__(name, value)


READ_ONLY = np.empty((5, 3), np.float32)
READ_ONLY.flags.writeable = False
BOTH = np.zeros(35, np.float32)

WRONG_CALLS = [
    # dtype
    ("f64 for f32", lambda m: m.predict(X.astype(np.float64)), TypeError, ["argument x", "f32[batch, 4]", "f64[5, 4]", "np.asarray(x, dtype=np.float32)"]),
    ("i32 for f32", lambda m: m.predict(X.astype(np.int32)), TypeError, ["argument x", "i32[5, 4]"]),
    ("f16 for f32", lambda m: m.predict(X.astype(np.float16)), TypeError, ["f16[5, 4]"]),
    ("byte-swapped", lambda m: m.predict(X.astype(">f4")), TypeError, ["argument x", ">f4"]),
    ("complex", lambda m: m.predict(X.astype(np.complex64)), TypeError, ["complex64"]),
    ("objects", lambda m: m.predict(X.astype(object)), TypeError, ["object"]),
    ("strings", lambda m: m.predict(np.full((5, 4), "1")), TypeError, ["argument x"]),
    ("i64 labels", lambda m: m.train_step(X, Y.astype(np.int64)), TypeError, ["argument y", "i32[batch]", "i64[5]"]),
    ("u32 labels", lambda m: m.train_step(X, Y.astype(np.uint32)), TypeError, ["u32[5]"]),
    ("u8 for bool", mix_with(flag=np.uint8(1)), TypeError, ["argument flag", "bool[]", "u8[]"]),
    ("f32 for bf16", lambda m: m.half(np.zeros(4, np.float16), np.zeros(4, np.float32)), TypeError, ["argument g", "bf16[k]", "ml_dtypes"]),
    # kind of object
    ("a list", lambda m: m.predict(X.tolist()), TypeError, ["argument x", "not an array", "list"]),
    ("None", lambda m: m.predict(None), TypeError, ["argument x", "NoneType"]),
    ("a number for a matrix", lambda m: m.predict(1.0), TypeError, ["argument x", "float"]),
    ("a string", lambda m: m.predict("x"), TypeError, ["argument x", "str"]),
    ("a masked array", lambda m: m.predict(np.ma.masked_array(X, X > 3)), TypeError, ["masked", "x.filled"]),
    ("an integer for a bool", mix_with(flag=1), TypeError, ["argument flag", "int"]),
    ("bytes", lambda m: m.predict(X.tobytes()), TypeError, ["argument x", "u8[80]"]),
    # rank and size
    ("rank 1 for 2", lambda m: m.predict(X[0]), ValueError, ["argument x", "rank 1 instead of 2", "f32[4]"]),
    ("rank 3 for 2", lambda m: m.predict(X[None]), ValueError, ["rank 3"]),
    ("rank 1 for 0", mix_with(flag=np.array([True])), ValueError, ["argument flag", "rank 1 instead of 0"]),
    ("a fixed size", lambda m: m.predict(np.zeros((5, 3), np.float32)), ValueError, ["argument x", "size 3 on axis 1 instead of 4"]),
    ("transposed", lambda m: m.predict(X.T), ValueError, ["argument x", "f32[4, 5]"]),
    ("two sizes for batch", lambda m: m.train_step(X, Y[:3]), ValueError, ["argument y", "size 3 on axis 0 instead of 5", "batch=5 (from x)"]),
    ("n + 1", mix_with(b=np.zeros(3, np.float32)), ValueError, ["argument b", "instead of 4", "n=3 (from a)"]),
    ("2*n", mix_with(ids=np.zeros(7, np.int64)), ValueError, ["argument ids", "size 7 on axis 0 instead of 6"]),
    ("below min", lambda m: m.half(np.zeros(0, np.float16), np.zeros(0, np.uint16)), ValueError, ["size k", "between 2 and 64", "got 0"]),
    ("above max", lambda m: m.half(np.zeros(66, np.float16), np.zeros(66, np.uint16)), ValueError, ["got 66"]),
    ("not a multiple", lambda m: m.half(np.zeros(5, np.float16), np.zeros(5, np.uint16)), ValueError, ["multiple of 2, got 5"]),
    # values
    ("a label too large", lambda m: m.train_step(X, Y + 1), ValueError, ["argument y", "element 2 is 3", "between 0 and 2"]),
    ("a negative label", lambda m: m.train_step(X, Y - 1), ValueError, ["element 0 is -1"]),
    ("an index too small", mix_with(ids=np.full(6, -5)), ValueError, ["argument ids", "-5"]),
    ("a bool of 2", mix_with(flag=np.array(2, np.uint8).view(np.bool_)), ValueError, ["argument flag", "a bool is 0 or 1"]),
    # arguments
    ("a missing argument", lambda m: m.train_step(X), TypeError, ["train_step", "'y'"]),
    ("no argument", lambda m: m.predict(), TypeError, ["predict", "'x'"]),
    ("a surplus argument", lambda m: m.predict(X, Y), TypeError, ["predict", "positional"]),
    ("an unknown argument", lambda m: m.predict(X, z=Y), TypeError, ["predict", "'z'"]),
    ("an argument twice", lambda m: m.predict(X, x=X), TypeError, ["predict", "'x'"]),
    ("an unknown entry", lambda m: m.forecast(X), AttributeError, ["forecast"]),
    # out
    ("out of another dtype", out_of(np.empty((5, 3))), TypeError, ["out has the wrong dtype", "f32[5, 3]", "f64[5, 3]"]),
    ("out of another shape", out_of(np.empty((4, 3), np.float32)), ValueError, ["out has the wrong shape", "f32[5, 3]", "f32[4, 3]"]),
    ("out that is read-only", out_of(READ_ONLY), ValueError, ["out is read-only"]),
    ("out that is not contiguous", out_of(np.empty((3, 5), np.float32).T), ValueError, ["out is not contiguous"]),
    ("out that is unaligned", out_of(unaligned(np.zeros((5, 3), np.float32))), ValueError, ["out is not contiguous"]),
    ("out that is a list", out_of([]), TypeError, ["out is not a NumPy array", "list"]),
    ("out over an input", lambda m: m.predict(BOTH[:20].reshape(5, 4), out=BOTH[15:30].reshape(5, 3)), ValueError, ["output y overlaps argument x"]),
    ("out over a parameter", lambda m: m.train_step(X, Y, out=m.parameters["layer.bias"][:1].reshape(())), ValueError, ["read-only"]),
    ("out of another form", lambda m: m.mix(**mix_arguments(), out=np.empty(3)), TypeError, ["out must be a dict", "sum, all"]),
    ("out with too few arrays", lambda m: m.mix(**mix_arguments(), out={"sum": np.empty(3, np.float32), "all": ()}), TypeError, ["tuple of 2"]),
    ("a parameter that training would change", lambda m: m.train_step(m.parameters["layer.weight"], Y[:3]), ValueError, ["argument x lies in the model's own"]),
    # parameters
    ("an unknown parameter", lambda m: m.parameters["weight"], KeyError, ["'weight'", "layer.weight, layer.bias"]),
    ("writing to a view", lambda m: m.parameters["layer.bias"].__setitem__(0, 1), ValueError, ["read-only"]),
    ("a parameter's dtype", assign("parameters", "layer.bias", np.zeros(3)), TypeError, ["parameter layer.bias", "f32[3]", "f64[3]"]),
    ("a parameter's shape", assign("parameters", "layer.bias", np.zeros(4, np.float32)), ValueError, ["parameter layer.bias", "f32[3]", "f32[4]"]),
    ("a parameter of NaN", assign("parameters", "layer.bias", np.full(3, np.nan, np.float32)), ValueError, ["layer.bias: element 0 is not a finite"]),
    ("a parameter of Inf", assign("parameters", "layer.bias", np.float32([0, np.inf, 0])), ValueError, ["element 1"]),
    ("deleting a parameter", lambda m: m.parameters.__delitem__("layer.bias"), TypeError, ["cannot be deleted"]),
    # hyper-parameters
    ("an unknown hyper-parameter", lambda m: m.optimizer["rate"], KeyError, ["'rate'", "lr"]),
    ("setting an unknown one", assign("optimizer", "rate", 1.0), KeyError, ["'rate'"]),
    ("a hyper-parameter of NaN", assign("optimizer", "lr", float("nan")), ValueError, ["finite"]),
    ("a hyper-parameter beyond f32", assign("optimizer", "lr", 1e300), ValueError, ["finite"]),
    ("a hyper-parameter that is text", assign("optimizer", "lr", "fast"), TypeError, ["lr must be a number"]),
    ("a hyper-parameter that is a list", assign("optimizer", "lr", [1.0]), ValueError, ["another shape"]),
    ("a hyper-parameter that is a bool", assign("optimizer", "lr", True), TypeError, ["lr must be a number"]),
    # files
    ("loading what is not there", lambda m: m.load("/nowhere/at/all"), "ArtifactError", ["/nowhere/at/all"]),
    ("loading a number", lambda m: m.load(3.5), TypeError, ["path must be a path"]),
    ("saving to nowhere", lambda m: m.save("/nowhere/at/all"), "ArtifactError", ["/nowhere/at/all"]),
    ("a path with a null character", lambda m: m.load("a\0b"), ValueError, ["null character"]),
    ("pickling", pickle.dumps, TypeError, ["cannot be pickled"]),
    # opening
    ("a device that is not there", lambda m: type(m)(device="cuda:0"), "ArtifactError", ["'cpu'", "'cuda:0'"]),
    ("a negative number of threads", lambda m: type(m)(threads=-1), ValueError, ["threads must lie between"]),
    ("too many threads", lambda m: type(m)(threads=10**6), ValueError, ["threads must lie between"]),
    ("threads that are no integer", lambda m: type(m)(threads=1.5), TypeError, ["threads must be an integer"]),
    ("a negative seed", lambda m: type(m)(seed=-1), ValueError, ["seed must lie between"]),
    ("a seed that is a bool", lambda m: type(m)(seed=True), TypeError, ["seed must be an integer"]),
    ("weights that are no path", lambda m: type(m)(weights=5.0), TypeError, ["weights must be a path"]),
]  # fmt: skip


def test_the_table_has_at_least_forty_kinds():
    kinds = [kind for kind, *_ in WRONG_CALLS]
    assert len(set(kinds)) == len(kinds) >= 40


@pytest.mark.parametrize(("call", "error", "words"), [w[1:] for w in WRONG_CALLS], ids=[w[0] for w in WRONG_CALLS])  # fmt: skip
def test_wrong_calls_raise_and_change_nothing(package, model, tmp_path, call, error, words):
    model.save(tmp_path / "before")
    with pytest.raises(package.ArtifactError if error == "ArtifactError" else error) as caught:
        call(model)
    for word in words:
        assert word in str(caught.value)
    model.save(tmp_path / "after")
    assert (tmp_path / "before").read_bytes() == (tmp_path / "after").read_bytes()
