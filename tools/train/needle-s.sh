#!/bin/sh
# Trains models/needle-s.gguf and, with --s2, its twin models/needle-s2.gguf. Both begin with the same 42M tokens at short lengths and
# full attention, whose checkpoint is kept (an hour on two cores with AMX); then 17M tokens at 1024 to 32768, in full or under
# the S2 mask (two hours, or 80 minutes). The directory (build/train) keeps checkpoints, tokenizer and logs.
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
mkdir -p "$dir/base"
"$python" -c 'import torch, sentencepiece' || {
    echo "needle-s.sh: wants PyTorch and SentencePiece (Debian: apt install python3-torch python3-sentencepiece)" >&2
    exit 1
}
export OMP_WAIT_POLICY=passive
if ! [ -s "$dir/base.pt" ]; then
    "$python" "$here/train.py" --out "$dir/base" --tokens 42e6 --seed 1 --processes 2 | tee "$dir/base/log"
    mv "$dir/base/model.pt" "$dir/base.pt"
fi
mkdir -p "$dir/$name"
cp "$dir/base/tokenizer.model" "$dir/$name/"
# shellcheck disable=SC2086
"$python" "$here/train.py" --out "$dir/$name" --init "$dir/base.pt" --tokens 17e6 --seed 7 $mask --lr .008 --adam-lr 1.5e-3 \
    --mixed --curriculum 1024:.1:16384,2048:.12:16384,4096:.3:16384,8192:.22:16384,16384:.16:16384,32768:.1:32768 \
    --variety-from 0 --stretch-from 0 --listing .04 | tee "$dir/$name/log"
"$python" "$here/export.py" "$dir/$name/model.pt" "$dir/$name/tokenizer.model" "$here/../../models/$name.gguf" --name "$name" --type f16
echo "models/$name.gguf is new"
