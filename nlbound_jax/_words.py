"""Words that an argument may be; apart from `_types`, so that who reads them needs no JAX."""

from typing import Literal

# "printed" reproduces the paper's Theorem 5.2, "repaired" is what may be relied on.
Reading = Literal["printed", "repaired"]
InitKind = Literal["default", "rank-one"]
