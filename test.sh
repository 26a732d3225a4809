#!/bin/sh
# Builds with checks, runs all tests and ends with one line: N passed, N failed, N skipped.
set -eu

usage() {
    cat <<'EOF'
usage: ./test.sh [--long] [--compiler gcc|clang]

Installs what the tests need, builds debug (address and undefined-behaviour sanitizers, warnings are
errors), scalar and release, and runs the tests of each.

  --long             also the slow comparisons with golden results
  --compiler NAME    gcc (default) or clang, in build folders of its own
  -h, --help         this text
EOF
}

long=0
compiler=
while [ $# -gt 0 ]; do
    case $1 in
        -h | --help) usage; exit 0 ;;
        --long) long=1 ;;
        --compiler)
            case ${2:-} in
                gcc | clang) compiler=$2 ;;
                *) echo "test.sh: --compiler wants gcc or clang" >&2; exit 2 ;;
            esac
            shift
            ;;
        *) echo "test.sh: unknown option '$1'; see ./test.sh --help" >&2; exit 2 ;;
    esac
    shift
done
cd "$(dirname "$0")"
[ "$long" = 0 ] || export KVGAUGE_LONG=1

. tools/setup.sh
ensure_packages $BUILD_PACKAGES libcmocka-dev python3 ${compiler:+$compiler}
mkdir -p build
if ensure_model; then
    export KVGAUGE_MODEL="$MODEL"
else
    say "without the model its tests are skipped"
fi

passed=0 failed=0 skipped=0
suffix=${compiler:+-$compiler}

# One build and its tests.
check() {
    preset=$1
    shift
    dir=build/$preset$suffix
    say "== $preset${compiler:+ ($compiler)}"
    build_for_tests "$preset" "$dir" "$@" || { failed=$((failed + 1)); return 0; }
    log=$dir/tests.log
    (cd "$dir" && ctest -V --timeout 300) >"$log" 2>&1 || true
    # cmocka names every test on a line; ctest alone knows of programs that crashed or hung
    p=$(grep -c -E '^[0-9]+: \[ +OK \]' "$log" || true)
    s=$(grep -E '^[0-9]+: \[ +SKIPPED +\] [a-z_0-9]+$' "$log" | sort -u | wc -l)
    f=$(grep -E '^[0-9]+: \[ +FAILED +\] [a-z_0-9]+$' "$log" | sort -u | wc -l)
    crashed=$(grep -c -E '\*\*\*(Failed|Timeout|Exception|Not Run)' "$log" || true)
    [ "$f" -ge "$crashed" ] || f=$crashed
    [ "$f" -eq 0 ] || cat "$log" >&2
    [ $((p + s + f)) -gt 0 ] || { say "no test ran"; f=1; }
    passed=$((passed + p)) failed=$((failed + f)) skipped=$((skipped + s))
}

build_for_tests() {
    preset=$1 dir=$2
    shift 2
    if command -v ccache >/dev/null 2>&1; then
        set -- "$@" -DCMAKE_C_COMPILER_LAUNCHER=ccache
    fi
    [ -z "$compiler" ] || set -- "$@" -DCMAKE_C_COMPILER="$compiler"
    mkdir -p "$dir"
    { cmake --preset "$preset" -B "$dir" "$@" && cmake --build "$dir" -j "$(nproc)"; } \
        >"$dir/build.log" 2>&1 || { tail -n 60 "$dir/build.log" >&2; return 1; }
}

# Results of other implementations, when they lie beside the project. A part of the cases; all of
# them with --long.
golden() {
    golden=../shared/golden/kv
    if [ ! -d "$golden" ] || [ ! -f "${MODEL:-}" ]; then
        skipped=$((skipped + 1))
        return 0
    fi
    # Not the long runs of encodings (long_k...): a code that flips at a rounding boundary moves
    # single logits far beyond any tolerance; only their mean drift can be compared.
    for case in "$golden"/*/; do
        if [ "$long" = 1 ]; then
            chosen='^(?!long_k)' forced=.
        else
            case $(basename "$case") in
                A) chosen='^(full|snapkv_w64k5\.r0\.75|kvzip\.r0\.50|adakv_expected\.r0\.75)' forced='^adakv_snapkv\.r0\.75' ;;
                B) chosen='^(full\.|(?!long).*\.r0\.50)' forced='\.r0\.75' ;;
                *) chosen='^(full|think\.r0\.75|long_(sw|h2o|tova)128|long_sink128_slot)' forced='^lagkv\.r0\.75' ;;
            esac
        fi
        compare "$case" --only "$chosen"
        compare "$case" --fixed --only "$forced"
    done
}

compare() {
    case=$1
    shift
    say "== golden $(basename "$case") $*"
    if python3 ../shared/tools/compare_golden.py "build/release$suffix/kvgauge" "$MODEL" \
        tests/golden/specs.tsv "$case" --lenient "$@" >build/golden.log 2>&1; then
        passed=$((passed + 1))
    else
        failed=$((failed + 1))
    fi
    cat build/golden.log
}

check debug -DKVG_WERROR=ON
check scalar -DKVG_WERROR=ON
check release
golden
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" -eq 0 ]
