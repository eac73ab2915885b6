#!/bin/sh
# Remakes docs/figures/induction.md: needles in the constructed model, whose right answers are known beforehand.
#     [THREADS=2] tools/induction.sh          (about ten minutes on two cores; rows that are there already are kept)
set -eu
cd "$(dirname "$0")/.."
out=docs/figures
rows=$out/induction.jsonl
threads=${THREADS:-2}
work=build/induction
mkdir -p $work
model=$work/induction.gguf
./bin/synth "$model" --shape induction >/dev/null
printf '0\t0\n1\t0\n1\t0\n' >"$work/right.tsv"     # KV head 0 of layers 1 and 2 look up: so it was built
printf '0\t0\n1\t0\n0\t0\n' >"$work/one.tsv"
sweep() { ./bin/needle "$model" --depths 0:100:25 -n 12 -t "$threads" -q --no-png -o $rows "$@" >/dev/null; }
sweep --lengths 1k,4k,16k,64k --attn full
sweep --lengths 1k,4k,16k --attn stream,sink=4,recent=1020 --attn duo,heads="$work/right.tsv",ratio=0.34,sink=4,recent=252 \
    --attn duo,heads="$work/one.tsv",ratio=0.17,sink=4,recent=252 --attn delta,full=0,1,budget=64 --attn hip
./bin/needle --plot-only $rows --png $out/induction.png | sed "s|$work/||g" >"$work/table"
rm -f $out/induction.*-F16.png                     # the one picture holds them all
{
    echo "# Needles in the constructed model"
    echo
    echo "\`bin/synth --shape induction\`: KV head 0 of layers 1 and 2 copies what followed the last four tokens earlier in the text; no other"
    echo "head looks further than four tokens back. So full attention must find everything, \`duo\` with these two heads must, with one of"
    echo "them streaming it must not outside the window, \`stream\` must find what lies in its window alone."
    echo "Made by \`tools/induction.sh\` on $(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1), $(nproc) cores, $(date -u +%Y-%m-%d)."
    echo
    grep '^[|`-]' "$work/table"
    echo
    echo "![scores by length and depth](induction.png)"
} >$out/induction.md
echo "$out/induction.md and induction.png are new"
