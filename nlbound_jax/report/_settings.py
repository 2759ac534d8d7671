"""What a report is made with."""

from .._settings import Settings as Settings
