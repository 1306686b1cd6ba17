"""The command: see the package."""

from experiments.extraction import main

raise SystemExit(main())
