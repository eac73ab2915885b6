# bin/heads on the constructed model, whose heads are known, and on the embedded one; what bin/needle makes of its scores;
# errors. TAP output.
set -u
B=${1:-build/release}
heads=$B/tools/heads
needle=$B/tools/needle
proto=models/needle-proto.gguf
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
n=0
report() { n=$((n + 1)); if [ "$1" -eq 0 ]; then echo "ok $n - $2"; else echo "not ok $n - $2"; sed 's/^/# /' "$work/out" "$work/err" 2>/dev/null | head -n 30; fi; }
check() { name=$1 want=$2; shift 2; "$@" >"$work/out" 2>"$work/err" </dev/null; rc=$?; [ $rc -eq "$want" ]; report $? "$name (exit $rc, wanted $want)"; }
refuse() {
    name=$1 want=$2 words=$3; shift 3
    "$@" -q >"$work/out" 2>"$work/err" </dev/null; rc=$?
    [ $rc -eq "$want" ] && [ ! -s "$work/out" ] && [ "$(wc -l <"$work/err")" -eq 1 ] && grep -qF -- "$words" "$work/err"
    report $? "$name (exit $rc, wanted $want, '$words')"
}
is_png() { [ "$(head -c 8 "$1" | od -An -tx1 | tr -d ' \n')" = 89504e470d0a1a0a ]; }
small="--lengths 512,700 --depths 20,50 --samples 1 --sink 16 --recent 64"

# The constructed model: 3 look-up layers, so layers 1 to 3 hold one retrieval head each, KV head 0.
model=$work/induction.gguf
"$B/tools/synth" "$model" --shape induction --lookups 3 --type F16 >/dev/null
check "the constructed model" 0 "$heads" "$model" $small -o "$work/a.tsv" --json "$work/a.json" --png "$work/a.png"
grep -q '^retrieval heads (copy score above 0.1): 3 of 8 KV heads: 1-0 2-0 3-0$' "$work/out"; report $? "exactly the heads that were built to look up"
grep -q '^| [123] | [123] | 0 | 1.000 |' "$work/out" && ! grep -q '^| [45678] | [0123] | [01] | 0.[0-9]*[1-9]' "$work/out"; report $? "they copy every token, the others none"
grep -q 'copy test and ablation: rank correlation .*, 3 of the first 3 the same$' "$work/out"; report $? "ablation finds the same"
grep -q '^copy test and local harm: rank correlation .*, 3 of the first 3 the same$' "$work/out" && grep -q '^local harm and ablation: rank correlation .*, 3 of the first 3 the same$' "$work/out"; report $? "and so does the local harm"
grep -Eq '^\| the retrieval heads \| ([0-9]+) of \1 \|' "$work/out"; report $? "they suffice"
grep -Eq '^\| all but the retrieval heads \| 0 of ' "$work/out"; report $? "without them all is lost"
[ "$(grep -c 'answer right' "$work/err")" -ge 4 ]; report $? "a line on stderr for each question"
[ "$(wc -l <"$work/a.tsv")" -eq 4 ] && [ "$(grep -cE '^[0-9]\.[0-9]{18}e[-+][0-9]{2}	[0-9]\.[0-9]{18}e[-+][0-9]{2}$' "$work/a.tsv")" -eq 4 ]; report $? "the TSV has a line per layer and a score per KV head"
[ "$(grep -o '"[0-9]-[0-9]": \[[01], [01], [01], [01]\]' "$work/a.json" | wc -l)" -eq 16 ]; report $? "the JSON has a list per query head and a score per run"
is_png "$work/a.png"; report $? "the picture"
for score in copy ablation local; do
    check "--score $score" 0 "$heads" "$model" $small --score $score -q -o "$work/$score.tsv"
    [ ! -s "$work/err" ]; report $? "-q says nothing"
done
check "the copy test alone" 0 "$heads" "$model" $small --no-ablation -o "$work/alone.tsv" --png "$work/b.png"
cmp -s "$work/copy.tsv" "$work/alone.tsv" && is_png "$work/b.png" && ! grep -q ablation "$work/out"; report $? "writes the same copy scores, says nothing of ablation"
check "the JSON is read back" 0 "$needle" "$model" --lengths 600 --depths 30 -n 12 --attn "duo,heads=$work/a.json,ratio=0.375,sink=16,recent=64"

