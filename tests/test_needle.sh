# bin/needle on the embedded model and on the constructed one: rows, resuming, shards, pictures, errors. TAP output.
set -u
B=${1:-build/release}
model=models/needle-proto.gguf
needle=$B/tools/needle
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
n=0
report() { n=$((n + 1)); if [ "$1" -eq 0 ]; then echo "ok $n - $2"; else echo "not ok $n - $2"; sed 's/^/# /' "$work/out" "$work/err" 2>/dev/null | head -n 8; fi; }
check() { name=$1 want=$2; shift 2; "$@" >"$work/out" 2>"$work/err" </dev/null; rc=$?; [ $rc -eq "$want" ]; report $? "$name (exit $rc, wanted $want)"; }
refuse() {
    name=$1 want=$2 words=$3; shift 3
    "$@" >"$work/out" 2>"$work/err" </dev/null; rc=$?
    [ $rc -eq "$want" ] && [ ! -s "$work/out" ] && [ "$(wc -l <"$work/err")" -eq 1 ] && grep -qF -- "$words" "$work/err"
    report $? "$name (exit $rc, wanted $want, '$words')"
}
# What a cell says apart from the clock and from how much it could reuse, sorted.
cells() {
    sed -E 's/"(test_duration_seconds|test_timestamp_utc|prefill_tps|decode_tps|prefill_keys_read_per_token|prefill_tokens)":("[^"]*"|[^,}]*),//g' "$@" | sort
}
rows() { cat "$@" | wc -l; }
is_png() { [ "$(head -c 8 "$1" | od -An -tx1 | tr -d ' \n')" = 89504e470d0a1a0a ]; }
sweep="$needle $model --lengths 512,1k --depths 0,50,100 -n 12"

check "a sweep" 0 $sweep -o "$work/a.jsonl"
[ "$(rows "$work/a.jsonl")" -eq 6 ]; report $? "one row a cell"
for key in model context_length depth_percent version needle model_response score test_duration_seconds test_timestamp_utc \
           attn attn_params kv_bytes prefill_tps decode_tps keys_read_per_token type_k type_v seed; do
    [ "$(grep -c "\"$key\":" "$work/a.jsonl")" -eq 6 ]; report $? "every row has $key"
done
[ "$(wc -l <"$work/out")" -eq 4 ] && [ "$(grep -c '^| needle-proto | story-d4-n12 | full |  *F16 ' "$work/out")" -eq 2 ]; report $? "stdout is the table"
[ "$(grep -c '| 3 | 1.000 |' "$work/out")" -eq 2 ]; report $? "the embedded model finds all of them"
[ "$(grep -c '"context_length":512,.*"prompt_tokens":500,.*"predicted_tokens":12' "$work/a.jsonl")" -eq 3 ]; report $? "prompt and answer together have the length of the context"
[ "$(grep -c 'tokens new' "$work/err")" -eq 6 ]; report $? "a line on stderr for each cell"
is_png "$work/a.png"; report $? "a heat map beside the rows"
grep -q '"depth_percent":100,.*"prefill_tokens":[1-4][0-9][0-9],.*' "$work/a.jsonl"; report $? "what lies in front of the needle is reused"

