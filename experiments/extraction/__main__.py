"""The command: see the package."""

from experiments.command import called
from experiments.extraction import main

raise SystemExit(called("extraction", main))
