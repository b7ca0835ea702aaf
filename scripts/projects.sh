#!/bin/bash
# Builds real projects from Debian's sources with ld.relink and runs their own tests: what a drop-in linker is for.
#
# usage: scripts/projects.sh [DIR] [PROJECT...]     projects: zlib zstd popt fribidi lua redis; all of them if none is named
#
# Needs deb-src entries for apt, gcc, make, cmake, meson and dpkg-dev. DIR (a new temporary one) keeps sources and builds.
# CC=clang CXX=clang++ builds with other compilers than gcc.
set -euo pipefail

root=$(cd "$(dirname "$0")/.." && pwd)
dir=${1:-$(mktemp -d)}
shift || true
projects=("${@:-}")
[ -n "${projects[0]}" ] || projects=(zlib zstd popt fribidi lua redis)
mkdir -p "$dir/ld"
dir=$(cd "$dir" && pwd)
cc=${CC:-gcc}
cxx=${CXX:-g++}
unset CC CXX
for tool in "$cc" "$cxx" make cmake meson apt-get dpkg-source; do
    command -v "$tool" >/dev/null || { echo "missing: $tool (gcc, g++, make, cmake, meson, apt, dpkg-dev)" >&2; exit 1; }
done
cargo build --release --manifest-path "$root/Cargo.toml" -p relink-cli
ln -sf "$root/target/release/ld.relink" "$dir/ld/ld"
linker=-B$dir/ld

source_of() {
    cd "$dir"
    ls -d "$1"-*/ >/dev/null 2>&1 || { apt-get source --download-only "$1"; dpkg-source --no-check -x "$1"_*.dsc; }
    cd "$dir/$1"-*/
}

# A configure script of its own, a version script, shared library and programs.
zlib() {
    source_of zlib
    { make distclean || true; } >/dev/null 2>&1
    CC="$cc $linker" ./configure
    make -j2
    make test | tee test.log
    test "$(grep -c 'test OK' test.log)" = 3
}

# CMake: shared and static library, programs with threads.
zstd() {
    source_of libzstd
    cmake -S build/cmake -B built "-DCMAKE_C_COMPILER=$cc" "-DCMAKE_CXX_COMPILER=$cxx" "-DCMAKE_C_FLAGS=-O1 $linker" "-DCMAKE_CXX_FLAGS=$linker" -DZSTD_BUILD_TESTS=OFF
    cmake --build built -j2
    head -c 3000000 /dev/urandom >random
    built/programs/zstd -T2 -c random | built/programs/zstd -dc | cmp - random
}

# autoconf, automake and libtool; its test suite runs the programs against the shared library.
popt() {
    source_of popt
    [ -x configure ] || autoreconf -fi
    ./configure "CC=$cc $linker"
    make -j2
    make check
}

# Meson and ninja: a shared library, programs, and tests that use both.
fribidi() {
    source_of fribidi
    CC="$cc $linker" meson setup built -Ddocs=false
    meson test -C built
}

lua() {
    source_of lua5.4
    cd src
    echo '#define DEB_HOST_MULTIARCH "x86_64-linux-gnu"' > lua5.4-deb-multiarch.h
    rm -f luac.c onelua.c ltests.c
    "$cc" "$linker" -std=gnu99 -g -O2 -DLUA_USE_LINUX -o lua ./*.c -Wl,-E -lm -ldl
    test "$(./lua -e 'print(("x"):rep(3), 2^10)')" = "xxx	1024.0"
}

redis() {
    source_of redis
    cd src
    make -j2 redis-server "CC=$cc" MALLOC=libc OPTIMIZATION=-O1 "LDFLAGS=$linker" BUILD_TLS=no USE_SYSTEMD=no \
        USE_SYSTEM_JEMALLOC=no USE_SYSTEM_LUA=no USE_SYSTEM_HIREDIS=no
    ./redis-server --port 17392 --save "" >/dev/null &
    server=$!
    trap 'kill $server 2>/dev/null || true' EXIT
    for _ in 1 2 3 4 5 6 7 8 9 10; do
        sleep 0.2
        (exec 3<>/dev/tcp/127.0.0.1/17392) 2>/dev/null && break
    done
    exec 3<>/dev/tcp/127.0.0.1/17392
    printf 'SET a 41\r\nINCR a\r\nLPUSH l x y\r\nEVAL "return 6*7" 0\r\n' >&3
    for expected in +OK :42 :2 :42; do
        read -r -u 3 answer
        test "${answer%$'\r'}" = "$expected" || { echo "redis said $answer instead of $expected" >&2; exit 1; }
    done
    kill "$server"
}

for project in "${projects[@]}"; do
    log=$dir/$project.log
    # In the background, for -e does not hold in a condition.
    ("$project") >"$log" 2>&1 &
    if wait $!; then
        echo "$project: ok"
    else
        echo "$project: failed, see $log" >&2
        tail -5 "$log" >&2
        exit 1
    fi
done
