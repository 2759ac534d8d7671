"""Every argument of every public function, with wrong values: one line that names the argument,
or a result without NaN; never an error from inside JAX."""

import inspect

import equinox as eqx
import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import optax
import pytest
from bad_inputs import LINEAR, NET, TASK, X, Y
from test_public import PUBLIC

from nlbound_jax import Settings, bounds, certify, checks, dynamics, networks, tasks

M = np.linspace(-1.0, 1.0, 24)
L = np.where(M > 0, 1.0, -1.0)
THEOREM = {
    "t": 1.0,
    "depth": 2,
    "epsilon": 0.01,
    "beta": 0.01,
    "gamma": 0.1,
    "stable_rank_root": 1.5,
    "alignment": 0.5,
    "dim": 3,
    "num_samples": 1000,
    "kappa": 2,
    "precision_bits": 32,
    "delta": 0.01,
    "cells": 1,
    "train_risk": 0.1,
    "reading": "repaired",
    "assumption_5_1": True,
}
SMALL_BETA = {"growth": 5.0, "ratio": 3.0} | {
    k: THEOREM[k] for k in ("depth", "epsilon", "stable_rank_root", "alignment", "dim", "kappa")
}
DEVIATION = {"epsilon": 0.1} | {
    k: THEOREM[k]
    for k in (
        *("gamma", "dim", "num_samples", "kappa", "precision_bits", "delta", "cells"),
        "train_risk",
    )
}
WEIGHTS = NET.weights
SPLIT = {"margins": M, "input_norms": np.ones(24), "epsilon": 0.1, "depth": 2, "dim": 3}
SPLIT |= {"linear_norm": 0.5, "paths": np.array([0.5]), "delta": 0.01, "deviation": 0.0}
SPLIT |= {"gammas": np.array([0.1, 0.2]), "roots": np.array([1.7]), "noise_root": 1.7}
ANCHORED = {"x": np.outer(M, [1.0, -0.5, 2.0]), "y": L, "weights": WEIGHTS, "anchor": WEIGHTS}
ANCHORED |= {"x_first": np.outer(M, [0.5, 1.0, 1.0]), "epsilon": 0.1, "key": jax.random.key(1)}
ANCHORED |= {"delta": 0.01, "shapes": np.ones((1, WEIGHTS[0].shape[0])), "anchors": 1, "draws": 2}
ANCHORED |= {"metrics": np.ones((1, 3)), "grid": bounds.AnchoredGrid(levels=(1.0,), bumps=(0.0,))}
ONE_DRAW = {"parameters": WEIGHTS, "anchor": WEIGHTS, "errors": lambda w: np.zeros(9)}
ONE_DRAW |= {
    "scales": 0.1,
    "key": jax.random.key(1),
    "delta": 0.01,
    "factors": np.array([0.1, 1.0]),
}
ONE_DRAW |= {"etas": (0.1,), "anchors": 1}
MODULE = eqx.nn.Sequential([eqx.nn.Lambda(lambda x: x), eqx.nn.Linear(3, 2, key=jax.random.key(0))])
PENALTY = {"parameters": WEIGHTS, "anchor": WEIGHTS, "scales": 0.1, "num_samples": 9}
START = {"in_size": 3, "width": 4, "depth": 2, "epsilon": 0.1, "beta": 0.1, "kind": "default"}
CONV = {"shape": (1, 7, 7), "channels": (2, 3), "out_size": 3, "epsilon": 0.1, "beta": 0.1}
CONV |= {"size": 2, "stride": 1, "padding": 1, "pool": 2}
CLASSES = {"outputs": np.outer(M, [1.0, 0.5, -1.0]), "labels": np.arange(24) % 3, "epsilon": 0.1}
CLASSES |= {"input_norms": np.ones(24), "linear": np.eye(3), "paths": np.array([0.5])}
CLASSES |= {"roots": np.array([2.0]), "noise_roots": np.array([1.7]), "spectra": np.ones(3)}
CLASSES |= {"delta": 0.01, "grid": bounds.ClassGrid(priors=(0.0,), noise=(0.1, 0.2, 2.0))}
MOVED = {"moves": np.array([0.1]), "anchor_paths": np.array([0.5]), "unit": 1.0}
LAYERS = {"filters": np.ones((2, 4)), "columns": np.ones((2, 9, 3))}
CLASS_NET = networks.LeakyMLP((jnp.ones((4, 3)), jnp.ones((3, 4))), jnp.asarray(0.1))
FLOW = {"net": NET, "task": TASK, "t1": 0.5, "max_steps": 100}

