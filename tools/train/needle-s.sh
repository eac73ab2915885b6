#!/bin/sh
# Trains models/needle-s.gguf and, with --s2, its twin models/needle-s2.gguf: the same recipe under the S2 mask.
# About an hour on one core with AMX, each. The directory (build/train) keeps checkpoints and tokenizer.
#     tools/train/needle-s.sh [--s2] [DIRECTORY]
set -eu
here=$(cd "$(dirname "$0")" && pwd)
name=needle-s
mask=
if [ "${1:-}" = --s2 ]; then
    name=needle-s2
    mask="--s2 32:4:2"
    shift
fi
dir=${1:-$here/../../build/train}
python=${PYTHON:-/usr/bin/python3}
mkdir -p "$dir/$name"
"$python" -c 'import torch, sentencepiece' || {
    echo "needle-s.sh: wants PyTorch and SentencePiece (Debian: apt install python3-torch python3-sentencepiece)" >&2
    exit 1
}
export OMP_WAIT_POLICY=passive
# shellcheck disable=SC2086
"$python" "$here/train.py" --out "$dir/$name" --tokens 20e6 --seed 1 $mask | tee "$dir/$name/log"
"$python" "$here/export.py" "$dir/$name/model.pt" "$dir/$name/tokenizer.model" "$here/../../models/$name.gguf" --name "$name" --type f16
echo "models/$name.gguf is new"
