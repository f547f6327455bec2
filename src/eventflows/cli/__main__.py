"""`python -m eventflows.cli`."""

import sys

from eventflows.cli import main

sys.exit(main())