# A valid call of each, by name; what is not here is in EXEMPT with the reason.
CALLS = {
    "tasks.from_arrays": {
        "x": X,
        "y": Y,
        "norm_bound": 10.0,
        "components": 2,
        "cut": 1e-9,
        "scale": "columns",
        "bias": True,
    },
    "tasks.class_task": {
        **{"x": X, "y": Y, "x_test": X, "y_test": Y, "code": "signs", "scale": 2.0},
        **{"whitened": True, "components": 2, "cut": 1e-9, "name": "arrays"},
    },
    "tasks.split": {"task": TASK, "key": jax.random.key(1), "fraction": 0.5, "ridge": 1e-6},
    "networks.initialize": {"key": jax.random.key(0), **START, "out_size": 3, "dtype": "float32"},
    "networks.LeakyMLP": {"weights": WEIGHTS, "epsilon": NET.epsilon},
    "networks.initialize_conv": {"key": jax.random.key(0), **CONV, "dtype": "float32"},
    "networks.LeakyConv": {
        **{"filters": (jnp.ones((2, 1, 2, 2)),), "head": jnp.ones((3, 8)), "pool": 2},
        **{"epsilon": NET.epsilon, "shape": (1, 4, 4), "stride": 1, "padding": 1},
    },
    "networks.linear_proxy": {"linear": LINEAR},
    "networks.leaky_proxy": {"linear": LINEAR, "epsilon": 0.1},
    "networks.corrected_proxy": {"net": NET, "linear": LINEAR, "x": X, "cut": 1e-9},
    "dynamics.gradient_flow": {**FLOW, "loss": None},
    "dynamics.gradient_descent": {
        **{"net": NET, "task": TASK, "num_steps": 4, "save_every": 2, "loss": optax.l2_loss}
    },
    "dynamics.tau_derivative": {**FLOW, "central": False, "finite_difference": False},
    "dynamics.hyperparameter_derivative": {
        **{**FLOW, "loss": None, "where": lambda net: net.epsilon, "tangent": 1.0}
    },
    "dynamics.learning_time": {
        **{"fraction": 0.5, "depth": 2, "alignment": 0.5, "beta": 0.01, "epsilon": 0.1}
    },
    "bounds.upper_incomplete_gamma": {"a": 0.5, "x": 1.0},
    "bounds.kl_inverse": {"p": 0.1, "c": 0.1},
    "bounds.mean_absolute_noise": {"dim": 3},
    "bounds.smoothed_ramp": {"margins": M, "spread": 0.1, "gamma": 0.1, "dim": 3},
    "bounds.linear_part": {"weights": WEIGHTS, "epsilon": 0.1},
    "bounds.path_norms": {"weights": WEIGHTS},
    "bounds.norms_nearby": {"weights": WEIGHTS, "distances": np.array([0.1, 0.1]), "epsilon": 0.1},
    "bounds.linear_metric": {
        **{"weights": WEIGHTS, "epsilon": 0.1, "spectrum": TASK.spectrum},
        "grid": bounds.SplitGrid(),
    },
    "bounds.linear_sizes": {
        **{"weights": WEIGHTS, "epsilon": 0.1, "spectrum": TASK.spectrum},
        "grid": bounds.SplitGrid(),
    },
    "bounds.layer_factors": {"epsilon": 0.1, "depth": 3},
    "bounds.split_penalty": {"weights": WEIGHTS, "epsilon": 0.1, "num_samples": 60000},
    "bounds.leaf_scales": {"anchor": WEIGHTS},
    "bounds.information_penalty": PENALTY,
    "bounds.symmetrization_factor": {"num_samples": 60000},
    "bounds.patch_positions": {"shape": (1, 4, 4), "size": (2, 2), "stride": 1, "padding": 1},
    "bounds.pooled_columns": {"head": np.ones((3, 8)), "height": 4, "width": 5, "pool": 2},
    "bounds.class_linear_part": {
        **{**LAYERS, "positions": bounds.patch_positions((1, 4, 4), (2, 2))},
        **{"epsilon": 0.1, "dim": 16},
    },
    "bounds.class_paths": {**LAYERS, "roots": np.eye(4)[None], "weights": np.ones((1, 9))},
    "bounds.class_root": {"traces": np.ones(2), "spreads": 0.5, "classes": 3, "positions": 9},
    "bounds.optimistic_bound": {
        **{"output": M, "proxy": M / 2, "y": L, "output_test": M, "proxy_test": M / 2, "y_test": L},
        "gamma": 0.1,
    },
    "report.certify_module": {
        **{"net": MODULE, "anchor": MODULE, "x": X, "y": np.asarray(Y) > 0},
        **{"key": jax.random.key(1), "delta": 0.1, "scales": 0.1, "factors": np.array([0.1])},
        **{"etas": (0.1,), "batch": 5, "x_test": X, "y_test": np.asarray(Y) > 0},
    },
    "report.certify_classes": {
        **{"net": CLASS_NET, "x": X, "y": np.arange(len(X)) % 3, "anchor": CLASS_NET},
        **{"x_first": X, "norm_bound": 10.0, "delta": 0.1, "grid": CLASSES["grid"]},
        **{"x_test": X, "y_test": np.arange(len(X)) % 3},
    },
    "report.certify": {"net": NET, "task": TASK, "delta": 0.01, "inputs": "whitened"},
    "checks.claimed_names": {"depth": 2},
    "report.train": {"task": TASK, "settings": Settings()},
    "report.report_seeds": {"task": TASK, "settings": Settings(), "num_seeds": 2},
    "report.load_run": {"path": "/nowhere/run.npz"},
    "report.load_trajectory": {"path": "/nowhere/run.npz", "like": NET},
    "report.prepare_folder": {"out": "/proc/none"},
}
# These refuse to run in float32, in one line (tested in test_precision.py).
FLOAT64 = {
    "bounds.theorem_5_2": THEOREM,
    "bounds.grid": {**THEOREM, "t": [1.0, 2.0], "chunk_size": 100},
    "bounds.certified_theorem_5_2": {**THEOREM, "bits": 128},
    "bounds.small_beta_deviation": SMALL_BETA,
    "bounds.trajectory_bound": {
        **{"norms": np.array([0.5, 0.5]), "frobenius": np.array(0.6)},
        **{"distances": np.array([0.01, 0.01]), **DEVIATION, "method": "counting"},
        "classes": 2,
    },
    "bounds.split_bound": SPLIT,
    "bounds.anchored_bound": ANCHORED,
    "bounds.class_inputs": {
        **{"inputs": X, "reference": X, "positions": np.array([[0, 1], [1, 2]]), "delta": 0.01},
        **{"norm_bound": 10.0, "exponents": (0.0, 1.0), "ridges": (0.01,)},
    },
    "bounds.class_smoothed_ramp": {
        **{"outputs": CLASSES["outputs"], "labels": CLASSES["labels"]},
        **{"spread": 0.1, "gamma": 0.1},
    },
    "bounds.class_split_bound": {**CLASSES, "gammas": np.array([0.1, 0.2])},
    "bounds.class_anchored_bound": {**CLASSES, **MOVED},
    "bounds.one_draw_bound": ONE_DRAW,
    "bounds.anchor_shapes": {"anchor": WEIGHTS, "others": [WEIGHTS], "powers": (1.0,)},
    "bounds.binomial_upper": {"k": 3.0, "n": 10.0, "delta": 0.01},
    "bounds.held_out_whitening": {"inputs": X, "held_out": X, "norm_bound": 10.0},
    "dynamics.reference_flow": {
        **{"net": NET, "target": TASK.target, "ts": np.array([0.5, 1.0])},
        **{
            "second_moment": np.eye(3),
            "label_size": 1.0,
            "driver": (jnp.asarray(TASK.target)[None], jnp.eye(3)),
        },
        "initial_residual": 1.0,
    },
    "dynamics.reference_descent": {
        **{"net": NET, "target": TASK.target, "num_steps": 4, "step_size": 0.1, "momentum": 0.5},
        **{"nesterov": True, "dampening": 0.1, "weight_decay": 0.1, "schedule": jnp.ones_like},
        **{
            "second_moment": np.eye(3),
            "label_size": 1.0,
            "driver": (jnp.asarray(TASK.target)[None], jnp.eye(3)),
        },
        **{"initial_residual": 1.0, "save_every": 2},
    },
    "checks.measure": {"net": NET, "task": TASK, "ts": np.array([0.5, 1.0]), "central": False},
}
# What takes the objects of others or runs long: only what must be refused is tried.
SETTINGS = Settings(width=2, num_times=1, end_time=0.1, beta=0.5, max_steps=4)
OBJECTS = {
    "tasks.load_task": {"data": tasks.DataSpec()},
    "bounds.best_over": {"dataset": None},
    "networks.LinearConv": {"network": NET},
    "report.report": {"task": TASK, "settings": SETTINGS, "bounds": ()},
    "report.compare": {"task": TASK, "settings": SETTINGS, "epsilons": -1.0, "times": 0},
    "report.end_time": {"task": TASK, "settings": SETTINGS},
    "report.start_network": {"task": TASK, "settings": SETTINGS},
    "report.train": {"task": TASK, "settings": SETTINGS},
    "report.save": {"report": None},
    "report.save_run": {"report": None},
    "report.save_trajectory": {"trajectory": None},
    "report.save_comparison": {"comparison": None},
    "report.spread": {"reports": None},
    "report.table": {"report": None},
    "report.plot": {"report": None},
    "report.plot_comparison": {"comparison": None},
    "report.comparison_table": {"comparison": None},
    "figures.compute": {"name": "1", "preset": "full"},
    "figures.make": {"name": "0", "folder": ".", "preset": "full"},
    "figures.redraw": {"name": "0", "folder": "/nowhere"},
    "figures.draw": {"name": "1", "data": None},
    "figures.title": {"name": "1"},
    "figures.ladder": {"task": TASK, "settings": SETTINGS, "epsilons": ()},
    "ladder.evaluate_network": {"bounds": (), "net": NET, "task": TASK, "delta": 0.1},
}
# What the others of these need to be called at all.
BESIDE = {
    "report.save": {"out": "/proc/none"},
    "report.save_run": {"task": TASK, "path": "/proc/none"},
    "report.save_trajectory": {"path": "/proc/none"},
    "report.save_comparison": {"out": "/proc/none"},
}
WRONG = [
    *(float("nan"), float("inf"), -float("inf"), -1, 10**400, "a", 1 + 1j, {}, object()),
    *([1, "a"], np.full(3, np.nan), np.array([[1.0, np.inf]]), np.array([]), np.zeros((2, 3))),
    None,
    # Real numbers that NumPy itself does not have.
    *(ml_dtypes.bfloat16("nan"), ml_dtypes.bfloat16(-1), jnp.bfloat16(2), jnp.zeros(2, "bfloat16")),
    *(np.full((2, 2), 1.5, ml_dtypes.float8_e4m3fn), np.asarray([-1, 1], ml_dtypes.int4)),
]


