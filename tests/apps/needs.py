"""An app that needs a package which is not installed."""

import nosuchpackage  # type: ignore[import-not-found]

app = nosuchpackage.app
