#!/bin/sh
# Makes the objects that `relink demo` uses on a machine without a C compiler, from the acceptance fixture.
# Run it after a change of tests/acceptance/fixture and commit what changed. Needs gcc for x86-64.
set -eu
cd "$(dirname "$0")"
fixture=../../tests/acceptance/fixture
build() { # object, source, definitions …
    object=$1 source=$2
    shift 2
    # The prefix map keeps this machine's directories out of the objects.
    gcc -ffreestanding -fno-stack-protector -ffunction-sections -fdata-sections -g -O0 \
        -ffile-prefix-map="$fixture"=. -ffile-prefix-map="$PWD"=. -c "$fixture/$source" -o "$object" "$@"
    echo "$object"
}
build app_a.o app_a.c
build app_b.o app_b.c
build arith.o arith.c
build table.o table.c
build state.o state.c
build weakdef.o weakdef.c
build table-TBL_GET_EDIT.o table.c -DTBL_GET_EDIT
build table-TBL_SUM_GROW=1.o table.c -DTBL_GET_EDIT -DTBL_SUM_GROW=1
build state-NEW_GLOBAL.o state.c -DNEW_GLOBAL
