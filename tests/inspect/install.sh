#!/usr/bin/env bash
# Makes .venv-inspect: Inspect laid over the project's environment, of which it lowers python-dateutil and fsspec. What
# is not here is found there, torch among it. The project itself is installed here, since Inspect looks for its entry point.
set -euo pipefail
cd "$(dirname "$0")/../.."

environment=.venv-inspect
stamp=$environment/.installed
[[ $stamp -nt tests/inspect/install.sh && $stamp -nt tests/laid_over.sh && $stamp -nt locked/inspect.txt && $stamp -nt pyproject.toml ]] && exit 0

source tests/laid_over.sh
fresh
install --require-hashes -r locked/inspect.txt
lay_over
install --no-build-isolation -e .
touch "$stamp"
