//! Edits of what a loader finishes: programs and libraries that are patched, those that have to be linked anew, and why.

use std::process::Command;

use relink_tests::cc::Cc;
use relink_tests::ld::{self, Linked};
use relink_tests::scene::{Scene, Stage};
use relink_tests::tools;

/// Ways to compile and link a program.
const WAYS: [(&str, &str); 3] =
    [("-fPIE", "-pie"), ("-fno-pie", "-no-pie"), ("-fPIE -fcf-protection=full", "-pie -Wl,-z,now")];

const MAIN: &str = r#"
#include <stdio.h>
int grow(int), from_library(int), other(int);
extern int datum, number;
const char *name(void);
static int (*volatile pointer)(int) = grow;
int (*taken)(int) = other; // Its address alone: no PLT entry, no slot.
int main(void)
{
    printf("%d %d %d %d %s\n", grow(3), pointer(4), from_library(5), datum + number, name());
    return 0;
}
"#;

const UNIT: &str = r#"
#include <stdio.h>
#include <stdlib.h>
int from_library(int);
extern int number;
int datum = DATUM;
int (*kept)(int) = from_library;
const char *name(void) { return "NAME"; }
int grow(int x) { BODY return x + number; }
"#;

const LIBRARY: &str = r#"
int number = 3;
static int secret = DATUM;
int helper(int x) { HELPER return x * 2; }
int from_library(int x) { BODY return helper(x) + secret; }
int other(int x) { return x + number; }
"#;

fn unit(body: &str, datum: &str, name: &str) -> String {
    UNIT.replace("BODY", body).replace("DATUM", datum).replace("NAME", name)
}

fn library(body: &str, helper: &str, datum: &str) -> String {
    LIBRARY.replace("BODY", body).replace("HELPER", helper).replace("DATUM", datum)
}

fn long(count: usize) -> String {
    "x = x * 3 + number; x ^= x >> 3;".repeat(count)
}

/// The program and its library.
fn scene(way: (&str, &str), unit: &str, library: &str) -> Scene {
    let sections = "-ffunction-sections -fdata-sections -fmerge-constants -g -O0";
    Scene::new()
        .c("lib", &format!("-fPIC {sections}"), library)
        .c("main", &format!("{} {sections}", way.0), MAIN)
        .c("unit", &format!("{} {sections}", way.0), unit)
        .link("-shared -Wl,-soname,libown.so -o libown.so lib.o")
        .link(&format!("{} -o main main.o unit.o libown.so", way.1))
}

/// The last link of a scene is the program's, the one before the library's.
#[track_caller]
fn step(scene: &Scene, stage: &Stage, outcomes: [&str; 2]) -> Vec<Linked> {
    let linked = scene.again(stage);
    for (linked, outcome) in linked.iter().zip(outcomes) {
        linked.assert_outcome(outcome);
    }
    scene.compare(stage);
    linked
}

const PLAIN: [&str; 3] = ["x += 1;", "5", "first"];

#[test]
fn program_is_patched() {
    for way in WAYS {
        let library = library("", "", "1");
        let first = scene(way, &unit(PLAIN[0], PLAIN[1], PLAIN[2]), &library);
        let (stage, linked) = first.incremental();
        linked.iter().for_each(|linked| linked.assert_outcome("full"));
        first.compare(&stage);
        for edited in [
            unit("x += 2;", "5", "first"),
            unit("x += 2;", "6", "first"),
            unit("x += 2;", "6", "another literal"),
            // Grown: an island, and pointers that follow; then again.
            unit(&long(40), "6", "another literal"),
            unit(&long(90), "7", "another literal"),
            unit("x += from_library(x) & 0;", "7", "n"),
        ] {
            step(&scene(way, &edited, &library), &stage, ["patched", "patched"]);
        }
    }
}

#[test]
fn library_is_patched_and_its_users_follow() {
    let unit = unit(PLAIN[0], PLAIN[1], PLAIN[2]);
    let way = WAYS[0];
    let first = scene(way, &unit, &library("", "", "1"));
    let (stage, _) = first.incremental();
    first.compare(&stage);
    let value = |name: &str| -> Vec<String> {
        let lines = stage.lines("--dyn-syms", "libown.so", &format!(" {name}"));
        lines.iter().filter_map(|line| line.split_whitespace().nth(1)).map(str::to_owned).collect()
    };
    let before = value("from_library");
    for edited in [library("x++;", "", "1"), library("x++;", "x--;", "2")] {
        step(&scene(way, &unit, &edited), &stage, ["patched", "patched"]);
        assert_eq!(value("from_library"), before);
    }
    // An exported function moves: what the loader looks up is where it is now.
    for count in [60, 130] {
        step(&scene(way, &unit, &library(&long(count), "", "2")), &stage, ["patched", "patched"]);
        assert_ne!(value("from_library"), before);
    }
    let old = value("helper");
    step(&scene(way, &unit, &library(&long(130), &long(70), "2")), &stage, ["patched", "patched"]);
    assert_ne!(value("helper"), old);
}

