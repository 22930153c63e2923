"""`python -m jaxhpo` is the command `jaxhpo`."""

import sys

from jaxhpo.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
