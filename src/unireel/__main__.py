"""``python -m unireel`` is ``unireel``."""

import sys

from unireel.cli.main import main

sys.exit(main())
