#!/bin/sh
# Installs what an image needs, on Debian or Ubuntu with Python 3.11 to 3.13. Both recipes run it in a copy of the checkout.
set -eu
cd "$(dirname "$0")/../.."
PYTHON=${PYTHON:-python3}
"$PYTHON" -m pip install --no-cache-dir --constraint constraints.txt hatchling
"$PYTHON" -m pip install --no-cache-dir --constraint constraints.txt --no-build-isolation '.[annotations,plot]'
