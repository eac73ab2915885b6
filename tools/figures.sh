#!/bin/sh
# Remakes docs/figures/: the needle grid of every attention mode at two budgets on the embedded model, and its table.
# Rows that are there already are kept: delete docs/figures/needle.jsonl to measure anew. Some minutes on two cores.
set -eu
cd "$(dirname "$0")/.."
model=models/needle-proto.gguf
out=docs/figures
heads=models/needle-proto.heads.tsv
mkdir -p $out
set -- --attn full \
    --attn stream,sink=4,recent=1020 --attn stream,sink=4,recent=252 \
    --attn duo,heads=$heads,ratio=0.25,sink=16,recent=240 --attn duo,heads=$heads,ratio=0.125,sink=16,recent=240 \
    --attn hip,dense=3,k=512 --attn hip,dense=0,k=512 \
    --attn delta,full=0,1,2,budget=64 --attn delta,full=0,1,budget=64 \
    --attn s2,approx=1 --attn s2,approx=1,block=16,local=16,dense_first=1,dense_every=0 \
    --attn moa,beta=0.25
./bin/needle $model --lengths 1k,4k,16k --depths 0:100:25 --trials 2 -n 12 "$@" -o $out/needle.jsonl >$out/table.txt
{
    echo "# Needles found, by attention mode"
    echo
    echo "\`$model\` (4 layers; both KV heads of layer 2 retrieve), stories with one fact and four distractors, five depths,"
    echo "two seeds. Made by \`tools/figures.sh\` on $(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1), $(nproc) cores, $(date -u +%Y-%m-%d)."
    echo "Speeds were taken on a shared machine while other work ran: compare counts, not seconds."
    echo
    grep '^|' $out/table.txt
    echo
    echo "![scores by length and depth](needle.png)"
} >docs/figures/needle.md
rm $out/table.txt
echo "docs/figures/needle.md and needle.png are new"
