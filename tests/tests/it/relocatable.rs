//! `-r`: what is made of objects is an object that links, runs, throws and is debugged like them.

use relink_tests::elf::Elf;
use relink_tests::folder::Folder;
use relink_tests::tools::{self, Tool};
use relink_tests::{lines, readers};

const FIRST: &str = r#"#include <cstdio>
#include <stdexcept>
#include <string>
#include <vector>
inline int counted(int x) { static int calls; return ++calls + x; }
template <class T> T twice(T x) { return x + x; }
void thrower(int n);
thread_local int local = 4;
struct Guard { Guard() { puts("made a"); } ~Guard() { puts("gone a"); } } guard;
int main() {
    try { thrower(3); } catch (const std::runtime_error &e) { printf("caught %s\n", e.what()); }
    printf("%d %d %d\n", counted(1), twice(21), local);
    std::vector<std::string> words{"one", "two"};
    for (auto &word : words) puts(word.c_str());
}
"#;
const SECOND: &str = r#"#include <stdexcept>
#include <string>
#include <cstdio>
inline int counted(int x) { static int calls; return ++calls + x; }
template <class T> T twice(T x) { return x + x; }
struct Unwound { int n; ~Unwound() { printf("unwound %d\n", n); } };
struct Other { Other() { puts("made b"); } } other;
void thrower(int n) {
    Unwound local{n};
    if (twice(n) == 6 && counted(1)) throw std::runtime_error("three " + std::to_string(n));
}
"#;
const SAYS: &str = "made a\nmade b\nunwound 3\ncaught three 3\n3 42 4\none\ntwo\ngone a\n";

/// Objects of both units by a compiler.
fn compiled(folder: &Folder, compiler: &Tool, flags: &str) {
    for (name, text) in [("a", FIRST), ("b", SECOND)] {
        folder.file(&format!("{name}.cpp"), text.as_bytes());
        let mut command = compiler.command();
        command.current_dir(folder.path("")).args(flags.split_whitespace());
        tools::say(command.args(["-fPIE", "-c", &format!("{name}.cpp"), "-o", &format!("{name}.o")])).ok();
    }
}

/// g++ in the folder, with `ld.relink` or the system's linker.
#[track_caller]
fn gxx(folder: &Folder, ours: bool, args: &[&str]) {
    let mut command = tools::GXX.command();
    command.current_dir(folder.path(""));
    if ours {
        command.arg("-B").arg(relink_tests::ld::gcc_prefix());
    }
    tools::say(command.args(args)).ok();
}

#[test]
fn joined_objects_link_and_run_as_they_did_apart() {
    let folder = Folder::new();
    for compiler in [&tools::GXX, &tools::CLANGXX] {
        for flags in ["-g -O0", "-O2 -ffunction-sections -fdata-sections", "-O1 -g -gdwarf-4"] {
            compiled(&folder, compiler, flags);
            gxx(&folder, true, &["-r", "a.o", "b.o", "-o", "joined.o"]);
            // llvm-dwarfdump takes minutes for call sites; and what a reader of lines misses of clang's, it misses apart, too.
            if flags.contains("-O0") {
                gxx(&folder, false, &["-r", "a.o", "b.o", "-o", "theirs.o"]);
                let objects = ["-r", "a.o", "b.o", "-o", "lld.o"];
                tools::say(tools::LLD.command().current_dir(folder.path("")).args(objects)).ok();
                let measure = readers::complaints_of_others(&folder.path("theirs.o"), &folder.path("lld.o"));
                readers::assert_no_worse(&folder.path("joined.o"), &measure);
            }
            for ours in [true, false] {
                for shape in ["-pie", "-static"] {
                    gxx(&folder, ours, &[shape, "joined.o", "-o", "out", "-Wl,--gc-sections"]);
                    assert_eq!(folder.run("out"), SAYS, "{flags} {shape} by us: {ours}");
                }
            }
            if flags.contains("-O0") {
                gxx(&folder, true, &["a.o", "b.o", "-o", "apart"]);
                gxx(&folder, true, &["joined.o", "-o", "out"]);
                let at = lines::address_of_line(&folder.path("out"), "b.cpp", 10);
                match compiler.package {
                    "g++" => lines::assert_places(&folder.path("out"), &[(at, ("b.cpp".into(), 10))]),
                    _ => {
                        let bytes = folder.bytes("out");
                        let thrower = Elf::parse(&bytes).symbol("_Z7throweri");
                        assert!((thrower.address..thrower.address + thrower.size).contains(&at), "{at:#x}");
                    }
                }
                readers::assert_no_worse(
                    &folder.path("out"),
                    &readers::kept_complaints(&folder.path("apart")),
                );
            }
        }
        // The other driver, which passes other options; and joining what was joined.
        let mut clang = tools::CLANGXX.command();
        let path = format!("--ld-path={}", relink_tests::ld::bin_dir().join("ld.relink").display());
        clang.current_dir(folder.path("")).args([&path, "-r", "a.o", "-o", "one.o"]);
        tools::say(&mut clang).ok();
        gxx(&folder, true, &["-r", "one.o", "b.o", "-o", "both.o"]);
        gxx(&folder, false, &["both.o", "-o", "out"]);
        assert_eq!(folder.run("out"), SAYS);
    }
    // The same bytes at any number of threads.
    gxx(&folder, true, &["-r", "a.o", "b.o", "-Wl,--threads=1", "-o", "again.o"]);
    assert!(folder.bytes("joined.o") == folder.bytes("again.o"));
}

