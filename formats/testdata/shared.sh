#!/bin/sh
# Makes `shared*.so` beside this script from `shared.c`: GNU ld 2.40, gcc 12.2.
set -eu
cd "$(dirname "$0")"
work=$(mktemp -d)
trap 'rm -r "$work"' EXIT
gcc() { command gcc -O1 -fPIC -shared -nostdlib -fno-asynchronous-unwind-tables -fno-ident -s "$@"; }
echo 'DEP_1 { global: dep_function; dep_data; local: *; }; DEP_2 { global: dep_weak; } DEP_1;' > "$work/dep.map"
echo 'int dep_function(void) { return 1; } int dep_data = 1; int dep_weak(void) { return 2; }' > "$work/dep.c"
echo 'V1 { global: function; caller; local: *; };
      V2 { global: data*; constant; relocated; aligned; tls; indirect; protected_function; unique; } V1;' \
    > "$work/shared.map"
gcc -Wl,--version-script,"$work/dep.map" -Wl,-soname,libdep.so.1 "$work/dep.c" -o "$work/libdep.so"
for style in gnu sysv; do
    gcc -Wl,--hash-style=$style -Wl,--version-script,"$work/shared.map" -Wl,-soname,libshared.so.1 \
        -Wl,-z,noseparate-code,-z,relro,-z,now,--build-id=none shared.c "$work/libdep.so" -o shared_$style.so
    chmod -x shared_$style.so
done
