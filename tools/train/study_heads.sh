#!/bin/sh
# study_heads.sh - which heads of a trained model fetch, by every way we know, and what the ways agree on: Markdown on stdout.
#
#     make && sh tools/train/study_heads.sh RUN/model.pt MODEL.gguf OUT > study.md
#
# RUN holds model.pt and tokenizer.model of train.py, MODEL.gguf is the same model exported. OUT gets the files of scores; those
# that are there already are kept. Environment: SINK and RECENT (16 and 128), what narrowed heads see; SHORT and LONG (1k and
# 16k), lengths of bin/heads; STEPS (300) of the gates; THREADS (1); PYTHON (/usr/bin/python3, the one that has torch).
set -eu
[ $# = 3 ] || { sed -n '2,8s/^# \{0,1\}//p' "$0" >&2; exit 2; }
checkpoint=$1 model=$2 out=$3
sink=${SINK:-16} recent=${RECENT:-128} short=${SHORT:-1k} long=${LONG:-16k} steps=${STEPS:-300} threads=${THREADS:-1}
python=${PYTHON:-/usr/bin/python3}
here=$(dirname "$0")
heads=$here/../../bin/heads
export OMP_WAIT_POLICY=passive
mkdir -p "$out"

# Files appear under their name only when they are whole.
measure() {     # LENGTH SCORE
    [ -s "$out/$2-$1.tsv" ] && return
    echo "bin/heads: $2 at $1" >&2
    "$heads" "$model" --lengths "$1" --score "$2" --sink "$sink" --recent "$recent" -t "$threads" -q \
        --json "$out/copy-$1.json" --png "$out/$2-$1.png" -o "$out/new.tsv" >"$out/$2-$1.md"
    mv "$out/new.tsv" "$out/$2-$1.tsv"
}

learn() {       # NAME, flags
    name=$1
    shift
    [ -s "$out/$name.tsv" ] && return
    echo "gates.py: $name" >&2
    "$python" "$here/gates.py" "$checkpoint" --sink "$sink" --recent "$recent" --steps "$steps" --threads "$threads" "$@" \
        -o "$out/new.tsv" >"$out/$name.md"
    mv "$out/new.tsv" "$out/$name.tsv"
}

measure "$short" ablation
measure "$long" ablation
learn gates
learn gates-stretched --stretch

echo "## Agreement"
echo
"$python" "$here/compare_heads.py" "gates=$out/gates.tsv" "gates, stretched=$out/gates-stretched.tsv" \
    "ablation $short=$out/ablation-$short.tsv" "ablation $long=$out/ablation-$long.tsv" \
    "copy $short=$out/copy-$short.json" "copy $long=$out/copy-$long.json"
for name in gates gates-stretched; do
    printf '\n## %s\n\n' "$name"
    sed -n '/^Texts not seen/,$p' "$out/$name.md"
done
