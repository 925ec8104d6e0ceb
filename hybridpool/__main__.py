"""`python -m hybridpool`."""

import sys

from hybridpool.cli import main

if __name__ == "__main__":
    sys.exit(main())
