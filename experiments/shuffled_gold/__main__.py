"""The command: see the package."""

from experiments.command import called
from experiments.shuffled_gold import main

raise SystemExit(called("shuffled_gold", main))
