"""``python -m qanat`` is the ``qanat`` command."""

import sys

from qanat.cli.main import main

__all__: list[str] = []

if __name__ == "__main__":
    sys.exit(main())
