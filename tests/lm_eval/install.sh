#!/usr/bin/env bash
# Makes .venv-lm-eval: lm-eval laid over the project's environment, of which it lowers python-dateutil. What is not here
# is found there, torch among it.
set -euo pipefail
cd "$(dirname "$0")/../.."

environment=.venv-lm-eval
stamp=$environment/.installed
[[ $stamp -nt tests/lm_eval/install.sh && $stamp -nt tests/laid_over.sh && $stamp -nt locked/lm_eval.txt ]] && exit 0

source tests/laid_over.sh
fresh
install --require-hashes -r locked/lm_eval.txt
lay_over
touch "$stamp"
