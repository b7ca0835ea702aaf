//! redis as its users build it: a server of about a hundred objects and four static libraries, with Lua in it, and its client, by
//! gcc and by clang; linked, run as a server that is talked to, edited, patched, talked to again.

use std::path::{Path, PathBuf};

use relink_tests::cc::{self, Cc};
use relink_tests::real::program_file;
use relink_tests::scene::Scene;
use relink_tests::{read, sources};

use crate::projects::{WAYS, Way, judge_edit, object_name};

/// Folders of libraries below `deps`, how each is compiled, and files that are programs or need more than redis brings.
/// Some releases have fewer.
const LIBRARIES: [(&str, &[&str], &[&str]); 5] = [
    ("hiredis", &[], &["dict.c", "ssl.c", "test.c"]),
    (
        "lua/src",
        &["-DLUA_ANSI", "-DENABLE_CJSON_GLOBAL", "-DREDIS_STATIC=", "-DLUA_USE_MKSTEMP"],
        &["lua.c", "luac.c", "print.c"],
    ),
    ("hdr_histogram", &["-DHDR_MALLOC_INCLUDE=\"hdr_redis_malloc.h\""], &[]),
    ("fpconv", &[], &[]),
    ("fast_float", &["-DFASTFLOAT_ALLOWS_LEADING_PLUS"], &[]),
];

/// What the session prints.
const ANSWERS: &str = "PONG
OK
42
42
3
c
b
a
2
y
0.5
x
2.5
1-1
6
10
100
[1,\"two\",{\"three\":3}]
false
raised
int
again
5
the server left with 0
";

/// The objects that a variable of redis' makefile names, as sources.
#[track_caller]
fn units(dir: &Path, variable: &str) -> Vec<PathBuf> {
    let makefile = String::from_utf8(read(dir.join("src/Makefile"))).expect("a makefile is text");
    let value = makefile.lines().find_map(|line| line.strip_prefix(variable)?.strip_prefix('='));
    let objects = value.unwrap_or_else(|| panic!("no {variable} in redis' makefile")).split_whitespace();
    objects.map(|object| dir.join("src").join(object).with_extension("c")).collect()
}

/// How redis' makefile compiles it, without warnings, allocator and TLS of others.
fn compiler(dir: &Path, way: Way) -> Cc {
    let headers = LIBRARIES.iter().map(|(name, ..)| format!("-I{}", dir.join("deps").join(name).display()));
    let linenoise = format!("-I{}", dir.join("deps/linenoise").display());
    let release = format!("-I{}", program_file("redis").display());
    way.cc(["-std=gnu11", "-DREDIS_STATIC=", "-pthread", "-fPIE", "-w"])
        .with(headers)
        .with([linenoise, release])
}

fn scene(way: Way) -> Scene {
    let dir = sources::redis();
    let cc = compiler(&dir, way);
    let mut scene = Scene::new().file("session", read(program_file("redis/session"))).run(SESSION);
    let mut archives = String::new();
    for (name, flags, skipped) in LIBRARIES {
        let folder = dir.join("deps").join(name);
        if !folder.is_dir() {
            continue;
        }
        let mut sources = sources::units(&folder);
        sources.retain(|path| skipped.iter().all(|name| !path.ends_with(name)));
        let cc = way
            .cc(["-fPIE", "-w"])
            .with(flags.iter().copied())
            .with([format!("-I{}", dir.join("src").display())]);
        let members: Vec<_> =
            sources.iter().map(|source| (object_name(source), read(cc.file(source)))).collect();
        let archive = format!("lib{}.a", name.replace('/', "_"));
        scene = scene.file(&archive, cc::archive(&members));
        archives += &format!("{archive} ");
    }
    let (server, mut client) = (units(&dir, "REDIS_SERVER_OBJ"), units(&dir, "REDIS_CLI_OBJ"));
    client.push(dir.join("deps/linenoise/linenoise.c"));
    for source in server.iter().chain(&client) {
        scene = scene.file(&object_name(source), read(cc.file(source)));
    }
    for (program, objects) in [("redis-server", server), ("redis-cli", client)] {
        let objects: Vec<_> = objects.iter().map(|source| object_name(source)).collect();
        let link = format!("-pie -rdynamic {} -o {program} {} {archives}", way.link, objects.join(" "));
        scene = scene.link_by(way.compiler, &format!("{link} -lm -lstdc++ -ldl -pthread -lrt"));
    }
    scene
}

/// A run of the session. redis keeps its tables to the end, which is no leak to be told of.
const SESSION: &str = "ASAN_OPTIONS=detect_leaks=0 /bin/sh session";

#[track_caller]
fn judge(ways: &[Way]) {
    for &way in ways {
        let scene = scene(way);
        let dir = sources::redis();
        // `PING` answers with another of the answers that the server shares.
        let (from, to) = ("addReply(c,shared.pong);", "addReply(c,shared.ok);");
        let object = compiler(&dir, way).edited(&dir.join("src/server.c"), from, to);
        let edited = scene.clone().file("server.o", read(object));
        let [before, after] = judge_edit(&scene, &edited, SESSION, way);
        assert_eq!(before.stdout, ANSWERS);
        assert_eq!(after.stdout, ANSWERS.replace("PONG\n", "OK\n"));
    }
}

#[test]
fn redis_by_gcc_serves_and_is_edited() {
    judge(&WAYS[..2]);
}

#[test]
fn redis_by_clang_serves_and_is_edited() {
    judge(&WAYS[2..4]);
}

#[test]
fn redis_with_the_address_sanitizer_serves_and_is_edited() {
    judge(
        &WAYS[4..]
            .iter()
            .map(|&way| Way { flags: &["-O0", "-g", "-fsanitize=address"], ..way })
            .collect::<Vec<_>>(),
    );
}