/// What is reached through a PLT entry keeps that address, and still has a size of its own: an exported IFUNC whose resolver
/// changes, and a library's function whose size stands in another unit's datum. The oracle reads `.dynsym` and the datum.
#[test]
fn sizes_behind_plt_entries_follow() {
    const MAIN: &str = r#"
#include <stdio.h>
int via(int), called(int), pick(int);
extern long size_of_called;
int main(void) { printf("%d %d %d %ld\n", via(1), pick(3), called(2), size_of_called); return 0; }
"#;
    const SIZES: &str = r#"
__asm__(".data\n.globl size_of_called\n.type size_of_called, @object\n.size size_of_called, 8\n"
        "size_of_called: .quad called@SIZE\n.text\n");
"#;
    let scene = |resolver: &str, called: &str| {
        let flags = "-ffunction-sections -O0";
        let library = format!(
            "int called(int x) {{ {called} return x; }}\nint via(int x) {{ return 2 * called(x); }}\n"
        );
        let unit = format!(
            "static int one(int x) {{ return x + 1; }}\n\
             static void *resolve(void) {{ volatile int x = 0; {resolver} return one; }}\n\
             int pick(int) __attribute__((ifunc(\"resolve\")));\n"
        );
        Scene::new()
            .c("lib", &format!("-fPIC {flags}"), &library)
            .c("sizes", &format!("-fPIC {flags}"), SIZES)
            .c("main", &format!("-fPIE {flags}"), MAIN)
            .c("unit", &format!("-fPIE {flags}"), &unit)
            .link("-shared -Wl,-soname,libown.so -o libown.so lib.o sizes.o")
            .link("-pie -Wl,-E -o main main.o unit.o libown.so")
            .run("./main")
    };
    let (stage, _) = scene("", "").incremental();
    scene("", "").compare(&stage);
    step(&scene("x++;", ""), &stage, ["patched", "patched"]);
    step(&scene("x++;", "x++;"), &stage, ["patched", "patched"]);
}

