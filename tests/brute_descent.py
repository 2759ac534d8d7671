"""Leaky networks trained by finite steps in NumPy, many of one shape at once: what the envelope of
gradient descent is held against. No code of the library."""

import numpy as np

KINDS = ("default", "rank-one", "positive")


def whiten(x):
    """Inputs (m, d) with the second moment I."""
    u, _, vt = np.linalg.svd(x, full_matrices=False)
    return np.sqrt(len(x)) * u @ vt


def problem(rng, shape, *, raw, epsilon=None):
    """Inputs (d, m), labels (K, m), weights and epsilon."""
    depth, outputs, d, width, m = shape
    x = rng.normal(size=(m, d)) * 10 ** rng.uniform(-1, 0.5, size=d) + raw * rng.normal(size=d)
    if rng.uniform() < 0.3:
        x = np.sign(x) + 1e-3 * x  # many kinks at once
    x = x * rng.uniform(0.3, 1.5) if raw else whiten(x)
    if raw and rng.uniform() < 0.2 and d > 1:
        x[:, -1] = x[:, 0]  # not of full rank
    score = rng.normal(size=(m, outputs)) + rng.choice([0, 3]) * x[:, :1]
    if rng.uniform() < 0.25:
        score = np.ones_like(score)
    y = np.where(score > 0, 1.0, -1.0)
    sizes = [d] + [width] * (depth - 1) + [outputs]
    scale, kind = 10 ** rng.uniform(-2, 0.2), rng.integers(3)
    weights = []
    for fan_in, fan_out in zip(sizes[:-1], sizes[1:], strict=True):
        w = rng.normal(size=(fan_out, fan_in))
        w = np.abs(w) if KINDS[kind] == "positive" else w
        w = w[:, :1] * w[:1] if KINDS[kind] == "rank-one" else w
        weights.append(scale * w / np.linalg.norm(w, 2))
    if epsilon is None:
        epsilon = rng.choice([0.01, 0.1, 0.5, 1.0, rng.uniform()])
    return tuple(weights), float(epsilon), x.T, y.T


def batch(rng, count, shape, **options):
    """Many problems of one shape, stacked."""
    found = [problem(rng, shape, **options) for _ in range(count)]
    weights = tuple(np.stack(w) for w in zip(*(f[0] for f in found), strict=True))
    return weights, *(np.stack([f[i] for f in found]) for i in (1, 2, 3))


def error_and_gradient(weights, epsilon, x, y, rng=None):
    """y - f(x), and the negative gradient of its mean square over 2 with any slope in
    [1 - epsilon, 1] at a pre-activation of 0; the first axis of everything is the batch."""
    eps = np.asarray(epsilon)[:, None, None]
    slopes, hidden = [], [x]
    for w in weights[:-1]:
        z = w @ hidden[-1]
        free = 1.0 if rng is None else 1 - eps * rng.uniform(size=z.shape)
        slopes.append(np.where(z > 0, 1.0, np.where(z < 0, 1 - eps, free)))
        hidden.append(slopes[-1] * z)
    error = y - weights[-1] @ hidden[-1]
    back, found = error, []
    for level in range(len(weights) - 1, -1, -1):
        found.append(back @ np.swapaxes(hidden[level], 1, 2) / x.shape[2])
        if level:
            back = slopes[level - 1] * (np.swapaxes(weights[level], 1, 2) @ back)
    return error, tuple(found[::-1])


def rms(error):
    """The root mean square over samples."""
    return np.sqrt((error**2).sum(axis=(1, 2)) / error.shape[2])


def train(weights, gradient, etas, *, momentum=0.0, nesterov=False, dampening=0.0, decay=0.0):
    """The weights after every step; `gradient` is the negative one of all layers, `etas` of shape
    (steps, batch). As torch.optim.SGD says."""
    out, buffers = [], None
    for eta in etas:
        eta = np.asarray(eta)[:, None, None]
        moves = [g - decay * w for g, w in zip(gradient(weights), weights, strict=True)]
        if momentum:
            if buffers is None:
                buffers = moves
            else:
                pairs = zip(buffers, moves, strict=True)
                buffers = [momentum * b + (1 - dampening) * g for b, g in pairs]
            if nesterov:
                moves = [g + momentum * b for g, b in zip(moves, buffers, strict=True)]
            else:
                moves = buffers
        weights = tuple(w + eta * g for w, g in zip(weights, moves, strict=True))
        out.append(weights)
    return out


def distance(w, v):
    """The Frobenius norm of the difference, over a batch."""
    return np.sqrt(((np.asarray(w) - np.asarray(v)) ** 2).sum(axis=(-2, -1)))


def square_root(moment):
    """The square root of symmetric matrices."""
    values, axes = np.linalg.eigh(moment)
    return (axes * np.sqrt(np.maximum(values, 0))[:, None, :]) @ np.swapaxes(axes, 1, 2)