def bent(value):
    """Values like `value` that are wrong in one place."""
    if isinstance(value, np.ndarray) and value.dtype.kind == "f" and value.ndim:
        for bad in (np.nan, np.inf):
            array = value.copy()
            array.flat[0] = bad
            yield array
        yield value + 1j
        yield value.astype(str)
    if isinstance(value, tuple) and value and hasattr(value[0], "shape"):
        yield (value[0].at[0, 0].set(jnp.nan), *value[1:])
        yield value[:1]
        yield ()
        yield tuple(w[0] for w in value)
    if isinstance(value, networks.LeakyMLP):
        first = value.weights[0].at[0, 0].set(jnp.nan)
        yield eqx.tree_at(lambda n: n.weights[0], value, first)
        yield eqx.tree_at(lambda n: n.epsilon, value, jnp.full_like(value.epsilon, jnp.nan))


def has_nan(result):
    leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(eqx.filter(result, eqx.is_array_like))]
    return any(np.isnan(leaf).any() for leaf in leaves if leaf.dtype.kind == "f")


def function_of(name):
    home, _, short = name.partition(".")
    owner = {"report": None, "figures": None, "ladder": None, "checks": checks}
    owner |= {"networks": networks, "tasks": tasks, "bounds": bounds, "dynamics": dynamics}
    special = {"report.certify": certify}
    return special.get(name) or (
        PUBLIC[f"nlbound_jax.{name}"] if owner[home] is None else getattr(owner[home], short)
    )