#[test]
fn groups_are_kept_once_and_sections_of_one_name_are_joined() {
    let folder = Folder::new();
    compiled(&folder, &tools::GXX, "-O0");
    gxx(&folder, true, &["-r", "a.o", "b.o", "-o", "joined.o"]);
    let bytes = folder.bytes("joined.o");
    let elf = Elf::parse(&bytes);
    let names = elf.defined_names();
    let times = |name: &str| names.iter().filter(|known| *known == name).count();
    assert_eq!(
        (times("main"), times("_Z7thrower"), times("_Z7countedi"), times("_ZL5guard")),
        (1, 0, 1, 0),
        "{names:?}"
    );
    let sections = folder.readelf("-S", "joined.o");
    let count = |name: &str| sections.lines().filter(|line| line.contains(&format!(" {name} "))).count();
    assert_eq!(
        (count(".text"), count(".eh_frame"), count(".text._Z7countedi"), count(".note.GNU-stack")),
        (1, 1, 1, 1)
    );
    assert!(folder.readelf("-g", "joined.o").contains("[_Z7countedi]"));
    assert_eq!(folder.readelf("-g", "joined.o").matches("[_Z7countedi]").count(), 1);
}

#[test]
fn symbols_are_kept_dropped_and_left_common_as_asked() {
    let folder = Folder::new();
    let text = "int common; static int hidden(void) { return 1; } static int unused = 5; int *p = &unused;
        __attribute__((weak)) int weak(void) { return 2; } __attribute__((visibility(\"hidden\"))) int inner(void) { return 3; }
        extern int strong_use(void), weak_use(void) __attribute__((weak));
        int all(void) { return hidden() + weak() + inner() + strong_use() + (weak_use ? 1 : 0) + common; }";
    folder.unit("a", &["-O0", "-g", "-fcommon"], text).unit(
        "b",
        &["-O0", "-g", "-fcommon"],
        "int common; int more(void) { return common; }",
    );
    folder.assembled("v", ".globl impl\n.symver impl, api@@V2\nimpl: call other@PLT\n.symver other, old@V1\n.Llabel: nop\nkept: .quad .Llabel\n");
    let joined = |options: &[&str]| {
        folder.ld(&[&["-r", "a.o", "b.o", "v.o", "-o", "out.o"], options].concat()).ok();
        folder.readelf("-s", "out.o")
    };
    let has = |table: &str, words: &[&str]| {
        table.lines().any(|line| words.iter().all(|word| line.split_whitespace().any(|known| known == *word)))
    };
    let plain = joined(&[]);
    for words in [
        &["COM", "common", "4"][..],
        &["LOCAL", "FUNC", "hidden"],
        &["WEAK", "FUNC", "weak"],
        &["HIDDEN", "inner"],
        &["GLOBAL", "UND", "strong_use"],
        &["WEAK", "UND", "weak_use"],
        &["api@@V2"],
        &["UND", "old@V1"],
        &["LOCAL", "kept"],
        &["FILE", "a.c"],
    ] {
        assert!(has(&plain, words), "{words:?}: {plain}");
    }
    assert_eq!(plain.matches(" common\n").count(), 1);
    assert!(!has(&joined(&["-d"]), &["COM", "common"]) && has(&joined(&["-d"]), &["OBJECT", "common"]));
    let discarded = joined(&["-x"]);
    assert!(
        !has(&discarded, &["FILE"]) && !has(&discarded, &["kept"]) && has(&discarded, &["all"]),
        "{discarded}"
    );
    let debug = |options: &[&str]| {
        joined(options);
        folder.readelf("-S", "out.o").contains(".debug_info")
    };
    assert_eq!((debug(&[]), debug(&["-S"]), debug(&["-s"])), (true, false, false));
    assert!(has(&joined(&["-s"]), &["all"]) && !has(&joined(&["-s"]), &["kept"]));
    assert!(has(&joined(&["-u", "wanted"]), &["UND", "wanted"]));
    assert!(has(&joined(&["--defsym=second=all", "--defsym=number=5"]), &["FUNC", "second"]));
    assert!(has(&joined(&["--defsym=number=5"]), &["ABS", "number"]));
    assert!(has(&joined(&["--wrap=strong_use"]), &["UND", "__wrap_strong_use"]));
}

#[test]
fn garbage_collection_of_objects_needs_a_root() {
    let folder = Folder::new();
    let text =
        "int used(void) { return 1; } int unused(void) { return 2; } int root(void) { return used(); }";
    folder.unit("a", &["-O0", "-g", "-ffunction-sections"], text);
    let said = folder.ld(&["-r", "--gc-sections", "a.o", "-o", "out.o"]);
    assert!(said.status != 0 && said.stderr.contains("needs a symbol to start from"), "{said}");
    folder.ld(&["-r", "--gc-sections", "-u", "root", "a.o", "-o", "out.o"]).ok();
    let bytes = folder.bytes("out.o");
    let names = Elf::parse(&bytes).defined_names();
    assert!(names.contains(&"used".into()) && !names.contains(&"unused".into()), "{names:?}");
    folder.unit("main", &["-O0"], "int root(void); int main(void) { return root() - 1; }");
    folder.link_bfd(&["main.o", "out.o", "-o", "out"]);
    assert_eq!(folder.run("out"), "");
}

#[test]
fn objects_of_many_sections_are_joined() {
    const SECTIONS: usize = 40_000;
    let folder = Folder::new();
    for unit in ["a", "b"] {
        let section =
            |n: usize| format!(".section .data.{unit}{n},\"aw\"\n.globl {unit}{n}\n{unit}{n}: .long {n}\n");
        let text: String = (0..SECTIONS).map(section).collect();
        folder.assembled(unit, &format!("{text}.section .note.GNU-stack,\"\",@progbits\n"));
    }
    folder.unit(
        "main",
        &["-O1"],
        "extern int a39999, b39999, a7; int main(void) { return a39999 - b39999 + a7 - 7; }",
    );
    folder.ld(&["-r", "a.o", "b.o", "-o", "joined.o"]).ok();
    assert!(folder.readelf("-h", "joined.o").contains("(800"), "more sections than 16 bits count");
    for link in [Folder::link as fn(&Folder, &[&str]) -> _, Folder::link_bfd] {
        link(&folder, &["main.o", "joined.o", "-o", "out"]);
        assert_eq!(folder.run("out"), "");
    }
}

#[test]
fn joining_is_never_incremental_and_says_so() {
    let folder = Folder::new();
    folder.unit("a", &["-O0"], "int a(void) { return 1; }");
    for _ in 0..2 {
        folder.ld(&["-r", "a.o", "-o", "out.o", "--incremental", "--report=report.json"]).ok();
        let report: serde_json::Value = serde_json::from_slice(&folder.bytes("report.json")).unwrap();
        assert_eq!(report["reasons"][0]["kind"], "relocatable-output", "{report}");
        assert_eq!(report["outcome"], "fell_back_full");
    }
    let mut log = relink_tests::ld::relink();
    let said = tools::say(log.current_dir(folder.path("")).args(["log", "out.o"])).ok();
    assert_eq!(
        said.stdout.matches("relocatable-output").count() + said.stdout.matches("elocatable output").count(),
        2,
        "{said}"
    );
    assert!(!folder.path(".relink/out.o/current").exists(), "no state is kept");
    let plain = folder.bytes("out.o");
    folder.ld(&["-r", "a.o", "-o", "again.o"]).ok();
    assert!(plain == folder.bytes("again.o"));
    // The next link under this name is a program, and starts anew.
    folder.unit("main", &["-O0"], "int a(void); int main(void) { return a() - 1; }");
    assert_eq!(folder.patch("out.o", &["main.o", "a.o"]).0, "full");
}

#[test]
fn what_an_object_can_not_be_is_refused() {
    let folder = Folder::new();
    folder.unit("a", &["-fPIC"], "int a(void) { return 1; }");
    folder.unit("twice", &["-fPIC"], "int a(void) { return 2; }");
    folder.link(&["-shared", "a.o", "-o", "liba.so"]);
    for (args, why) in [
        (&["-r", "-shared", "a.o"][..], "-r can't go with -shared or -pie"),
        (&["-pie", "-r", "a.o"], "-r can't go with -shared or -pie"),
        (&["-r", "a.o", "liba.so"], "shared library"),
        (&["-r", "a.o", "twice.o"], "duplicate symbol: a"),
        (&["-r", "a.o", "--defsym=b=a*2"], "needs addresses"),
        (&["-r", "a.o", "-Ttext=0x1000"], "can't be placed"),
    ] {
        let said = folder.ld(&[args, &["-o", "out.o"]].concat());
        assert!(
            said.status != 0 && said.stderr.contains(why) && !said.stderr.contains("panicked"),
            "{args:?}: {said}"
        );
    }
    // -l finds the archive, never the library.
    folder.file("liba.a", &relink_tests::cc::archive(&[("a.o", &folder.bytes("a.o"))]));
    folder.unit("user", &[], "int a(void); int user(void) { return a(); }");
    folder.ld(&["-r", "user.o", "-L.", "-la", "-o", "out.o"]).ok();
    let bytes = folder.bytes("out.o");
    assert!(Elf::parse(&bytes).defined_names().contains(&"a".into()));
}