cp "$work/a.jsonl" "$work/before"
check "the same command again" 0 $sweep -o "$work/a.jsonl"
grep -q '^0 cells run' "$work/err" && cmp -s "$work/before" "$work/a.jsonl"; report $? "nothing is run twice"
head -c -100 "$work/before" >"$work/cut.jsonl"
check "a line cut short" 0 $sweep -o "$work/cut.jsonl"
grep -q '^1 cells run' "$work/err" && cells "$work/before" >"$work/x" && cells "$work/cut.jsonl" >"$work/y" && cmp -s "$work/x" "$work/y"; report $? "the cell cut short, and no other, is run again"
head -c -1 "$work/before" >"$work/cut.jsonl"
check "only the newline is missing" 0 $sweep -o "$work/cut.jsonl"
cmp -s "$work/before" "$work/cut.jsonl"; report $? "it is put back"
check "without reuse" 0 $sweep --no-reuse -q --no-png -o "$work/fresh.jsonl"
[ ! -s "$work/err" ] && [ ! -e "$work/fresh.png" ]; report $? "-q says nothing, --no-png draws nothing"
! grep -q '"prompt_tokens":500,"prefill_tokens":[^5]' "$work/fresh.jsonl"; report $? "--no-reuse evaluates whole prompts"
cells "$work/fresh.jsonl" >"$work/y"; cmp -s "$work/x" "$work/y"; report $? "the same answers with and without reuse"
check "more depths" 0 $sweep --depths 0:100:25 -o "$work/a.jsonl"
grep -q '^4 cells run' "$work/err"; report $? "a finer grid runs the new cells only"
check "another cache type" 0 $sweep -ctk q8_0 -ctv q8_0 -o "$work/a.jsonl"
grep -q '^6 cells run' "$work/err" && is_png "$work/a.full-F16.png" && is_png "$work/a.full-Q8_0.png"; report $? "another grid: side by side, and each alone"
check "--attn twice" 0 $sweep --lengths 512 --attn full --attn full -o "$work/b.jsonl"
grep -q '^3 cells run' "$work/err"; report $? "the same mode twice is one grid"
check "trials" 0 $sweep --lengths 512 --depths 50 --trials 3 -s 5 -o "$work/t.jsonl"
[ "$(grep -o '"needle":"[^"]*"' "$work/t.jsonl" | sort -u | wc -l)" -eq 3 ] && grep -q '"seed":7,' "$work/t.jsonl"; report $? "each trial hides another needle"
grep -q '| 3 | 1.000 |' "$work/out"; report $? "and they are averaged"

# Three parts at once, into three files and into one.
if command -v parallel >/dev/null 2>&1; then
    parallel -j 2 "$sweep --shard {}/3 -q -o $work/shard{}.jsonl >/dev/null" ::: 1 2 3 >"$work/out" 2>"$work/err"; rc=$?
else
    for i in 1 2 3; do $sweep --shard $i/3 -q -o "$work/shard$i.jsonl" >/dev/null & done; wait; rc=0
fi
report $rc "three shards"
[ "$(rows "$work/shard1.jsonl")" -eq 2 ] && [ "$(rows "$work/shard2.jsonl")" -eq 2 ]; report $? "each runs every third cell"
cells "$work"/shard?.jsonl >"$work/y"; cmp -s "$work/x" "$work/y"; report $? "together they are the sweep"
for i in 1 2 3; do $sweep --shard $i/3 -q --no-png -o "$work/shared.jsonl" >/dev/null & done; wait
cells "$work/shared.jsonl" >"$work/y"; cmp -s "$work/x" "$work/y"; report $? "shards may share a file"
check "drawing alone" 0 "$needle" --plot-only "$work"/shard?.jsonl --png "$work/p.png"
is_png "$work/p.png" && [ "$(grep -c '| 3 | 1.000 |' "$work/out")" -eq 2 ]; report $? "--plot-only joins several files"

printf 'The sea was calm. Nobody spoke for a long while! Was it late?\n\nThe lamp went out.\n' >"$work/hay"
check "a text and a needle of one's own" 0 "$needle" $model --lengths 300 --depths 50 -n 12 --haystack "$work/hay" -o "$work/own.jsonl" \
    --needle "The secret code of the mill is 7391 red kettle." --question "Question: What is the secret code of the mill? Answer:" \
    --answer "7391 RED kettle" --answer "no such words"
grep -q '"version":"custom-d0-n12-[0-9a-f]\{8\}"' "$work/own.jsonl" && grep -q '"score":0.5,' "$work/own.jsonl"; report $? "half of the reference strings is half a point"
check "RULER's manner" 0 "$needle" $model --lengths 300 --depths 50 --style ruler --haystack "$work/hay" -o "$work/own.jsonl"
grep -q '"version":"ruler-d4-n32-[0-9a-f]\{8\}","needle":"The access number of' "$work/own.jsonl"; report $? "a key and a number"
check "the constructed model" 0 "$B/tools/synth" "$work/ind.gguf" --shape induction --type F16
check "copies" 0 "$needle" "$work/ind.gguf" --lengths 512,2k --depths 0:100:50 -o "$work/ind.jsonl"
[ "$(grep -c '| ind | copy-d4-n32 | .* | 3 | 1.000 |' "$work/out")" -eq 2 ]; report $? "the constructed model finds all of them"

# Every task in one file: a row-set each, resumed like any other, the same with reuse and without.
tasks="$needle $model --task story,single,multikey,multivalue,hop,chain,count,words --lengths 1k --depths 0,60 -n 8"
check "all tasks, two cache types" 0 $tasks --kv f16,q8_0/q4_0 --table pivot -o "$work/tasks.jsonl"
[ "$(rows "$work/tasks.jsonl")" -eq 32 ] && [ "$(wc -l <"$work/out")" -eq 4 ]; report $? "a row a cell, a line a cache"
grep -q '^| attn | KV | story 1k | single 1k | multikey 1k | multivalue 1k | hop 1k | chain 1k | count 1k | words 1k |$' "$work/out"; report $? "a column a task"
grep -q '^| full | Q8_0/Q4_0 | 1.00 |' "$work/out"; report $? "the embedded model knows stories"
is_png "$work/tasks.hop.full-F16.png" && is_png "$work/tasks.multikey.full-Q8_0-Q4_0.png"; report $? "a heat map a task"
grep -q '"version":"multikey-d16-n8",' "$work/tasks.jsonl" && grep -q '"version":"hop-d4-n8",' "$work/tasks.jsonl"; report $? "each task is a test"
check "the same tasks again, with another" 0 $tasks --task hop,ruler,count -o "$work/tasks.jsonl"
grep -q '^2 cells run' "$work/err"; report $? "only the new task is run"
check "tasks without reuse" 0 $tasks --no-reuse --no-png -q -o "$work/tasks2.jsonl"
grep '"type_k":"F16"' "$work/tasks.jsonl" | grep -v '"version":"ruler' >"$work/tasks1.jsonl"
cells "$work/tasks1.jsonl" >"$work/x2"; cells "$work/tasks2.jsonl" >"$work/y"; cmp -s "$work/x2" "$work/y"; report $? "the same answers"
for i in 1 2 3; do $tasks --shard $i/3 -q --no-png -o "$work/tasks3.jsonl" >/dev/null || break; done
cells "$work/tasks3.jsonl" >"$work/y"; cmp -s "$work/x2" "$work/y"; report $? "shards of tasks are the sweep"
check "one table by tasks" 0 "$needle" --plot-only "$work/tasks1.jsonl" --table tasks
grep -q '^| full | F16 | 1.00 |' "$work/out" && grep -q '^| attn | KV | story | single |' "$work/out"; report $? "columns are tasks"

$sweep --lengths 4k --depths 0:100:10 --no-reuse -q -o "$work/killed.jsonl" >/dev/null 2>&1 & pid=$!
while kill -0 $pid 2>/dev/null && [ ! -s "$work/killed.jsonl" ]; do sleep 0.02; done
kill -KILL $pid 2>/dev/null; wait $pid 2>/dev/null
check "after a kill" 0 $sweep --lengths 4k --depths 0:100:10 -o "$work/killed.jsonl"
[ "$(rows "$work/killed.jsonl")" -eq 11 ] && ! grep -q '^11 cells run' "$work/err"; report $? "the rest is run, what there was is kept"
setsid sh -c "exec $sweep --lengths 8k --depths 0:100:1 --no-reuse -q -o '$work/int.jsonl' >'$work/out' 2>'$work/err'" & pid=$!
while kill -0 $pid 2>/dev/null && [ ! -s "$work/int.jsonl" ]; do sleep 0.02; done
kill -INT $pid; wait $pid; rc=$?
[ $rc -eq 130 ] && [ "$(tail -c 2 "$work/int.jsonl")" = "}" ] && grep -q interrupted "$work/err"; report $? "Ctrl-C leaves whole rows (exit $rc)"

check "--help" 0 "$needle" --help
[ "$(wc -l <"$work/out")" -lt 80 ] && [ ! -s "$work/err" ]; report $? "help is under 80 lines, on stdout"
check "--attn help" 0 "$needle" --attn help
grep -q '^full' "$work/out"; report $? "--attn help lists full"
none=no-such.gguf
refuse "no model" 2 "no MODEL given" "$needle"
refuse "unknown mode" 2 "full" "$needle" $none --attn full --attn nope
refuse "unknown flag" 2 "unknown flag" "$needle" $none --frob
refuse "a bad length" 2 "--lengths" "$needle" $none --lengths 1k,many
refuse "a length shorter than the answer" 2 "--lengths: got 32" "$needle" $none --lengths 32
refuse "a depth beyond the end" 2 "--depths" "$needle" $none --depths 0:110:10
refuse "a bad shard" 2 "--shard: got '3/2'" "$needle" $none --shard 3/2
refuse "a needle without a question" 2 "go together" "$needle" $none --needle x --answer x
refuse "an unknown style" 2 "wanted some of story, ruler, copy, single" "$needle" $none --style odd
refuse "an unknown task" 2 "--task: got ''" "$needle" $none --task hop,
refuse "two ways to name cache types" 2 "--kv and -ctk" "$needle" $none --kv f16 -ctv q8_0
refuse "a bad cache type in a list" 2 "--kv: got 'q3'" "$needle" $none --kv f16,q8_0/q3
refuse "an unknown table" 2 "full, lengths, tasks or pivot" "$needle" $none --table wide
refuse "tasks and a needle" 2 "--task and --needle" "$needle" $none --task hop --needle x --question y --answer z
refuse "a bad cache type" 2 "wanted f32" "$needle" $none -ctk q3
refuse "nothing to draw" 2 "no file of rows" "$needle" --plot-only
refuse "missing model" 1 "No such file" "$needle" $none
refuse "missing haystack" 1 "No such file" "$needle" $model --haystack "$work/none"
refuse "a context too short for the test" 1 "does not hold" "$needle" $model --lengths 64
cp "$work/hay" "$work/hay.before"
refuse "rows that are none" 1 "hay:1" "$needle" $model -o "$work/hay"
cmp -s "$work/hay" "$work/hay.before"; report $? "a file that is not ours is left alone"
refuse "a folder for output" 1 "directory" "$needle" $model -o "$work"
refuse "drawing what is not there" 1 "No such file" "$needle" --plot-only "$work/none.jsonl"
if [ -w /dev/full ]; then "$needle" --plot-only "$work/a.jsonl" >/dev/full 2>"$work/err"; [ $? -eq 1 ] && grep -q stdout "$work/err"; report $? "full disk: exit 1"; fi
echo "1..$n"