#[test]
fn versioned_library_is_patched() {
    let library = |body: &str, version: &str| {
        let text = "int before(int x) { return x; }\nint now(int x) { BODY return x + 1; }\n
            __asm__(\".symver before,ver@V1\");\n__asm__(\".symver now,ver@@VERSION\");\n";
        let text = text.replace("BODY", body).replace("VERSION", version);
        let main =
            "#include <stdio.h>\nint ver(int);\nint main(void) { printf(\"%d\\n\", ver(3)); return 0; }\n";
        Scene::new()
            .c("lib", "-O0 -g -fPIC -ffunction-sections -fno-toplevel-reorder", &text)
            .c("main", "-O0 -g -fPIE", main)
            .file("map", "V1 { global: ver; local: *; };\nV2 { } V1;\nV3 { } V2;\n")
            .link("-shared -Wl,--version-script=map -o libown.so lib.o")
            .link("-pie -o main main.o libown.so")
    };
    let (stage, _) = library("", "V2").incremental();
    step(&library("x++;", "V2"), &stage, ["patched", "patched"]);
    step(&library(&"x ^= x << 3;".repeat(30), "V2"), &stage, ["patched", "patched"]);
    // Another version of the same function.
    let linked = library("x++;", "V3").again(&stage);
    linked[0].assert_outcome("fell_back_full");
    library("x++;", "V3").compare(&stage);
}

/// One edit of the unit of a linked program.
#[track_caller]
fn judge_unit(way: (&str, &str), before: &str, after: &str, reason: &str) {
    let library = library("", "", "1");
    let first = scene(way, before, &library);
    let (stage, _) = first.incremental();
    let linked = step(&scene(way, after, &library), &stage, ["patched", "fell_back_full"]);
    assert!(linked[1].reasons().contains(&reason), "{reason}: {:?}", linked[1].reasons());
    // And from there it is patched again.
    let again = after.replace("return x + number", "x += 7; return x + number");
    step(&scene(way, &again, &library), &stage, ["patched", "patched"]);
}

#[test]
fn need_of_an_import_is_a_reason() {
    let before = unit("", "5", "n");
    let call = unit("int other(int); x += other(x);", "5", "n");
    let address = unit("int other(int); int (*volatile p)(int) = other; x += p(x);", "5", "n");
    let copy = unit("extern int optind; x += optind;", "5", "n");
    judge_unit(WAYS[0], &before, &call, "import-need-added");
    judge_unit(WAYS[1], &before, &call, "import-need-added");
    // A program that stands at its address makes a PLT entry the function's address.
    judge_unit(WAYS[0], &before, &address, "got-slot-added");
    judge_unit(WAYS[1], &before, &address, "import-need-added");
    // A name that nothing mentioned before.
    judge_unit(WAYS[0], &before, &copy, "new-undefined");
    judge_unit(WAYS[1], &before, &copy, "new-undefined");
}

#[test]
fn library_that_changes_within_or_without() {
    for way in WAYS {
        let unit = unit("", "5", "n");
        let text = library("", "", "1");
        let first = scene(way, &unit, &text);
        let (stage, _) = first.incremental();
        first.compare(&stage);
        // Same interface: addresses may differ.
        step(&scene(way, &unit, &library("x += 4;", "", "2")), &stage, ["patched", "patched"]);
        // A name more is another interface; so is a datum of another size.
        let more = format!("{text}int more(void) {{ return 1; }}\n");
        let wider =
            text.replace("int number = 3;", "int number[4] = {3};").replace("+ number", "+ number[0]");
        for (edited, forced) in [(more, false), (wider, true)] {
            let scene = scene(way, &unit, &edited);
            let linked = scene.again(&stage);
            linked[0].assert_outcome("fell_back_full");
            scene.compare(&stage);
            let reasons = linked[1].reasons();
            if forced || linked[1].outcome() != "patched" {
                assert!(reasons.contains(&"shared-library-changed"), "{} {reasons:?}", linked[1].outcome());
            }
        }
    }
}

#[test]
fn threads_make_no_difference() {
    let unit = unit(&long(4), "5", "n");
    let library = library("", "", "1");
    for (flags, way) in [("", WAYS[0]), ("", WAYS[1]), ("-Wl,--incremental", WAYS[0])] {
        let image = |threads: usize, name: &str| {
            let way = (way.0, format!("{} -Wl,--build-id -Wl,--threads={threads} {flags}", way.1));
            let scene = scene((way.0, &way.1), &unit, &library);
            relink_tests::read(scene.built(Some(ld::gcc_prefix())).path(name))
        };
        assert!(image(1, "main") == image(2, "main"), "{way:?}");
    }
    let image = |threads: usize| {
        let scene = Scene::new().c("lib", "-O1 -fPIC", &library);
        let scene = scene.link(&format!("-shared -Wl,--threads={threads} -o libown.so lib.o"));
        relink_tests::read(scene.built(Some(ld::gcc_prefix())).path("libown.so"))
    };
    assert!(image(1) == image(2));
}

#[test]
fn canonical_images_are_as_large_as_those_of_lld() {
    let cc = Cc::new(["-O1", "-fPIC", "-DLUA_USE_POSIX"]);
    let objects: Vec<_> = relink_tests::sources::lua_units().iter().map(|unit| cc.file(unit)).collect();
    let main = relink_tests::real::program_file("lua_main.c");
    let include = format!("-I{}", relink_tests::sources::lua().display());
    let main = Cc::new(["-O1", "-fPIC", &include]).file(&main);
    let dir = relink_tests::scratch();
    for (name, flags, with_main) in
        [("pie", "-pie", true), ("no-pie", "-no-pie", true), ("lib.so", "-shared", false)]
    {
        let size = |prefix: &std::path::Path, who: &str| {
            let out = dir.path().join(format!("{name}-{who}"));
            let mut command = Command::new(tools::GCC.path());
            command
                .arg(format!("-B{}/", prefix.display()))
                .args([flags, "-Wl,--build-id=none"])
                .args(&objects);
            if with_main {
                command.arg(&main);
            }
            tools::say(command.args(["-lm", "-o"]).arg(&out)).ok();
            std::fs::metadata(out).unwrap().len()
        };
        let (ours, lld) = (size(ld::gcc_prefix(), "ours"), size(relink_tests::real::lld_prefix(), "lld"));
        assert!(ours * 100 <= lld * 102, "{name}: {ours} bytes, lld {lld}");
    }
}