# What the scores are for. 3 of 8 KV heads are 37.5 %.
search="--lengths 600,1k --depths 10,40,70 -n 12 -q"
check "duo with the heads found" 0 "$needle" "$model" $search --attn "duo,heads=$work/a.tsv,ratio=0.375,sink=16,recent=64"
[ "$(grep -c '| 3 | 1.000 |' "$work/out")" -eq 2 ]; report $? "finds every needle"
for lost in 2 3 4; do                                       # one look-up layer after the other streams, the local head beside it does not
    awk -v at=$lost 'BEGIN { FS = OFS = "\t" } NR == at { x = $1; $1 = $2; $2 = x } 1' "$work/a.tsv" >"$work/lost.tsv"
    check "duo with the head of layer $((lost - 1)) streaming" 0 "$needle" "$model" $search --trials 4 --attn "duo,heads=$work/lost.tsv,ratio=0.375,sink=16,recent=64"
    # What the other look-ups tell is enough for a rare fact: one of four at most.
    [ "$(grep -cE '\| 12 \| 0\.(0|1|250)[0-9]* \|' "$work/out")" -eq 2 ]; report $? "loses what lies outside the window"
done

check "the embedded model" 0 "$heads" $proto $small -o "$work/p.tsv"
[ "$(grep -cE '^\| [12] \| 2 \| [01] \|' "$work/out")" -eq 2 ]; report $? "both KV heads of layer 2 come first"
grep -q '2 of 8 KV heads: 2-0 2-1$' "$work/out"; report $? "and are its retrieval heads"
cp "$work/p.tsv" "$work/before"
check "the same with other threads and batches" 0 "$heads" $proto $small -t 1 -b 64 -q -o "$work/p.tsv"
cmp -s "$work/p.tsv" "$work/before"; report $? "the same bits"
check "duo with a quarter of its heads" 0 "$needle" $proto $search --attn "duo,heads=$work/p.tsv,ratio=0.25,sink=16,recent=64"
[ "$(grep -c '| 3 | 1.000 |' "$work/out")" -eq 2 ]; report $? "finds every needle too"

# Layers for delta. In the constructed model the look-ups of layers 1 to 3 find the same place: the list of the first of them
# serves the others, that of layer 0, which looks 4 tokens back, does not. In the embedded one layer 2 alone fetches.
lists="--lengths 700 --budget 16 --recent-pages 4"
check "delta's layers of the constructed model" 0 "$heads" "$model" --delta $lists --depths 20,50 -o "$work/setting" --png "$work/d.png"
[ "$(cat "$work/setting")" = "delta,full=0,1,budget=16,recent=4,sink=0" ] && grep -qxF -- "--attn $(cat "$work/setting")" "$work/out"; report $? "0 and the first look-up are full ($(cat "$work/setting"))"
grep -Eq '^\| 0 \| 0.000 \| 0.00e\+00 \| ' "$work/out" && grep -Eq '^\| 3 \| 0.500 \| .* \| list of 1 \| 1.000 \| 0.000 \|$' "$work/out"; report $? "half of the probability of a look-up layer is far, and the list holds it"
grep -Eq '^\| 2 \(chosen\) \| 0,1 \| 1.0000 \| ' "$work/out" && grep -Eq '^\| 1 \| 0 \| 0\.' "$work/out"; report $? "two full layers keep all, one does not"
grep -Eq '^\| delta \| ([0-9]+) of \1 \| -?0.000 \| ([0-9]+) of \2 \| ' "$work/out"; report $? "in use nothing is lost"
is_png "$work/d.png"; report $? "the picture of layers"
check "the setting in use" 0 "$needle" "$model" $search --trials 2 --attn "$(cat "$work/setting")"
[ "$(grep -c '| 6 | 1.000 |' "$work/out")" -eq 2 ]; report $? "finds every needle"
check "one full layer, as told" 0 "$heads" "$model" --delta $lists --depths 20,50 -q --full 1 -o "$work/setting"
[ "$(cat "$work/setting")" = "delta,full=0,budget=16,recent=4,sink=0" ] && ! grep -Eq '^\| delta \| ([0-9]+) of \1 \|' "$work/out"; report $? "loses the fact"
check "delta's layers of the embedded model" 0 "$heads" $proto --delta $lists --depths 20,50 --sink-pages 1 -q -o "$work/setting"
[ "$(cat "$work/setting")" = "delta,full=0,2,budget=16,recent=4,sink=1" ]; report $? "0 and 2 ($(cat "$work/setting"))"
grep -Eq '^\| delta \| ([0-9]+) of \1 \|' "$work/out"; report $? "and in use they are enough"
cp "$work/out" "$work/before"
check "the same with other threads and batches" 0 "$heads" $proto --delta $lists --depths 20,50 --sink-pages 1 -q -t 1 -b 64
cmp -s "$work/out" "$work/before"; report $? "says the same"
"$B/tools/haystack" $proto -n 1500 >"$work/text"
check "a text alone" 0 "$heads" $proto --delta $lists --no-questions --text "$work/text"
grep -q '0 of 0 questions answered, 2 stretches of text, 128 tokens in all' "$work/out" && [ "$(grep -c '^700 tokens of the text, its last 64: log-probability -' "$work/err")" -ge 2 ]; report $? "two stretches of it"
check "a text and questions" 0 "$heads" $proto --delta $lists --depths 50 --samples 1 --text "$work/text" -q
grep -q '1 of 1 questions answered, 1 stretches of text' "$work/out"; report $? "both are counted"

