"""Inputs that a library of this kind meets and a demo does not: what was tried, and what it gives.

`python tests/bad_inputs.py` writes the table of tests/README.md; a test holds it up to date.
"""

from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from nlbound_jax import Settings, bounds, certify, dynamics, networks, report, tasks
from nlbound_jax.report import load_run, prepare_folder, report_seeds

RNG = np.random.default_rng(0)
X = RNG.normal(size=(40, 3))
Y = np.where(X[:, 0] + 0.5 * RNG.normal(size=40) > 0, 1, -1)
TASK = tasks.from_arrays(X, Y)
NET = networks.initialize(jax.random.key(0), 3, 4, 2, epsilon=0.1, beta=0.1)
LINEAR = networks.initialize(jax.random.key(0), 3, 4, 2, epsilon=0.0, beta=0.1)
SETTINGS = Settings(width=3, num_times=2, beta=0.05, epsilon=0.1)


class Case(NamedTuple):
    """`given` in words, a call, and the one line that it is refused with."""

    given: str
    call: object
    message: str


def changed(array, value, index=(4, 1)):
    array = np.array(array)
    array[index] = value
    return array


def nan_weight(net):
    first = net.weights[0].at[0, 0].set(jnp.nan)
    return networks.LeakyMLP((first, *net.weights[1:]), net.epsilon)


def arrays(*args, **options):
    return lambda: tasks.from_arrays(*args, **options)


