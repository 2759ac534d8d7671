"""`nlbound certify`."""

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from .._naming import naming
from .._settings import DataSpec, Settings
from ._errors import one_line_errors
from ._jax import set_up_jax
from ._options import Only, declared


class Inputs(StrEnum):
    raw = "raw"
    whitened = "whitened"


def _load(option: str, path: Path):
    """The arrays W1 ... WL of an .npz file."""
    import numpy as np

    from .._npz import read_npz

    arrays = read_npz(option, path)
    names = [f"W{i + 1}" for i in range(len(arrays))]
    if len(arrays) < 2 or set(arrays) != set(names):
        raise ValueError(
            f"`{option}` must hold the arrays W1 ... WL, L >= 2, got {', '.join(arrays) or 'none'}."
        )
    layers = [np.asarray(arrays[name]) for name in names]
    for name, layer in zip(names, layers, strict=True):
        if layer.ndim != 2 or layer.dtype.kind not in "iuf":
            raise ValueError(
                f"`{option}` must hold matrices (out, in) of numbers, got {name} of shape "
                f"{layer.shape} and dtype {layer.dtype}."
            )
    return tuple(layer.astype(np.float64 if layer.itemsize > 4 else np.float32) for layer in layers)


@declared
def certify(
    weights: Annotated[
        Path, typer.Argument(help="An .npz file of W1 ... WL, (out, in) each, no biases.")
    ],
    settings: Annotated[
        Settings,
        Only(("epsilon", "delta", "anchor_fraction", "split_seed"), required=("epsilon",)),
    ],
    data: DataSpec,
    inputs: Annotated[
        Inputs,
        typer.Option(help="What W1 acts on: the features (pooled pixels), or whitened inputs."),
    ] = Inputs.raw,
    anchor: Annotated[
        Path | None,
        typer.Option(
            help="An .npz file of a network of these shapes that was trained on the first part of "
            "the split alone (--anchor-fraction, --split-seed): the weights then pay for their "
            "distance from it only.",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")] = False,
) -> None:
    """A generalization bound for a network that was trained elsewhere, in any way."""
    import jax.numpy as jnp

    from .. import networks
    from .._files import plain
    from ..ladder import anchor_of
    from ..report import certify as make
    from ..report import declared_split
    from ..tasks import load_task

    set_up_jax()
    with one_line_errors():
        epsilon = jnp.asarray(settings.epsilon)

        def load(option: str, path: Path) -> networks.LeakyMLP:
            return networks.LeakyMLP(tuple(map(jnp.asarray, _load(option, path))), epsilon)

        net = load("weights", weights)
        known = None if anchor is None else load("anchor", anchor)
        task = load_task(data)
        with naming(net="weights"):  # it knows the files' matrices as networks
            if known is not None:
                split = declared_split(task, settings)
                whitened = split.anchor if inputs is Inputs.whitened else None
                with naming(net="anchor"):
                    known = anchor_of(split, known, task=whitened)
            kind = inputs.value
            certificate = make(net, task, delta=settings.delta, inputs=kind, anchor=known)
    if as_json:
        keys = ("train_risk", "test_risk", "held_out_trace", "delta")
        values = {"bounds": plain(certificate.rows), **{k: getattr(certificate, k) for k in keys}}
        typer.echo(json.dumps(values, allow_nan=False))
        return
    typer.echo(f"{task.name}: m = {task.num_samples}, d = {task.rank}")
    test = certificate.test_risk
    known = "no test data" if test is None else f"true test error {test:.4f}"
    typer.echo(f"train error {certificate.train_risk:.4f}, {known}")
    for bound, row in zip(certificate.bounds, certificate.rows, strict=True):
        vacuous = "" if row["value"] < 0.5 else " (not below a random guess)"
        typer.echo(
            f"{row['bound']}: test error <= {row['value']:.4f}{vacuous} with probability "
            f"{1 - settings.delta:g}"
        )
        typer.echo(
            f"  = {bound.measures} {row['train_term']:.4f} + complexity {row['complexity']:.4f} "
            f"+ rest {row['rest']:.4f}; assumes: {', '.join(row['assumes'])}"
        )
    if certificate.held_out_trace is not None:
        typer.echo(
            f"mean |x|^2 of the whitened test inputs: {certificate.held_out_trace:.2f} "
            f"(the plug-in takes it to be {task.rank})"
        )
