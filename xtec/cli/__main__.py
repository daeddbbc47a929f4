"""``python -m xtec.cli``."""

import sys

from xtec.cli import main

if __name__ == "__main__":
    sys.exit(main())