DATA = [
    Case(
        "x with a NaN",
        arrays(changed(X, np.nan), Y),
        "`x` must be finite, got nan at index (4, 1).",
    ),
    Case(
        "x with an infinity",
        arrays(changed(X, -np.inf), Y),
        "`x` must be finite, got -inf at index (4, 1).",
    ),
    Case(
        "x of one axis",
        arrays(X[0], Y),
        "`x` must be a non-empty array (samples, features), got (3,).",
    ),
    Case(
        "x of three axes",
        arrays(X[:, :, None], Y),
        "`x` must be a non-empty array (samples, features), got (40, 3, 1).",
    ),
    Case(
        "x without samples",
        arrays(X[:0], Y[:0]),
        "`x` must be a non-empty array (samples, features), got (0, 3).",
    ),
    Case(
        "x without features",
        arrays(X[:, :0], Y),
        "`x` must be a non-empty array (samples, features), got (40, 0).",
    ),
    Case(
        "x of strings", arrays(X.astype(str), Y), "`x` must be an array of numbers, got dtype <U32."
    ),
    Case(
        "x of complex numbers",
        arrays(X + 0j, Y),
        "`x` must be an array of numbers, got dtype complex128.",
    ),
    Case(
        "x of objects",
        arrays(X.astype(object), Y),
        "`x` must be an array of numbers, got dtype object.",
    ),
    Case(
        "x of dates",
        arrays(np.zeros((40, 3), "datetime64[s]"), Y),
        "`x` must be an array of numbers, got dtype datetime64[s].",
    ),
    Case(
        "x with masked entries",
        arrays(np.ma.masked_array(X, X > 1), Y),
        "`x` must have no masked entries, got a masked array.",
    ),
    Case(
        "x of ragged rows",
        arrays([[1.0, 2.0], [3.0]], [0, 1]),
        "`x` must be an array, got rows of different lengths.",
    ),
    Case("x of zeros only", arrays(0 * X, Y), "`x` must have a non-zero sample, got only zeros."),
    Case(
        "x of norms beyond float64",
        arrays(np.full((40, 3), 1.5e308), Y),
        "`x` must have norms below 1.8e308, got a larger one.",
    ),
    Case("one class only", arrays(X, np.ones(40)), "`y` must have exactly two classes, got 1."),
    Case("a single sample", arrays(X[:1], [1]), "`y` must have exactly two classes, got 1."),
    Case(
        "three classes",
        arrays(X, np.arange(40) % 3),
        "`y` must have exactly two classes, got 3 (class_task takes several).",
    ),
    Case(
        "y with a NaN",
        arrays(X, np.where(Y > 0, 1, np.nan)),
        "`y` must be finite, got nan at index (3,).",
    ),
    Case(
        "y of complex numbers",
        arrays(X, Y + 0j),
        "`y` must be numbers, booleans or strings, got dtype complex128.",
    ),
    Case(
        "y of objects",
        arrays(X, np.full(40, None)),
        "`y` must be numbers, booleans or strings, got dtype object.",
    ),
    Case(
        "one-hot labels",
        arrays(X, np.eye(3)[np.arange(40) % 3]),
        "`y` must have shape (40,), got (40, 3): of one-hot labels give `y.argmax(axis=1) == k`, True (+1) for class k, or `y.argmax(axis=1)` if there are two, class 1 being +1.",
    ),
    Case(
        "a scale of another kind",
        arrays(X, Y, scale="rows"),
        "`scale` must be one of 'norm', 'columns', got 'rows'.",
    ),
    Case("y of another length", arrays(X, Y[:-1]), "`y` must have shape (40,), got (39,)."),
    Case(
        "x_test without y_test",
        arrays(X, Y, X),
        "`x_test` and `y_test` must be given together, got only one of them.",
    ),
    Case(
        "x_test of fewer features",
        arrays(X, Y, X[:, :2], Y),
        "`x_test` must have 3 features like `x`, got 2.",
    ),
    Case(
        "x_test with a NaN",
        arrays(X, Y, changed(X, np.nan), Y),
        "`x_test` must be finite, got nan at index (4, 1).",
    ),
    Case(
        "x_test beyond float32",
        arrays(X, Y, np.full((1, 3), 1e300), [1]),
        "`x_test` must be within 3.4e+38 times the training inputs, got 3.8e+299.",
    ),
    Case(
        "a class that only y_test has",
        arrays(X, Y, X, 3 * Y),
        "`y_test` must have the classes of `y`, got 3 as well.",
    ),
    Case(
        "a norm bound below a norm",
        arrays(X, Y, norm_bound=1e-3),
        "`norm_bound` must be at least the largest norm in `x`, 2.64687, got 0.001.",
    ),
    Case(
        "a negative norm bound",
        arrays(X, Y, norm_bound=-1),
        "`norm_bound` must be positive and finite, got -1.",
    ),
    Case("a cut of 1", arrays(X, Y, cut=1), "`cut` must be in [0, 1), got 1."),
    Case(
        "more components than the rank",
        arrays(np.hstack([X, X]), Y, components=4),
        "`components` must be an integer in [1, 3], got 4.",
    ),
    Case(
        "half a component",
        arrays(X, Y, components=1.5),
        "`components` must be an integer in [1, 3], got 1.5.",
    ),
    Case("MNIST at 8 pixels", lambda: tasks.mnist(8), "`side` must be one of 7, 14, 28, got 8."),
    Case(
        "a digit that is none",
        lambda: tasks.mnist(7, positive=(11,)),
        "`positive` must be a non-empty set of digits 0 to 9, got (11,).",
    ),
    Case(
        "a digit instead of a set",
        lambda: tasks.mnist(7, positive=3),
        "`positive` must be a non-empty set of digits 0 to 9, got 3.",
    ),
    Case(
        "a digit on both sides",
        lambda: tasks.mnist(7, negative=(5,)),
        "`positive` and `negative` must be disjoint, got [5, 6, 7, 8, 9] and [5].",
    ),
    Case(
        "inputs of another width",
        lambda: TASK.transform(X[:, :2]),
        "`x` must have 3 features in its last axis, got shape (40, 2).",
    ),
    Case(
        "inputs with a NaN",
        lambda: TASK.transform(changed(X, np.nan)),
        "`x` must be finite, got nan at index (4, 1).",
    ),
    Case(
        "coordinates of another width",
        lambda: TASK.transform.inverse(X[:, :2]),
        "`x` must have 3 coordinates in its last axis, got shape (40, 2).",
    ),
    Case(
        "a report where there is nothing to learn",
        lambda: report(tasks.from_arrays([[1.0], [-1.0], [1.0], [-1.0]], [1, 1, 0, 0]), SETTINGS),
        "`task` must have labels that correlate with the inputs, got alignment 0: there is nothing to learn, so no learning time; set `end_time`.",
    ),
    Case(
        "a report that starts beyond its end",
        lambda: report(tasks.from_arrays([[1.0], [-1.0]], [1, 0]), Settings(beta=5.0, epsilon=0)),
        "`beta` must be below 0.9487 at `until` = 0.9, got 5: the network starts at 25 times the target, beyond what it is to learn; a smaller `beta` gives a learning time, or `end_time` sets the time itself.",
    ),
    Case(
        "a start below float32",
        lambda: report(TASK, Settings(beta=1e-40)),
        "`beta` must be in [9.86e-32, 3.44e+10] at depth 2 in float32, [1e-292, 3.42e+97] in float64, got 1e-40.",
    ),
    Case(
        "an end beyond float32",
        lambda: report(TASK, Settings(end_time=1e39)),
        "`end_time` must be in [4.7e-37, 3.4e+38] in float32, got 1e+39.",
    ),
    Case(
        "more steps of gradient descent than can be counted",
        lambda: report(TASK, Settings(end_time=1e9, dynamics="gd")),
        "`dynamics` must be 'flow' to train until t = 1e+09, got 'gd', whose steps of 0.001 get to t = 2.14748e+06 at most.",
    ),
    Case(
        "arrays where a task is wanted",
        lambda: report(X, SETTINGS),
        "`task` must be a Task, got an array of shape (40, 3) and dtype float64.",
    ),
]
NETWORKS = [
    Case(
        "weights that do not fit",
        lambda: networks.LeakyMLP((NET.weights[0], NET.weights[1][:, :2]), NET.epsilon),
        "`weights` must be at least two matrices (out, in) that fit together, got shapes [(4, 3), (1, 2)].",
    ),
    Case(
        "one layer",
        lambda: networks.LeakyMLP(NET.weights[:1], NET.epsilon),
        "`weights` must be at least two matrices (out, in) that fit together, got shapes [(4, 3)].",
    ),
    Case(
        "a network of several outputs where one is wanted",
        lambda: certify(networks.LeakyMLP((NET.weights[0], jnp.ones((3, 4))), NET.epsilon), TASK),
        "`net` must have one output, got 3.",
    ),
    Case(
        "weights of integers",
        lambda: networks.LeakyMLP(tuple(w.astype(int) for w in NET.weights), NET.epsilon),
        "`weights` must be floating, got {int}, {int}.",
    ),
    Case(
        "a number where weights are wanted",
        lambda: networks.LeakyMLP(3.0, NET.epsilon),
        "`weights` must be a tuple of matrices, got 3.0.",
    ),
    Case(
        "a slope for each unit",
        lambda: networks.LeakyMLP(NET.weights, jnp.ones(4)),
        "`epsilon` must be a scalar array, got an array of shape (4,) and dtype {float}.",
    ),
    Case(
        "a network on inputs of another width",
        lambda: NET(X[:, :2]),
        "`x` must have 3 features in its last axis, got shape (40, 2).",
    ),
    Case(
        "a network on a NaN",
        lambda: NET.predict(changed(X, np.nan)),
        "`x` must be a finite number, got nan.",
    ),
    Case(
        "a slope above 1",
        lambda: networks.initialize(jax.random.key(0), 3, 4, 2, epsilon=1.1, beta=0.1),
        "`epsilon` must be in [0, 1], got 1.1.",
    ),
    Case(
        "a start of size 0",
        lambda: networks.initialize(jax.random.key(0), 3, 4, 2, epsilon=0.1, beta=0),
        "`beta` must be positive and finite, got 0.",
    ),
    Case(
        "a start below the dtype of the weights",
        lambda: networks.initialize(
            jax.random.key(0), 3, 4, 2, epsilon=0.1, beta=1e-20, dtype="float16"
        ),
        "`beta` must be in [6.1e-05, 6.55e+04] for weights of float16, got 1e-20.",
    ),
    Case(
        "a seed where a key is wanted",
        lambda: networks.initialize(0, 3, 4, 2, epsilon=0.1, beta=0.1),
        "`key` must be one JAX random key, got 0.",
    ),
    Case(
        "an integer dtype",
        lambda: networks.initialize(jax.random.key(0), 3, 4, 2, epsilon=0.1, beta=0.1, dtype=int),
        "`dtype` must be a floating dtype, got <class 'int'>.",
    ),
    Case(
        "a width too large to print",
        lambda: networks.initialize(jax.random.key(0), 3, 10**5000, 2, epsilon=0.1, beta=0.1),
        "`width` must be an integer in [1, 2147483647], got a number too large to print.",
    ),
    Case(
        "a proxy of another shape",
        lambda: networks.corrected_proxy(
            NET, networks.initialize(jax.random.key(0), 3, 5, 2, epsilon=0.0, beta=0.1), X
        ),
        "`linear` must have the weights' shapes of `net`, got [(5, 3), (1, 5)].",
    ),
]
DYNAMICS = [
    Case(
        "a network for other data",
        lambda: dynamics.gradient_flow(
            networks.initialize(jax.random.key(0), 5, 4, 2, epsilon=0.1, beta=0.1), TASK, t1=1.0
        ),
        "`net` must take the task's 3 inputs, got 5.",
    ),
    Case(
        "a flow from a NaN",
        lambda: dynamics.gradient_flow(nan_weight(NET), TASK, t1=1.0),
        "`net` must be finite, got nan.",
    ),
    Case(
        "a flow to time 0",
        lambda: dynamics.gradient_flow(NET, TASK, t1=0.0),
        "`t1` must be positive and finite, got 0.",
    ),
    Case(
        "a flow to two times",
        lambda: dynamics.gradient_flow(NET, TASK, t1=[1.0, 2.0]),
        "`t1` must be a single number, got shape (2,).",
    ),
    Case(
        "no solver steps",
        lambda: dynamics.gradient_flow(NET, TASK, t1=1.0, max_steps=0),
        "`max_steps` must be an integer of at least 1, got 0.",
    ),
    Case(
        "saves that do not divide the steps",
        lambda: dynamics.gradient_descent(NET, TASK, 10, save_every=3),
        "`save_every` must divide num_steps = 10, got 3.",
    ),
    Case(
        "a network that starts learned",
        lambda: dynamics.learning_time(0.5, depth=2, alignment=0.5, beta=0.9),
        "`beta` must be so small that omega beta^depth / alignment, where the network starts, is below 1, got 1.62: it starts beyond the target.",
    ),
    Case(
        "a learning time without alignment",
        lambda: dynamics.learning_time(0.5, depth=2, alignment=0.0, beta=0.1),
        "`alignment` must be in (0, 1], got 0.",
    ),
]
BOUNDS = [
    Case(
        "more than one risk", lambda: bounds.kl_inverse(1.5, 0.1), "`p` must be in [0, 1], got 1.5."
    ),
    Case(
        "a negative exponent",
        lambda: bounds.kl_inverse(0.1, -1.0),
        "`c` must be finite and at least 0, got -1.",
    ),
    Case(
        "shapes that do not broadcast",
        lambda: bounds.kl_inverse([0.1, 0.2], [0.1, 0.2, 0.3]),
        "Shapes must broadcast against each other, got `p` (2,), `c` (3,).",
    ),
    Case("a complex number", lambda: bounds.kl_inverse(1j, 0.1), "`p` must be in [0, 1], got 1j."),
    Case(
        "a Gamma function beyond its range",
        lambda: bounds.upper_incomplete_gamma(0.5, 701.0),
        "`x` must be in [{tiny}, 700], got 701.",
    ),
    Case(
        "a ball of no dimension",
        lambda: bounds.mean_absolute_noise(0),
        "`dim` must be finite and at least 1, got 0.",
    ),
    Case(
        "weights of one layer in the path norms",
        lambda: bounds.path_norms(NET.weights[:1]),
        "`weights` must be at least two matrices (out, in) that fit together and end in one output, got shapes [(4, 3)].",
    ),
    Case(
        "as many distances as inputs",
        lambda: bounds.norms_nearby(NET.weights, np.ones(3), 0.1),
        "`distances` must have shape (2,), got (3,).",
    ),
    Case(
        "a confidence of 100%",
        lambda: certify(NET, TASK, delta=0.0),
        "`delta` must be in (0, 1), got 0.",
    ),
    Case(
        "a network on other inputs",
        lambda: certify(NET, tasks.from_arrays(X[:, :2], Y)),
        "`net` must have 2 inputs (whitened ones of the task), got 3.",
    ),
    Case(
        "inputs of a third kind",
        lambda: certify(NET, TASK, inputs="pooled"),
        "`inputs` must be one of 'whitened', 'raw', got 'pooled'.",
    ),
]
FILES = [
    Case(
        "a run that is not there",
        lambda: load_run("/nowhere/run.npz"),
        "`path` must be a run saved by `save_run`, got '/nowhere/run.npz': No such file or directory.",
    ),
    Case("a number where a path is wanted", lambda: load_run(3), "`path` must be a path, got 3."),
    Case(
        "a folder that cannot be",
        lambda: prepare_folder("/proc/none"),
        "`out` must be a folder that can be written, got '/proc/none': No such file or directory.",
    ),
    Case(
        "a data file that is not there",
        lambda: tasks.from_npz("/nowhere/data.npz"),
        "`path` must be an .npz file, got '/nowhere/data.npz': No such file or directory.",
    ),
    Case(
        "no seeds",
        lambda: report_seeds(TASK, SETTINGS, 0),
        "`num_seeds` must be an integer of at least 1, got 0.",
    ),
]
GROUPS = {
    "data": DATA,
    "networks": NETWORKS,
    "dynamics": DYNAMICS,
    "bounds": BOUNDS,
    "files": FILES,
}
# Odd, and right: held against a direct computation in test_bad_inputs.py.
WORKS = {
    "more features than rank (copies, sums, zeros)": "whitened in its span; `rank`, `num_features` and `condition_number` say so",
    "a constant feature": "kept: a bias",
    "only constant features": "rank 1, alignment the mean label",
    "every sample twice": "the same spectrum, target and inputs",
    "fewer samples than features": "rank m, alignment 1",
    "samples of zeros": "whitened to zeros",
    "labels without correlation (with `end_time`)": "alignment 0; every bound is 1, none NaN",
    "inputs of size 1e300, 1e-300 and subnormal": "the same whitened inputs",
    "bfloat16, float8, float4, int4 and the other real types of ml_dtypes": "as their float64 values",
    "labels as a column (m, 1)": "as the labels (m,)",
    "features of very different units": 'a warning if the cut drops some; `scale="columns"` keeps them',
    "float16, float32, uint8, uint64, bool, long double": "as their float64 values",
    "lists, Fortran order, strides, read-only and JAX arrays": "as a NumPy array",
    "labels as bools, ints, floats, strings, bytes, objects of strings": "the larger class is +1",
    "a test set of one sample or one class": "its risk",
}


def message_of(case):
    """The message with what depends on the precision filled in."""
    x64 = jax.config.jax_enable_x64
    words = {"{int}": "int64" if x64 else "int32", "{float}": "float64" if x64 else "float32"}
    words["{tiny}"] = "2.22507e-308" if x64 else "1.17549e-38"
    text = case.message
    for word, meaning in words.items():
        text = text.replace(word, meaning)
    return text


def table():
    """The table as Markdown."""
    lines = ["| given | result |", "| --- | --- |"]
    for cases in GROUPS.values():
        lines += [
            f"| {case.given} | {case.message.replace('|', chr(92) + '|')} |" for case in cases
        ]
    lines += [f"| {given} | works: {gives} |" for given, gives in WORKS.items()]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    path = Path(__file__).parent / "README.md"
    head = path.read_text().partition("| given |")[0]
    path.write_text(head + table())
