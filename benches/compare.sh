#!/usr/bin/env bash
# usage: benches/compare.sh [ROUNDS [PROGRAM ...]]     PROGRAM: lua sqlite cxx generated (default: all)
# Cold static links of Lua, the sqlite3 shell, a C++ program and a generated one (see src/workload.rs; 20,000 functions):
# ld.relink beside ld.lld, mold and wild, A B C A B C ...
# Per linker: medians of wall, user and system time (ms), peak memory (MiB), size of the output, whether it runs, and
# the median of the round-by-round ratios of wall and of user + system time to ld.lld's. Then ld.relink's time set by set.
# Environment: DIR (work folder, kept; default a folder of the target directory), RELINK (a binary; built otherwise),
#   LLD, MOLD, WILD (binaries; the last is skipped if it is not set), THREADS (default: all processors, then 1),
#   CALLGRIND=1 (instructions of ld.relink and ld.lld on Lua with one thread, by valgrind), NICE (default: empty).
set -euo pipefail
cd "$(dirname "$0")/.."
rounds=${1:-15}; shift || true
programs=${*:-lua sqlite cxx generated}
target=${CARGO_TARGET_DIR:-$PWD/target}
dir=${DIR:-$target/compare}; mkdir -p "$dir"; dir=$(cd "$dir" && pwd)
lld=${LLD:-$(command -v ld.lld-19 || command -v ld.lld)}
mold=${MOLD:-$(command -v mold || true)}
relink=${RELINK:-}
if [[ -z $relink ]]; then
  cargo build --locked --release -q -p relink-cli
  relink=$target/release/ld.relink
fi

# Objects and the driver's own link line, once.
wrap=$dir/wrap; mkdir -p "$wrap"
cat > "$wrap/ld" <<'W'
#!/usr/bin/env bash
# Keeps the arguments, one a line, without the output and gcc's plug-in, which no peer needs; links nothing.
while (($#)); do
  case $1 in
    -o|-plugin) shift ;;
    -plugin-opt=*) ;;
    *) printf '%s\n' "$1" ;;
  esac
  shift
