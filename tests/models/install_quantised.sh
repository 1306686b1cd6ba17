#!/usr/bin/env bash
# Makes .venv-quantised: the two libraries of the extra `quantised`, laid over the project's environment, which has neither.
set -euo pipefail
cd "$(dirname "$0")/../.."

environment=.venv-quantised
below=${VENV:-.venv}
stamp=$environment/.installed
[[ $stamp -nt tests/models/install_quantised.sh && $stamp -nt locked/quantised.txt ]] && exit 0

rm -rf "$environment"
"$below/bin/python" -m venv --without-pip "$environment"
purelib() { "$1/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))'; }
"$below/bin/python" -m pip --python "$environment/bin/python" install --quiet --disable-pip-version-check --no-deps --require-hashes -r locked/quantised.txt
purelib "$below" > "$(purelib "$environment")/zz-below.pth"
touch "$stamp"