"$B/tools/synth" "$work/random.gguf" --shape smollm2-135m --layers 2 --vocab 1024 >/dev/null
refuse "a model that knows nothing" 1 "answers none of the" "$heads" "$work/random.gguf" --lengths 700 --depths 30 --samples 1 -o "$work/none.tsv"
[ ! -e "$work/none.tsv" ]; report $? "leaves no file"
refuse "nor about its layers" 1 "nothing can be said about layers" "$heads" "$work/random.gguf" --delta $lists --depths 30 --samples 1
refuse "no room beyond the window" 1 "at no length and depth" "$heads" $proto --lengths 256
refuse "too short for a needle" 1 "does not hold" "$heads" $proto --lengths 90
refuse "no model" 2 "no MODEL given" "$heads" -o "$work/x"
refuse "an unknown score" 2 "--score: got 'best'" "$heads" $proto --score best
refuse "a text without --delta" 2 "go with --delta" "$heads" $proto --text "$work/out"
refuse "lists without a choice" 2 "leave nothing to choose of --budget 12" "$heads" $proto --delta --budget 12 --recent-pages 12
refuse "contexts too short for lists" 2 "wanted more than 2048" "$heads" $proto --delta --lengths 2k
refuse "more full layers than layers" 1 "--full: got 5, the model has 4 layers" "$heads" $proto --delta $lists --depths 50 --samples 1 --full 5
refuse "a text that is not there" 1 "nowhere: No such file" "$heads" $proto --delta $lists --text "$work/nowhere"
refuse "neither questions nor text" 2 "wanted --text FILE" "$heads" $proto --delta --no-questions
refuse "nothing left to write" 2 "--no-ablation" "$heads" $proto --no-ablation --score ablation
refuse "an unknown style" 2 "--style: got" "$heads" $proto --style poem
refuse "a mode" 2 "--attn" "$heads" $proto --attn full
refuse "a small batch" 1 "a batch 4" "$heads" $proto -b 4 --lengths 700
for flag in -o --json --png; do
    refuse "a folder that is not there is noticed before the model is opened ($flag)" 1 "nowhere/x: No such file" "$heads" "$work/nomodel" $flag "$work/nowhere/x"
done
check "help" 0 "$heads" --help
grep -q 'usage: bin/heads' "$work/out" && grep -q -- '--recent N' "$work/out"; report $? "lists the flags"
echo "1..$n"
