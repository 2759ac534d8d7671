"""A task and settings become a trained network, a ladder of bounds, a table and a picture."""

from .._files import prepare_folder as prepare_folder
from ._certify import Certificate as Certificate
from ._certify import certify as certify
from ._compare import Comparison as Comparison
from ._compare import compare as compare
from ._compare_plot import plot_comparison as plot_comparison
from ._compare_table import comparison_table as comparison_table
from ._compare_table import save_comparison as save_comparison
from ._files import save as save
from ._plot import plot as plot
from ._report import Report as Report
from ._report import report as report
from ._runs import SavedRun as SavedRun
from ._runs import load_run as load_run
from ._runs import save_run as save_run
from ._seeds import report_seeds as report_seeds
from ._seeds import spread as spread
from ._seeds import spread_table as spread_table
from ._settings import Settings as Settings
from ._table import table as table
