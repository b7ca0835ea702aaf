//! `seeds`: writes first inputs for the targets into `corpus/`, where cargo-fuzz looks for them, and a dictionary of
//! options. Objects and libraries are made by gcc.

use std::error::Error;
use std::path::Path;

use relink_tests::cc::{Cc, archive_with};
use relink_tests::fuzz::{tiny, words_of_help};
use relink_tests::{ld, tools};

/// One of everything that objects of C have.
const C: &str = r#"
extern int g; __thread int t = 3; static const char *names[] = {"one", "two", "three"}; int common_one;
__attribute__((weak)) int f(int x) { switch (x & 7) { case 0: return 3; case 1: return 9; case 2: return 4;
    case 3: return 77; case 4: return 12; case 5: return 1; } return x * g + t; }
const char *name(int i) { return names[i]; }
double d(double x) { return x * 3.25 + 1.5; }
__attribute__((constructor)) static void start(void) { common_one = f(3); }
__attribute__((section("entries"), used)) static int entry = 4;
static int chosen(int x) { return x; } static void *choose(void) { return chosen; }
int chosen_at_start(int) __attribute__((ifunc("choose")));
"#;
/// The same for C++.
const CXX: &str = r#"
struct E {}; struct A { virtual ~A(); virtual int f(); }; A::~A() {} int A::f() { throw E(); }
template<class T> T twice(T x) { return x + x; }
int g(int x) { try { A a; return a.f() + twice(x); } catch (E &) { return 1; } }
thread_local A ta; inline int shared_value = 3; int use() { return shared_value + ta.f(); }
"#;
/// A shared library with data, functions, aliases, TLS.
const LIBRARY: &str = r#"
extern int other(int); int data_one[4] = {1, 2}; int weak_one __attribute__((weak)); __thread int tl;
int fn(int x) { return other(x) + data_one[1] + tl; }
__attribute__((visibility("protected"))) int prot(void) { return 1; }
extern __typeof(data_one) alias_one __attribute__((alias("data_one")));
"#;
const VERSIONS: &str =
    "V1 { global: fn; data_*; extern \"C++\" { A::*; }; local: *; };\nV2 { global: prot; weak_one; } V1;\n";

fn main() -> Result<(), Box<dyn Error>> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    let write = |target: &str, name: &str, bytes: &[u8]| -> Result<(), Box<dyn Error>> {
        std::fs::create_dir_all(dir.join(target))?;
        Ok(std::fs::write(dir.join(target).join(name), bytes)?)
    };
    let c = |flags: &[&str]| Cc::new(flags.iter().copied()).text_anew("a.c", C);
    let cxx = |flags: &[&str]| Cc::cxx(flags.iter().copied()).text_anew("a.cpp", CXX);
    let (start, work) = (tiny::start(), tiny::work(1, 0));
    let objects = [
        start.clone(),
        work.clone(),
        tiny::work(2, 0),
        tiny::work(3, 200),
        tiny::library(),
        c(&["-O0"]),
        c(&["-O1", "-fPIC", "-mtls-dialect=gnu2", "-fcf-protection=full"]),
        c(&["-g", "-O2"]),
        c(&["-gdwarf-4", "-fPIC"]),
        c(&["-g", "-O1", "-gz", "-ffunction-sections", "-fdata-sections"]),
        cxx(&["-O1"]),
        cxx(&["-O1", "-g1", "-fPIC", "-ffunction-sections"]),
    ];
    for (number, object) in objects.iter().enumerate() {
        write("object", &format!("seed-{number}"), object)?;
        write("link", &format!("seed-{number}"), object)?;
    }
    for letters in ["rcsD", "rcSD", "rcsDT"] {
        let members = [("a.o", &objects[5]), ("a_member_with_a_long_name.o", &work)];
        write("archive", &format!("seed-{letters}"), &archive_with(letters, &members))?;
    }
    write("archive", "seed-0", &tiny::archive(&[("start.o", &start, "_start"), ("work.o", &work, "first")]))?;
    let unwind = unwind_of(&objects[10])?;
    write("eh_frame", "seed-0", &unwind)?;
    for (number, flags) in [
        &["-Wl,-soname,libl.so.1"][..],
        &["-Wl,--version-script=v", "-Wl,--hash-style=both", "-Wl,-z,separate-code"],
        &["-Wl,--hash-style=sysv", "-s", "-Wl,-z,noseparate-code"],
    ]
    .into_iter()
    .enumerate()
    {
        let scratch = relink_tests::scratch();
        relink_tests::write(scratch.path().join("l.c"), LIBRARY);
        relink_tests::write(scratch.path().join("v"), VERSIONS);
        let mut gcc = tools::GCC.command();
        gcc.current_dir(scratch.path())
            .args(["-shared", "-fPIC", "-nostdlib", "l.c", "-o", "l.so"])
            .args(flags);
        tools::say(&mut gcc).ok();
        write("shared_object", &format!("seed-{number}"), &relink_tests::read(scratch.path().join("l.so")))?;
    }
    let scripts = [
        "/* GNU ld script */ OUTPUT_FORMAT(elf64-x86-64)\nGROUP ( /lib/libc.so.6 -lm AS_NEEDED ( \"a b.so\" ) )",
        "INPUT(libx.a, -l:y.a) SEARCH_DIR(/lib) ENTRY(_start)",
        "OUTPUT_ARCH(i386:x86-64) GROUP ( =/usr/lib/a.so.1 AS_NEEDED ( -lb ) ) # rest",
    ];
    for (number, script) in scripts.iter().enumerate() {
        write("script", &format!("seed-{number}"), script.as_bytes())?;
    }
    for (number, script) in
        [VERSIONS, "{ local: *; };", "{ first; \"second\"; extern \"C\" { w?rd; [a-c]*; }; };"]
            .iter()
            .enumerate()
    {
        write("version_script", &format!("seed-{number}"), script.as_bytes())?;
    }
    for (number, bytes) in [
        &[0; 1][..],
        &[16, 0, 1, 0, 2, 3, 0, 0, 0],
        &[17, 3, 2, 0, 0x81, 1, 0, 0, 0, 5, 9, 0, 0xc2, 255, 255, 255, 255],
    ]
    .iter()
    .enumerate()
    {
        write("state", &format!("seed-{number}"), bytes)?;
    }
    let lines = [
        "-static -o out --build-id --eh-frame-hdr start.o work.o",
        "--incremental -static -z noseparate-code start.o -L. -lx --gc-sections --print-gc-sections",
        "-pie -dynamic-linker /ld.so -z now --incremental start.o work.o lib.so -rpath '$ORIGIN' --as-needed",
        "-shared -soname l.so --version-script=1 -Bsymbolic --hash-style=both work.o\0{ local: second; };",
        "@1 --defsym=a=first+8 -e second -z max-page-size=0x200000 --image-base=0x10000\0start.o 'work.o' \"-u\" x",
        "2 --wrap=first -T\0\0INPUT(start.o work.o) ENTRY(first)",
    ];
    for (number, line) in lines.iter().enumerate() {
        write("options", &format!("seed-{number}"), line.as_bytes())?;
    }
    let help = tools::say(ld::command().arg("--help")).ok().stdout;
    let quoted: Vec<_> = words_of_help(&help).iter().map(|word| format!("\"{word}\"\n")).collect();
    write("options", "../options.dict", quoted.concat().as_bytes())
}

/// The call frame records of an object.
fn unwind_of(object: &[u8]) -> Result<Vec<u8>, Box<dyn Error>> {
    let elf = relink_tests::elf::Elf::parse(object);
    Ok(elf.section_bytes(".eh_frame").to_vec())
}
