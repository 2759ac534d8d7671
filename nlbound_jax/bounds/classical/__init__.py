"""Classical generalization bounds for the same network, each with all its constants."""

from ._bound import START as START
from ._bound import ClassicalBound as ClassicalBound
from ._counting import counting as counting
from ._frobenius import frobenius as frobenius
from ._front import all_bounds as all_bounds
from ._pac_bayes_gaussian import pac_bayes_gaussian as pac_bayes_gaussian
from ._pac_bayes_spectral import pac_bayes_spectral as pac_bayes_spectral
from ._path_norm import path_norm as path_norm
from ._spectral import spectral as spectral
from ._vc import vc as vc
