#!/bin/sh
# Make an environment of its own for a converter that needs other versions than Quartet:
#   tools/converter_env.sh litert-torch    PyTorch -> .tflite (lesson 31)
#   tools/converter_env.sh tensorflowjs    Keras 2 and SavedModels -> TensorFlow.js (lesson 32)
# It lies in .quartet/converters/ and takes some GB; delete the folder to be rid of it.
set -eu
cd "$(dirname "$0")/.."
case "${1:-}" in
    litert-torch) packages="torch==2.13.0 litert-torch==0.10.0" ;;
    tensorflowjs) packages="tensorflowjs==4.22.0 ydf<0.12 setuptools<81" ;;
    *)
        sed -n '2,4s/^# *//p' "$0" >&2
        exit 2
        ;;
esac
place=".quartet/converters/$1"
"${PYTHON:-python3}" -m venv --clear "$place"
# shellcheck disable=SC2086
"$place/bin/pip" install --quiet --disable-pip-version-check $packages
echo "Made: $place/bin/python"
