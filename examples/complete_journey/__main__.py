"""Runs the demo against the Counterfoil that the environment names."""

import sys

from complete_journey.demo import main

sys.exit(main())
