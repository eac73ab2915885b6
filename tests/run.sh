#!/bin/sh
# Runs every test program of a build folder (default build/release) and closes with "N passed, N failed".
# A program counts its own tests (CMocka, TAP output); one that dies counts as a failure. tests/*.sh are tests too.
B=${1:-build/release}
passed=0 failed=0
out=$(mktemp)
trap 'rm -f "$out"' EXIT
for t in "$B"/tests/test_* tests/test_*.sh; do
    case $t in *.sh) run="sh $t $B" ;; *.o|*.d|*\*) continue ;; *) run=$t ;; esac
    CMOCKA_MESSAGE_OUTPUT=TAP OMP_WAIT_POLICY=passive $run >"$out" 2>&1
    rc=$?
    ok=$(grep -c '^ok ' "$out")
    bad=$(grep -c '^not ok ' "$out")
    if [ $rc -ne 0 ] && [ "$bad" -eq 0 ]; then bad=1; fi
    if [ "$ok" -eq 0 ] && [ "$bad" -eq 0 ]; then bad=1; echo "$t ran no test"; fi
    passed=$((passed + ok)) failed=$((failed + bad))
    printf '%-40s %4d passed, %d failed\n' "$(basename "$t")" "$ok" "$bad"
    [ "$bad" -eq 0 ] || { echo "--- $run (exit $rc)"; grep -v '^ok ' "$out" | tail -n 60; }
done
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]