def names_of(arguments):
    # A wrong array may show in the one that it is held against.
    return [f"`{name}" for name in arguments]


def refusal(name, call, changed):
    """What a call with wrong arguments says, in one line that names one of its arguments; `None` if
    it gives a result, without NaN."""
    try:
        result = function_of(name)(**{**call, **changed})
    except ValueError as error:
        text = str(error)
        assert "\n" not in text, (name, changed, text)
        assert any(n in text for n in names_of(call)), (name, changed, text)
        return text
    # What builds a network takes what it is given; its users check it.
    assert name == "networks.LeakyMLP" or not has_nan(result), (name, changed)
    return None


def probe(name, call):
    for argument, value in call.items():
        for wrong in (*WRONG, *bent(value)):
            text = refusal(name, call, {argument: wrong})
            arrays = (np.ndarray, jax.Array, tuple, list, networks.LeakyMLP)
            if text is not None and not isinstance(wrong, arrays):
                assert f"`{argument}" in text, (name, argument, wrong, text)


def probe_together(name, call, count=40):
    """Two wrong arguments at once."""
    rng = np.random.default_rng(0)
    names = list(call)
    for _ in range(count if len(names) > 1 else 0):
        chosen = rng.choice(names, 2, replace=False)
        refusal(name, call, {n: WRONG[rng.integers(len(WRONG))] for n in chosen})


