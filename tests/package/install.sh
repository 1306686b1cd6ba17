#!/usr/bin/env bash
# Makes .venv-wheel: the wheel in dist/ and nothing of the checkout, laid over the project's environment for what it
# stands on, torch among it. That environment's own link to the checkout is not followed: it is a .pth, and no site of ours.
set -euo pipefail
cd "$(dirname "$0")/../.."

environment=.venv-wheel
below=${VENV:-.venv}

rm -rf "$environment"
"$below/bin/python" -m venv --without-pip "$environment"
purelib() { "$1/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))'; }
"$below/bin/python" -m pip --python "$environment/bin/python" install --quiet --disable-pip-version-check --no-deps --no-index dist/*.whl
purelib "$below" > "$(purelib "$environment")/zz-below.pth"
