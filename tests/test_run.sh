# The command-line contract of ./run on the embedded model: streams, exit codes, one-line errors. TAP output.
set -u
B=${1:-build/release}
model=models/needle-proto.gguf
run=$B/run
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
n=0
report() { n=$((n + 1)); if [ "$1" -eq 0 ]; then echo "ok $n - $2"; else echo "not ok $n - $2"; sed 's/^/# /' "$work/out" "$work/err" 2>/dev/null | head -n 8; fi; }
# check NAME EXIT COMMAND...: the command exits so; its output lands in $work/out and $work/err
check() { name=$1 want=$2; shift 2; "$@" >"$work/out" 2>"$work/err" </dev/null; rc=$?; [ $rc -eq "$want" ]; report $? "$name (exit $rc, wanted $want)"; }
# refuse NAME EXIT WORDS COMMAND...: nothing on stdout, one line on stderr that holds WORDS
refuse() {
    name=$1 want=$2 words=$3; shift 3
    "$@" >"$work/out" 2>"$work/err" </dev/null; rc=$?
    [ $rc -eq "$want" ] && [ ! -s "$work/out" ] && tail -n 1 "$work/err" | grep -qF -- "$words"
    report $? "$name (exit $rc, wanted $want, '$words')"
}

check "a completion" 0 "$run" $model -p "Once upon a time" -n 20 --temp 0
grep -q '^ there was a' "$work/out"; report $? "stdout is the completion"
[ "$(wc -l <"$work/err")" -eq 3 ]; report $? "stderr has three lines"
cp "$work/out" "$work/first"
check "quiet" 0 "$run" -m $model -p "Once upon a time" -n 20 --temp 0 --log-disable --stats none
cmp -s "$work/first" "$work/out" && [ ! -s "$work/err" ]; report $? "--log-disable keeps the text, drops the rest"
check "one thread, other chunks" 0 "$run" $model -p "Once upon a time" -n 20 --temp 0 -t 1 -b 3
cmp -s "$work/first" "$work/out"; report $? "the same text for any -t and -b"
for k in scalar avx2; do
    "$run" --kernels $k $model --dry-run -p x >/dev/null 2>&1 || continue
    check "kernels $k" 0 "$run" $model -p "Once upon a time" -n 20 --temp 0 --kernels $k
    cmp -s "$work/first" "$work/out"; report $? "the same text with --kernels $k"
done
check "seed" 0 "$run" $model -p "Once" -n 30 --temp 1 -s 7
cp "$work/out" "$work/first"
check "seed again" 0 "$run" $model -p "Once" -n 30 --temp 1 -s 7
cmp -s "$work/first" "$work/out"; report $? "the same seed gives the same text"
check "another seed" 0 "$run" $model -p "Once" -n 30 --temp 1 -s 8
! cmp -s "$work/first" "$work/out"; report $? "another seed gives another text"

printf 'Once upon a time\n' >"$work/prompt"
check "-f" 0 "$run" $model -f "$work/prompt" -n 8 --temp 0
cp "$work/out" "$work/first"
"$run" $model - -n 8 --temp 0 <"$work/prompt" >"$work/out" 2>"$work/err"; cmp -s "$work/first" "$work/out"; report $? "standard input, one final newline dropped"
"$run" $model -n 8 --temp 0 <"$work/prompt" >"$work/out" 2>"$work/err"; cmp -s "$work/first" "$work/out"; report $? "a pipe without -"
check "no prompt at all" 0 "$run" $model -n 5
check "escapes" 0 "$run" $model -p 'a\n\x62' -n 0 --verbose-prompt
grep -q "<0x0A>" "$work/err"; report $? "a backslash n in -p is a newline"

check "stats as JSON" 0 "$run" $model -p "Once upon a time" -n 9 --temp 0 --stats json -q
for key in prompt_n prompt_ms prompt_per_second predicted_n predicted_ms predicted_per_second kv_bytes peak_rss_bytes attn attn_params keys_read_per_token keys_searched_per_token; do
    grep -q "\"$key\":" "$work/err"; report $? "--stats json has $key"
