#!/bin/sh
# Sets everything up and runs a comparison suite on a real language model.
set -eu

usage() {
    cat <<'EOF'
usage: ./run.sh [--quick | --suite FILE] [-- options of `kvgauge run`]

Installs missing Debian packages, builds kvgauge, obtains the model and runs a suite. The end is a
table on stdout and the paths of the CSV files, plots and report.

  --quick       the quick suite, suites/quick.yaml (default): a few minutes on two cores
  --suite FILE  another suite, e.g. suites/full.yaml
  -h, --help    this text

KVGAUGE_MODEL=FILE.gguf uses another model. What follows -- goes to `kvgauge run`, for example
./run.sh -- --max-items 2 --progress plain
EOF
}

suite=
while [ $# -gt 0 ]; do
    case $1 in
        -h | --help) usage; exit 0 ;;
        --quick) suite=suites/quick.yaml ;;
        --suite)
            [ $# -gt 1 ] || { echo "run.sh: --suite needs a file" >&2; exit 2; }
            suite=$2
            case $suite in /*) ;; *) suite=$PWD/$suite ;; esac
            shift
            ;;
        --) shift; break ;;
        *) echo "run.sh: unknown option '$1'; see ./run.sh --help" >&2; exit 2 ;;
    esac
    shift
done
here=$(cd "$(dirname "$0")" && pwd)
cd "$here"
: "${suite:=suites/quick.yaml}"
case $suite in "$here"/*) suite=${suite#"$here"/} ;; esac
[ -f "$suite" ] || { echo "run.sh: no suite file '$suite'" >&2; exit 2; }

. tools/setup.sh
ensure_packages $BUILD_PACKAGES
mkdir -p build
build release || stop "the build failed"
ensure_model || exit 2
exec build/release/kvgauge run "$suite" -m "$MODEL" "$@"
