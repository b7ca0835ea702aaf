#!/usr/bin/env bash
# usage: scripts/test.sh [ARGUMENTS OF cargo test …]
# The one command that passes the tests on a fresh Debian machine. As root it installs what is missing; otherwise it
# names it. Needs Rust (rustup) and the network for crates; reads nothing from standard input.
set -euo pipefail
cd "$(dirname "$0")/.."
exec </dev/null
export LC_ALL=C.UTF-8

# Tool of the tests, and the Debian packages that have it, the best first.
needs=(
  "gcc=gcc libc6-dev" "g++=g++" "ld.bfd=binutils" "ar=binutils" "nm=binutils" "readelf=binutils" "addr2line=binutils"
  "gdb=gdb" "eu-readelf=elfutils" "eu-addr2line=elfutils" "eu-elflint=elfutils" "strace=strace" "setpriv=util-linux" "prlimit=util-linux"
  "llvm-dwarfdump=llvm" "llvm-symbolizer=llvm" "make=make"
  "cmake=cmake" "autoreconf=autoconf" "automake=automake" "libtoolize=libtool"
  "apt-get=apt" "tar=tar" # They bring redis' sources.
)
missing=()
for need in "${needs[@]}"; do
  command -v "${need%%=*}" >/dev/null || missing+=(${need#*=})
done
lld=
for name in ld.lld-19 ld.lld; do command -v $name >/dev/null && lld=$name && break; done
if [[ -z $lld ]]; then missing+=(lld-19); fi
# clang, with the runtime of its sanitizers.
clang=
for name in clang-19 clang clang-16 clang-14; do command -v $name >/dev/null && clang=$name && break; done
if [[ -z $clang ]]; then
  missing+=(clang-19 libclang-rt-19-dev)
elif [[ $($clang -print-file-name=libclang_rt.asan-x86_64.a) == libclang_rt.asan-x86_64.a ]]; then
  missing+=("libclang-rt-$($clang -dumpversion | cut -d. -f1)-dev")
fi
# The static C library and its start files; a gcc can be there without them.
if command -v gcc >/dev/null && [[ $(gcc -print-file-name=libc.a) == libc.a ]]; then missing+=(libc6-dev); fi

if ((${#missing[@]})); then
  mapfile -t missing < <(printf '%s\n' "${missing[@]}" | sort -u)
  if [[ $(id -u) != 0 ]] || ! command -v apt-get >/dev/null; then
    echo "missing packages; as root: apt-get install ${missing[*]}" >&2
    exit 1
  fi
  export DEBIAN_FRONTEND=noninteractive
  apt-get update -qq
  # Debian 12 and 13 have lld-19; others have some lld.
  if [[ " ${missing[*]} " == *" lld-19 "* ]] && ! apt-cache show lld-19 >/dev/null 2>&1; then
    missing=("${missing[@]/lld-19/lld}")
  fi
  if [[ " ${missing[*]} " == *" clang-19 "* ]] && ! apt-cache show clang-19 >/dev/null 2>&1; then
    missing=("${missing[@]/libclang-rt-19-dev/libclang-rt-dev}")
    missing=("${missing[@]/clang-19/clang}")
  fi
  apt-get install -y -qq --no-install-recommends "${missing[@]}"
fi

command -v cargo >/dev/null || PATH=$HOME/.cargo/bin:$PATH
if ! command -v cargo >/dev/null; then
  echo "Rust is missing: install rustup, then 'rustup toolchain install 1.95' (rustfmt and clippy with it)" >&2
  exit 1
fi
for component in fmt:rustfmt clippy:clippy; do
  cargo "${component%%:*}" --version >/dev/null 2>&1 || rustup component add "${component##*:}"
done

step() { printf '\n== %s (%d s)\n' "$1" "$SECONDS"; }
step "cargo fmt";    cargo fmt --all --check
step "cargo clippy"; cargo clippy --locked --workspace --all-targets -- -D warnings
step "cargo build";  cargo build --locked -p relink-cli
step "cargo test";   cargo test --locked --workspace "$@"
step "done"