done
[ "$(wc -l <"$work/err")" -eq 1 ]; report $? "one JSON object and nothing else"
grep -q '"prompt_n":5,' "$work/err" && grep -q '"predicted_n":9,' "$work/err"; report $? "tokens are counted"

check "--help" 0 "$run" --help
[ "$(wc -l <"$work/out")" -lt 80 ] && [ ! -s "$work/err" ]; report $? "help is under 80 lines, on stdout"
check "--version" 0 "$run" --version
check "--attn help" 0 "$run" --attn help
grep -q '^full' "$work/out"; report $? "--attn help lists full"
check "--dry-run" 0 "$run" $model -p hi --dry-run
[ ! -s "$work/out" ] && grep -q '^memory: weights' "$work/err"; report $? "--dry-run says what memory is needed"
check "GPU flags are tolerated" 0 "$run" $model -p hi -n 1 -ngl 99 -fa on
check "--check-tensors" 0 "$run" $model -p hi -n 1 --check-tensors

# Metadata by hand: read, told when it cannot be meant, and no prompt cache of the file as it is.
set -- "$run" $model -p "Once upon a time" -n 9 --temp 0 -q --stats json
check "--override-kv" 0 "$@" --override-kv tokenizer.ggml.add_bos_token=bool:false
grep -q '"prompt_n":4,' "$work/err"; report $? "no BOS: one token less"
check "--override-kv of a float, with a prompt cache" 0 "$@" --prompt-cache "$work/turned" --override-kv llama.rope.freq_base=float:777
refuse "a cache of another rotation" 1 "made with another rotation" "$@" --prompt-cache "$work/turned" --prompt-cache-ro
check "the same rotation by another flag" 0 "$@" --prompt-cache "$work/turned" --rope-freq-base 777
grep -q '"prompt_n":0,' "$work/err"; report $? "is the same rotation"
refuse "--override-kv without a type" 2 "wanted KEY=TYPE:VALUE" "$@" --override-kv llama.block_count=2
refuse "--override-kv of another kind" 1 "the file has u32" "$@" --override-kv llama.block_count=str:two
refuse "--override-kv of a key nobody knows" 1 "llama.blok_count" "$@" --override-kv llama.blok_count=int:2

for mode in full stream,recent=64 s2,approx=1,block=16,local=4 delta; do
    long=$(yes "The little fox went to the old mill and lost a red key." | head -n 30 | tr '\n' ' ')
    rm -f "$work/pc"
    check "prompt cache, written ($mode)" 0 "$run" $model -p "$long" -n 12 --temp 0 --attn $mode --prompt-cache "$work/pc"
    cp "$work/out" "$work/first"
    check "prompt cache, read ($mode)" 0 "$run" $model -p "$long" -n 12 --temp 0 --attn $mode --prompt-cache "$work/pc" -q --stats json
    cmp -s "$work/first" "$work/out" && grep -q '"prompt_n":0,' "$work/err"; report $? "nothing is read twice, the same text ($mode)"
    check "a longer prompt ($mode)" 0 "$run" $model -p "$long Then" -n 12 --temp 0 --attn $mode -q --stats none
    cp "$work/out" "$work/first"
    check "its beginning is reused ($mode)" 0 "$run" $model -p "$long Then" -n 12 --temp 0 --attn $mode --prompt-cache "$work/pc" --prompt-cache-ro -q --stats json
    cmp -s "$work/first" "$work/out" && grep -q '"prompt_n":[1-9],' "$work/err"; report $? "only the rest is evaluated ($mode)"
done
refuse "prompt cache of another mode" 1 "made by llama needle-proto, attention delta" "$run" $model -p "hi" -n 2 --prompt-cache "$work/pc" --prompt-cache-ro
head -c 3000 "$work/pc" >"$work/cutpc"
refuse "truncated prompt cache" 1 "ends early" "$run" $model -p "The little fox" -n 2 --attn delta --prompt-cache "$work/cutpc" --prompt-cache-ro
mkfifo "$work/pipe"
refuse "a prompt cache that is no file" 1 "$work/pipe: not a regular file" "$run" $model -p hi -n 2 --prompt-cache "$work/pipe"
[ -p "$work/pipe" ]; report $? "and it is not replaced"
refuse "a prompt cache in no folder is noticed before the model is opened" 1 "nowhere/pc: No such file" "$run" "$work/nomodel" -p hi --prompt-cache "$work/nowhere/pc"
refuse "one that is only read is not asked for" 1 "nomodel: No such file" "$run" "$work/nomodel" -p hi --prompt-cache "$work/nowhere/pc" --prompt-cache-ro
check "phases apart" 0 "$run" $model -p "Once upon a time" -n 5 --attn-decode stream,recent=8
grep -q 'attention full+stream,prefill full, decode stream' "$work/err"; report $? "both modes are said"
refuse "unknown mode of a phase" 2 "no attention mode 'nope'" "$run" $model -p hi --attn-prefill nope

