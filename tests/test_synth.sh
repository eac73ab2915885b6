#!/bin/sh
# bin/synth from outside: exit status 0, 1, 2; what goes to stdout and stderr; files appear whole or not at all.
synth=$1/tools/synth
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
n=0
check() {    # check NAME STATUS WORDS ARGS...: exit status, and words on stderr (or stdout when the status is 0)
    name=$1 status=$2 words=$3
    shift 3
    n=$((n + 1))
    "$synth" "$@" >"$dir/out" 2>"$dir/err"
    got=$?
    from=$dir/err
    [ "$status" -eq 0 ] && from=$dir/out
    if [ $got -eq "$status" ] && { [ -z "$words" ] || grep -q -- "$words" "$from"; } &&
        { [ "$status" -eq 0 ] || ! [ -s "$dir/out" ]; }; then
        echo "ok $n - $name"
    else
        echo "not ok $n - $name: exit $got, want $status with '$words'"
        cat "$dir/out" "$dir/err"
    fi
}
check "help" 0 "llama-3.1-8b" --help
check "no output file" 2 "no OUT.gguf" --shape induction
check "no shape" 2 "no --shape" "$dir/a.gguf"
check "unknown shape" 2 "got 'llama-9', wanted one of: induction, tinyllama-1.1b" "$dir/a.gguf" --shape llama-9
check "unknown type" 2 "got 'Q9', wanted Q4_K_M" "$dir/a.gguf" --shape induction --type Q9
check "unknown flag" 2 "--frobnicate" "$dir/a.gguf" --shape induction --frobnicate
check "too few look-ups" 2 "lookups" "$dir/a.gguf" --shape induction --lookups 1
check "no such folder" 1 "nowhere/a.gguf.tmp: No such file" "$dir/nowhere/a.gguf" --shape induction
check "induction" 0 "" "$dir/i.gguf" --shape induction --seed 5
check "random" 0 "" "$dir/r.gguf" --shape smollm2-135m --layers 1 --vocab 1024 --type Q4_K_M
check "the same again" 0 "" "$dir/r2.gguf" --shape smollm2-135m --layers 1 --vocab 1024 --type Q4_K_M
n=$((n + 1))
[ "$(ls "$dir")" = "$(printf 'err\ni.gguf\nout\nr.gguf\nr2.gguf')" ] && echo "ok $n - nothing else is left" ||
    { echo "not ok $n - left over:"; ls "$dir"; }
n=$((n + 1))
cmp -s "$dir/r.gguf" "$dir/r2.gguf" && echo "ok $n - same seed, same bytes" || echo "not ok $n - same seed, other bytes"
