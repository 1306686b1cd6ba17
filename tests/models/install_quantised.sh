#!/usr/bin/env bash
# Makes .venv-quantised: the two libraries of the extra `quantised`, laid over the project's environment, which has neither.
set -euo pipefail
cd "$(dirname "$0")/../.."

environment=.venv-quantised
stamp=$environment/.installed
[[ $stamp -nt tests/models/install_quantised.sh && $stamp -nt tests/laid_over.sh && $stamp -nt locked/quantised.txt ]] && exit 0

source tests/laid_over.sh
fresh
install --require-hashes -r locked/quantised.txt
lay_over
touch "$stamp"
