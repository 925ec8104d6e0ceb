"""`python -m hybridpool`."""

import sys

from hybridpool._cli import main

if __name__ == "__main__":
    sys.exit(main())