@pytest.mark.parametrize("name", [n for n, call in CALLS.items() if len(call) > 1])
def test_two_wrong_values_at_once(no_type_checks, name):
    probe_together(name, CALLS[name])


@pytest.mark.float64
@pytest.mark.parametrize("name", FLOAT64)
def test_two_wrong_values_at_once_in_float64(no_type_checks, name):
    probe_together(name, FLOAT64[name])


@pytest.mark.float64
@pytest.mark.parametrize("name", OBJECTS)
def test_what_is_no_such_object_is_refused_in_one_line(no_type_checks, name):
    call = OBJECTS[name]
    for argument in call:
        for wrong in (float("nan"), -1, "", {}, object(), [3], ml_dtypes.bfloat16(2)):
            with pytest.raises(ValueError, match=r"^`[^\n]*$") as caught:
                function_of(name)(**{**call, **BESIDE.get(name, {}), argument: wrong})
            assert any(n in str(caught.value) for n in names_of(call)), (name, argument, wrong)


@pytest.mark.parametrize("name", CALLS)
def test_wrong_values_are_refused_in_one_line(no_type_checks, name):
    probe(name, CALLS[name])


@pytest.mark.float64
@pytest.mark.parametrize("name", FLOAT64)
def test_wrong_values_are_refused_in_one_line_in_float64(no_type_checks, name):
    probe(name, FLOAT64[name])


# Not tried here, and why.
EXEMPT = {
    "an engine: its arrays were checked by the function that it drives": (
        *("dynamics.samples_mesh", "dynamics.make_blocks", "dynamics.replicate"),
        "dynamics.make_sample_blocks",
        *("dynamics.run_on_mesh", "dynamics.default_controller", "dynamics.pi_controller"),
        *("dynamics.solve_flow", "dynamics.negative_gradient", "dynamics.envelope_slopes"),
        *("dynamics.envelope_terms", "bounds.output_distance", "bounds.split_gammas"),
        *("bounds.anchored_search", "bounds.class_search"),
        *("bounds.filter_norms", "bounds.column_norms"),
    ),
    "is the check itself": ("networks.check_network", "ladder.checked_bounds"),
    "a part of `report`, which has checked the task and the settings": (
        *("report.train_network", "report.save_times", "report.bound_key", "report.check_start"),
        *("report.declared_split", "report.train_anchor", "ladder.anchor_of"),
        *("ladder.follow", "ladder.risks", "ladder.errors", "ladder.start_of"),
        *("ladder.evaluate_run", "ladder.evaluate_along"),
        *("ladder.samples_of", "ladder.has_held_out", "ladder.known_of", "ladder.applicable"),
        *("ladder.numbers_as_arrays", "ladder.root_mean_square_residual", "ladder.configured"),
        *("report.reference_beside", "ladder.assumptions"),
        *("ladder.colour_of", "ladder.prepared", "ladder.labelled_sets", "networks.in_units"),
        *("networks.partition", "networks.without_slopes"),
    ),
    "takes the objects that another public function returns": (
        *("checks.evaluate", "checks.plot_slack", "checks.deviations"),
        *("checks.envelope", "checks.split_norms", "checks.gradient_alignment"),
        *("checks.proxy_deviation", "checks.residuals", "checks.slope_dependence"),
        *("checks.weight_norms", "report.spread_table"),
        *("figures.plot_ladder", "figures.save_data"),
    ),
    "errors are tested in a file of its own": (
        *("tasks.mnist", "tasks.mnist_classes", "tasks.from_npz", "tasks.from_tfds"),
        *("figures.load_data", "figures.heatmap"),
        *("checks.assumption_5_1", "checks.conjecture_e_1", "checks.rising_loss"),
        *("bounds.SplitGrid", "report.Settings"),
        *("bounds.AnchoredGrid", "bounds.ClassGrid"),
    ),
}


def test_no_public_function_is_forgotten():
    tried = {*CALLS, *FLOAT64, *OBJECTS, *(n for names in EXEMPT.values() for n in names)}
    own = ("nlbound_jax.sweep", "nlbound_jax.bounds.classical")
    functions = [
        name.removeprefix("nlbound_jax.")
        for name, value in PUBLIC.items()
        if inspect.isfunction(value) and inspect.signature(value).parameters
        if not name.startswith(own) and not value.__module__.startswith(own)
    ]
    forgotten = {n for n in functions if n not in tried}
    assert not forgotten
