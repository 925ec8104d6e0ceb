"""Preloaded where children shall not have cloudpickle."""

import sys

sys.modules["cloudpickle"] = None  # type: ignore[assignment]  # so that importing it fails
