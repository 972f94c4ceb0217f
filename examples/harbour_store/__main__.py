"""Runs the demo against the Counterfoil that the environment names."""

import sys

from harbour_store.demo import main

sys.exit(main())
