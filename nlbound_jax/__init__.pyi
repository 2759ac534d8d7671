from . import bounds as bounds
from . import checks as checks
from . import dynamics as dynamics
from . import figures as figures
from . import ladder as ladder
from . import networks as networks
from . import tasks as tasks
from ._citation import citation as citation
from ._results import RESULTS as RESULTS
from .report import Certificate as Certificate
from .report import ClassCertificate as ClassCertificate
from .report import ModuleCertificate as ModuleCertificate
from .report import Report as Report
from .report import Settings as Settings
from .report import certify as certify
from .report import certify_classes as certify_classes
from .report import certify_module as certify_module
from .report import report as report
from .sweep import sweep as sweep

__version__: str
