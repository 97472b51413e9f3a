"""``python -m erasediff`` is ``erasediff``."""

import sys

from erasediff.cli import main

sys.exit(main())
