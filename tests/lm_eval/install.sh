#!/usr/bin/env bash
# Makes .venv-lm-eval: lm-eval laid over the project's environment, of which it lowers python-dateutil. What is not here
# is found there, torch among it.
set -euo pipefail
cd "$(dirname "$0")/../.."

environment=.venv-lm-eval
below=${VENV:-.venv}
stamp=$environment/.installed
[[ $stamp -nt tests/lm_eval/install.sh && $stamp -nt locked/lm_eval.txt ]] && exit 0

rm -rf "$environment"
"${PYTHON:-python3}" -m venv "$environment"
purelib() { "$1/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))'; }
purelib "$below" > "$(purelib "$environment")/zz-below.pth"
"$environment/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r locked/lm_eval.txt
touch "$stamp"
