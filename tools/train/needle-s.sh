#!/bin/sh
# Trains models/needle-s.gguf and, with --s2, its twin models/needle-s2.gguf, in stages. Both begin with the same 42M tokens at
# short lengths and full attention, from scratch. Then each goes on alone, in full or under the S2 mask: tokens at 1024 to
# 32768; the second look-up layer, which has come to do nothing, is replaced by a copy of the first (grow.py); and more tokens.
#     tools/train/needle-s.sh [--s2] [DIRECTORY]
# DIRECTORY (build/train) keeps a folder for each stage: checkpoint, tokenizer, log. A stage whose checkpoint is complete is not
# run again. On two cores with AMX the base takes an hour, the rest two hours on one core (the twin: three).
set -eu
here=$(cd "$(dirname "$0")" && pwd)
name=needle-s
if [ "${1:-}" = --s2 ]; then
    name=needle-s2
    shift
fi
dir=${1:-$here/../../build/train}
python=${PYTHON:-/usr/bin/python3}
"$python" -c 'import torch, sentencepiece' || {
    echo "needle-s.sh: wants PyTorch and SentencePiece (Debian: apt install python3-torch python3-sentencepiece)" >&2
    exit 1
}
export OMP_WAIT_POLICY=passive

# stage NAME FLAGS..: trains DIRECTORY/NAME, with the tokenizer of the base
stage() {
    to=$dir/$1
    shift
    mkdir -p "$to"
    ! [ -e "$to/done" ] || return 0
    if [ "$to" != "$dir/base" ]; then cp "$dir/base/tokenizer.model" "$to/"; fi
    { "$python" "$here/train.py" --out "$to" "$@" && touch "$to/done"; } | tee "$to/log"
    [ -e "$to/done" ]
}
# grow FROM TO: the copy of layer 2 in the place of layer 3
grow() { "$python" "$here/grow.py" "$dir/$1/model.pt" -o "$dir/$2.pt" --without 3 --twice 2; }
mixed="--mixed --variety-from 0 --stretch-from 0 --listing .04"
long="$mixed --lr .008 --adam-lr 1.5e-3
    --curriculum 1024:.1:16384,2048:.12:16384,4096:.3:16384,8192:.24:16384,16384:.18:16384,32768:.06:32768"
short="$mixed --lr .012 --adam-lr 2e-3 --curriculum 512:.1:8192,1024:.25:8192,2048:.25:8192,4096:.25:8192,8192:.15:8192"

stage base --seed 1 --tokens 42e6 --processes 2
# shellcheck disable=SC2086
if [ $name = needle-s ]; then
    stage long --init "$dir/base/model.pt" --seed 7 --tokens 12e6 $long
    grow long grown
    stage $name --init "$dir/grown.pt" --seed 9 --tokens 7e6 $long
else
    stage s2-long --init "$dir/base/model.pt" --seed 7 --tokens 16e6 --s2 32:4:2 $long
    stage s2-short --init "$dir/s2-long/model.pt" --seed 8 --tokens 8e6 --s2 32:4:2 $short
    grow s2-short s2-grown
    stage s2-more --init "$dir/s2-grown.pt" --seed 9 --tokens 16e6 --s2 32:4:2 $long
    stage $name --init "$dir/s2-more/model.pt" --seed 10 --tokens 9e6 --s2 32:4:2 $long
fi
"$python" "$here/export.py" "$dir/$name/model.pt" "$dir/base/tokenizer.model" "$here/../../models/$name.gguf" --name "$name" --type f16
echo "models/$name.gguf is new"