done > "$ARGS"
W
chmod +x "$wrap/ld"
crate() {
  cargo metadata --locked --format-version 1 --manifest-path tests/third_party/Cargo.toml |
    python3 -c 'import json, os, sys
print(*(os.path.dirname(p["manifest_path"]) for p in json.load(sys.stdin)["packages"] if p["name"] == sys.argv[1]))' "$1"
}
compile() { # DRIVER FLAGS... -- SOURCES...: objects beside each other in the current folder
  local command=() source object
  while [[ $1 != -- ]]; do command+=("$1"); shift; done
  shift
  for source; do
    object=$(basename "${source%.*}").o
    [[ $object -nt $source ]] || "${command[@]}" -c "$source" -o "$object"
  done
}
capture() { ARGS=$PWD/args "$1" -B"$wrap/" -static ./*.o "${@:2}" -o out; }
here=$PWD
for program in $programs; do
  mkdir -p "$dir/$program"; cd "$dir/$program"
  case $program in
    lua) # The crate has no `lua.c`; tests/programs/lua_main.c runs a script.
      source=$(cd "$here"; echo "$(crate lua-src)"/lua-5.4*)
      compile gcc -g -O2 -DLUA_USE_POSIX "-I$source" -- \
        "$here/tests/programs/lua_main.c" $(ls "$source"/*.c | grep -vE '/(lua|luac|onelua|ltests)\.c$')
      capture gcc -lm ;;
    sqlite)
      source=$(cd "$here"; crate sqlite3-src)/source
      compile gcc -g -O0 -DSQLITE_OMIT_LOAD_EXTENSION -pthread -- "$source"/{shell,sqlite3}.c
      capture gcc -lm -pthread ;;
    cxx)
      compile g++ -g -O0 -std=c++17 -- "$here"/tests/programs/cxx_{main,other}.cpp
      capture g++ ;;
    generated)
      [[ -e unit00000.o ]] || (cd "$here"; cargo run --locked --release -q -p relink-benches --bin generate "$dir/generated" 20000)
      printf '%s\n' -static --build-id --eh-frame-hdr ./*.o > args ;;
    *) echo "unknown program $program" >&2; exit 2 ;;
  esac
  cd "$here"
done

export ROUNDS=$rounds PROGRAMS=$programs SOURCE=$here DIR=$dir RELINK=$relink LLD=$lld MOLD=$mold WILD=${WILD:-} THREADS=${THREADS:-$(nproc) 1}
${NICE:-} python3 - <<'P'
import json, os, statistics, subprocess, time
env, dir = os.environ, os.environ["DIR"]
median = statistics.median
# Arguments of a run and how it ends.
checks = {
    "lua": ([env["SOURCE"] + "/tests/programs/test.lua"], 0),
    "sqlite": ([":memory:", "create table t(a); insert into t values(1), (41); select sum(a) from t"], 0),
    "cxx": ([], 5),
    "generated": ([], 0),
}

def linkers(threads):
    yield "lld", [env["LLD"], f"--threads={threads}"]
    yield "relink", [env["RELINK"], f"--threads={threads}"]
    yield "relink --incremental", [env["RELINK"], f"--threads={threads}", "--incremental"]
    # By default both leave a child behind that frees the memory: without --no-fork only half of their work is seen.
    if env["MOLD"]:
        yield "mold", [env["MOLD"], f"--thread-count={threads}", "--no-fork"]
    if env["WILD"]:
        yield "wild", [env["WILD"], f"--threads={threads}", "--no-fork"]

def clean():
    subprocess.run(["rm", "-rf", "out", ".relink"])

def link(command):
    """Wall, user, system time in ms of one link."""
    clean()
    quiet = [(os.POSIX_SPAWN_OPEN, fd, "/dev/null", os.O_RDWR, 0) for fd in (0, 1, 2)]
    start = time.perf_counter()
    pid = os.posix_spawn(command[0], command, env, file_actions=quiet)
    _, status, usage = os.wait4(pid, 0)
    wall = time.perf_counter() - start
    assert status == 0, command
    return wall * 1e3, usage.ru_utime * 1e3, usage.ru_stime * 1e3

def memory(command):
    """Peak memory in MiB: a child of a small process, as a child begins with the peak of what started it."""
    clean()
    said = subprocess.run(["/usr/bin/time", "-f", "%M"] + command, capture_output=True, text=True)
    return int(said.stderr.split()[-1]) / 1024

for program in env["PROGRAMS"].split():
    arguments, status = checks[program]
    os.chdir(f"{dir}/{program}")
    args = open("args").read().split("\n")[:-1]
    size = sum(os.path.getsize(a) for a in args if os.path.isfile(a))
    args += ["-o", "out"]
    for threads in env["THREADS"].split():
        rows = {name: dict(command=command + args, times=[]) for name, command in linkers(threads)}
        for row in rows.values():
            row["rss"] = memory(row["command"])
            row["size"] = os.path.getsize("out")
            row["runs"] = subprocess.run(["./out"] + arguments, capture_output=True).returncode == status
        for _ in range(int(env["ROUNDS"])):
            for row in rows.values():
                row["times"].append(link(row["command"]))
        base = rows["lld"]["times"]
        load = open("/proc/loadavg").read().split()[0]
        print(f"\n{program}: {size / 1e6:.1f} MB of files on the line, {env['ROUNDS']} rounds, {threads} threads, load {load}\n")
        print("| linker | wall ms | user ms | sys ms | peak MiB | wall / lld | cpu / lld | output bytes | runs |")
        print("| --- | --: | --: | --: | --: | --: | --: | --: | --- |")
        for name, row in rows.items():
            wall, user, system = (median(times[i] for times in row["times"]) for i in range(3))
            ratio = median(t[0] / b[0] for t, b in zip(row["times"], base))
            cpu = median((t[1] + t[2]) / (b[1] + b[2]) for t, b in zip(row["times"], base))
            print(f"| {name} | {wall:.1f} | {user:.1f} | {system:.1f} | {row['rss']:.0f} |"
                f" {ratio:.2f} | {cpu:.2f} | {row['size']} | {'yes' if row['runs'] else 'NO'} |")
        for name in ["relink", "relink --incremental"]:
            sets = {}
            for _ in range(int(env["ROUNDS"])):
                link(rows[name]["command"] + ["--report=report.json"])
                report = json.load(open("report.json"))
                times = {time["set"]: time["ns"] for time in report["timings_ns"]}
                times["frame outside sets"] = report["total_ns"] - sum(times.values())
                for key, ns in times.items():
                    sets.setdefault(key, []).append(ns / 1e6)
            shown = ", ".join(f"{key} {median(times):.2f}" for key, times in sets.items() if median(times) >= 0.005)
            print(f"\n{name}, median ms of each set: {shown}")
    clean()
P

if [[ ${CALLGRIND:-} ]]; then
  cd "$dir/lua"
  echo
  for linker in "$relink" "$lld"; do
    rm -rf out .relink
    valgrind --tool=callgrind --callgrind-out-file=callgrind.out "$linker" --threads=1 @args -o out 2>&1 |
      sed -n "s|.*Collected : |$(basename "$linker"): instructions |p"
  done
fi
