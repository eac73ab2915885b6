# bin/tokenize as a user meets it: what goes to which stream, and the exit status. sh tests/test_tokenize.sh BUILD
T=${1:-build/release}/tools/tokenize
M=models/needle-proto.gguf
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
n=0 failed=0
check() {                               # NAME, then a command that must succeed
    name=$1; shift
    n=$((n + 1))
    if "$@"; then echo "ok $n - $name"; else echo "not ok $n - $name"; failed=1; fi
}
status() {                              # WANTED ARGS...: this exit status, stdout empty, one line on stderr
    want=$1; shift
    "$T" "$@" >"$dir/out" 2>"$dir/err" </dev/null
    got=$?
    [ $got -eq "$want" ] && [ ! -s "$dir/out" ] && [ "$(wc -l <"$dir/err")" -eq 1 ] ||
        { echo "# status $got for $*"; cat "$dir/err"; return 1; }
}
same() { [ "$1" = "$2" ] || { echo "# '$1' is not '$2'"; return 1; }; }

check "no arguments" status 2
check "no text" status 2 $M
check "two texts" status 2 $M -p a -f b
check "unknown flag" status 2 $M -p a --no-such-flag
check "a word that is no flag" status 2 $M hello
check "-0 with -p" status 2 $M -p a -0
check "no such model" status 1 /no/such/model -p a
check "no such file" status 1 $M -f /no/such/file
check "not a GGUF" status 1 tests/test_tokenize.sh -p a
check "no such tokenizer.model" status 1 $M -p a --tokenizer /no/such/file
echo "1 2 4096" >"$dir/far"
check "an id past the vocabulary" status 1 $M --decode "$dir/far"
echo "1 two 3" >"$dir/word"
check "ids that are none" status 1 $M --decode "$dir/word"

text='The needle is 4711, "naïve" 🦙.
  second	line'
printf '%s' "$text" >"$dir/text"
"$T" $M -f "$dir/text" --ids >"$dir/ids" 2>"$dir/err"
check "nothing on stderr" test ! -s "$dir/err"
check "one line of ids" same "$(wc -l <"$dir/ids")" 1
check "BOS first" same "$(cut -d' ' -f1 "$dir/ids")" 1
check "-f and -p agree" same "$(cat "$dir/ids")" "$("$T" $M -p "$text" --ids)"
check "- reads standard input" same "$(cat "$dir/ids")" "$("$T" $M --ids - <"$dir/text")"
check "-m is the model too" same "$(cat "$dir/ids")" "$("$T" -m $M --ids -f "$dir/text")"
check "--no-bos" same "$(cut -d' ' -f2- "$dir/ids")" "$("$T" $M -f "$dir/text" --ids --no-bos)"
"$T" $M --decode "$dir/ids" >"$dir/back"
check "--decode gives the text back" cmp -s "$dir/text" "$dir/back"
check "the table has a line per id" same "$("$T" $M -f "$dir/text" | wc -l)" "$(wc -w <"$dir/ids")"

printf 'one\0\0two\nlines\0three' >"$dir/many"
"$T" $M -f "$dir/many" -0 --no-bos >"$dir/ids"
check "-0: a line per text" same "$(wc -l <"$dir/ids")" 4
check "-0: an empty text is an empty line" same "$(sed -n 2p "$dir/ids")" ""
check "-0: the same ids as alone" same "$(sed -n 4p "$dir/ids")" "$("$T" $M -p three --no-bos --ids)"
"$T" $M --decode "$dir/ids" -0 >"$dir/back"
printf '\0' >>"$dir/many"
check "-0: and back" cmp -s "$dir/many" "$dir/back"

check "control tokens only on demand" same "$("$T" $M -p '</s>' --special --ids)" "1 2"
check "no second BOS, and a line that says so" same "$("$T" $M -p '<s></s>' --special --ids 2>"$dir/err") $(wc -l <"$dir/err")" "1 2 1"
check "--help goes to stdout" sh -c "'$T' --help 2>&1 >/dev/null | cmp -s - /dev/null && '$T' --help | grep -q -- --ids"
exit $failed