refuse "unknown flag" 2 "unknown flag '--frob'" "$run" $model --frob
refuse "no model" 2 "no MODEL given" "$run" -p hi
refuse "bad number" 2 "wanted an integer" "$run" $model -n many
refuse "unknown mode" 2 "full" "$run" $model -p hi --attn nope
refuse "unknown key of a mode" 2 "nope" "$run" $model -p hi --attn full,nope=1
refuse "unknown cache type" 2 "wanted f32, f16, bf16, q8_0 or q4_0" "$run" $model -p hi -ctk q3
refuse "unknown scaling" 2 "wanted none, linear or yarn" "$run" $model -p hi --rope-scaling nope
refuse "unknown kernels" 2 "this CPU runs: scalar" "$run" $model -p hi --kernels sse9
refuse "two prompts" 2 "give one of" "$run" $model -p hi -f "$work/prompt"
refuse "missing file" 1 "No such file" "$run" no-such.gguf -p hi
refuse "an endless prompt" 1 "/dev/zero: more than 1024 MiB" "$run" $model -f /dev/zero
refuse "not a GGUF" 1 "$work/prompt" "$run" "$work/prompt" -p hi
refuse "a folder" 1 "$work" "$run" "$work" -p hi
refuse "missing prompt file" 1 "No such file" "$run" $model -f "$work/none"
refuse "prompt beyond the context" 1 "the prompt has 5 tokens, the context 4: wanted -c" "$run" $model -p "Once upon a time" -c 4
head -c 100000 $model >"$work/cut.gguf"
refuse "truncated file" 1 "$work/cut.gguf" "$run" "$work/cut.gguf" -p hi
check "context fills" 0 "$run" $model -p "Once upon a time" -c 10 -n 100 --temp 0
grep -q 'context of 10 tokens is full' "$work/err"; report $? "a full context is said"

"$run" $model -p "Once upon a time" -n 5000 --ignore-eos 2>"$work/err" | head -c 10 >/dev/null
grep -q 'stdout' "$work/err"; report $? "a reader that goes away ends the run"
"$run" $model -p "Once" -n 5 >&- 2>"$work/err"; [ $? -eq 1 ] && grep -q 'stdout' "$work/err"; report $? "closed stdout: exit 1"
if [ -w /dev/full ]; then "$run" $model -p "Once" -n 5 >/dev/full 2>"$work/err"; [ $? -eq 1 ] && grep -q 'stdout' "$work/err"; report $? "full disk: exit 1"; fi
setsid sh -c "exec '$run' $model -p Once -n 100000 -c 30000 --ignore-eos >'$work/out' 2>'$work/err'" & pid=$!
sleep 1; kill -INT $pid; wait $pid; rc=$?
[ $rc -eq 130 ] && [ -s "$work/out" ] && tail -n 1 "$work/err" | grep -q decode; report $? "Ctrl-C ends with what there is (exit $rc)"
sleep 9 >"$work/pipe" & writer=$!
"$run" $model -n 5 <"$work/pipe" >"$work/out" 2>"$work/err" & pid=$!
sleep 1; kill -INT $pid; wait $pid; rc=$?; kill $writer
[ $rc -eq 130 ] && [ ! -s "$work/out" ] && [ ! -s "$work/err" ]; report $? "Ctrl-C ends the wait for a prompt (exit $rc)"
(ulimit -v 200000; exec "$run" $model -p Once -n 10 -c 2000000000) >"$work/out" 2>"$work/err"; [ $? -ne 0 ]; report $? "absurd context: refused"
echo "1..$n"
