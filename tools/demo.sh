#!/bin/sh
# make demo: a short story, then one needle question over a long haystack, both by the model in models/.
set -eu
cd "$(dirname "$0")/.."
model=models/needle-proto.gguf
tokens=${1:-16000}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

echo "== A story by $model (1.4M parameters, trained by us)"
printf 'Once upon a time'
./run $model -p 'Once upon a time' -n 110 --temp 0.6 -s 3 -q
echo; echo
echo "== A needle question: one fact at 20 % of $tokens tokens of stories, four distractors, full attention"
./bin/haystack $model -n "$tokens" --depth 20 -s 3 --answer "$work/answer" >"$work/text" 2>"$work/planted"
echo "planted $(cat "$work/planted")"
grep -o 'Question: .*' "$work/text"
./run $model -f "$work/text" -n 10 --temp 0 >"$work/said" 2>"$work/log"
sed 's/\. .*/./' "$work/said"; echo
tail -n 1 "$work/log"
if grep -qF "$(cat "$work/answer")" "$work/said"; then echo "found"; else echo "lost: wanted $(cat "$work/answer")"; exit 1; fi
