#!/usr/bin/env bash
# Makes .venv-wheel: the wheel in dist/ and nothing of the checkout, laid over the project's environment for what it
# stands on, torch among it. That environment's own link to the checkout is not followed: it is a .pth, and no site of ours.
set -euo pipefail
cd "$(dirname "$0")/../.."

environment=.venv-wheel

source tests/laid_over.sh
fresh
install --no-index dist/*.whl
lay_over
