"""A fat app, of about 70 MB: numpy and pandas, or as many objects if they are not installed."""

import importlib

BALLAST: object
try:
    BALLAST = [importlib.import_module("numpy"), importlib.import_module("pandas")]
except ImportError:
    BALLAST = [[number] for number in range(700_000)]
