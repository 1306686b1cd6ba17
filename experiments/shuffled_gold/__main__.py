"""The command: see the package."""

from experiments.shuffled_gold import main

raise SystemExit(main())
