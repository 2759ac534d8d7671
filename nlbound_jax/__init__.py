"""Generalization bounds for nearly-linear networks, held against the exact gradient flow.

The names in `__init__.pyi` are loaded on first use, so that `import nlbound_jax` costs nothing.
"""

import importlib.metadata

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
__version__ = importlib.metadata.version("nlbound_jax")
