//! Options and section flags that programs use now and then: each would go unnoticed if it did nothing.

use relink_tests::cc::{self, Cc};
use relink_tests::elf::Elf;
use relink_tests::folder::Folder;
use relink_tests::tools;
use relink_tests::{lines, read, readers};

const WRAPPED_MAIN: &str = r#"
#include <stdio.h>
int f(int); int g(int); int own(int);
int main(void) { printf("%d %d %d\n", f(1), g(1), own(1)); return 0; }
"#;

#[test]
fn wrapped_references_go_to_wrappers_and_the_real_ones_to_the_wrapped() {
    let folder = Folder::new();
    let f = Cc::new(["-O1"]).text("f.c", "int f(int x) { return x + 1; }");
    let wrap = "int __real_f(int); int __wrap_f(int x) { return 10 * __real_f(x); }
                int __real_g(int); int __wrap_g(int x) { return 100 * __real_g(x); }";
    let wrap = Cc::new(["-O1"]).text("wrap.c", wrap);
    // A unit's calls of its own function are no undefined references.
    let g = "__attribute__((noipa)) int g(int x) { return x + 2; } int own(int x) { return g(x); }";
    folder
        .unit("main", &["-O1"], WRAPPED_MAIN)
        .unit("g", &["-O1"], g)
        .file("libwrap.a", &cc::archive(&[("wrap.o", &wrap)]))
        .file("libf.a", &cc::archive(&[("f.o", &f)]));
    let inputs = ["main.o", "g.o", "libwrap.a", "libf.a", "-Wl,--wrap=f,--wrap,g"];
    folder.link_bfd(&[&inputs[..], &["-o", "bfd"]].concat());
    assert_eq!(folder.run("bfd"), "20 300 3\n");
    for (shape, output) in [("-pie", "pie"), ("-no-pie", "exec"), ("-static", "static")] {
        folder.link(&[&inputs[..], &[shape, "-o", output]].concat());
        assert_eq!(folder.run(output), "20 300 3\n", "{shape}");
    }
    folder.link(&["main.o", "g.o", "libf.a", "-o", "plain"]);
    assert_eq!(folder.run("plain"), "2 3 3\n");
    // Nobody defines the wrapper.
    let said = folder.try_link(&["main.o", "g.o", "libf.a", "-Wl,--wrap=f", "-o", "none"]);
    assert!(said.status != 0 && said.stderr.contains("undefined symbol: __wrap_f"), "{said}");
    folder.link(&["main.o", "g.o", "libf.a", "-Wl,--wrap=f,--defsym=__wrap_f=__real_f", "-o", "defsym"]);
    assert_eq!(folder.run("defsym"), "2 3 3\n");
}

#[test]
fn wrapped_names_are_told_apart_in_patches() {
    let folder = Folder::new();
    let main = |from: &str, to: &str| WRAPPED_MAIN.replace(from, to);
    let g = |add: u32| {
        format!(
            "__attribute__((noipa)) int g(int x) {{ return x + {add}; }} int __real_g(int);
                 int own(int x) {{ return g(x) + __real_g(x); }}"
        )
    };
    let wrap = |f: u32| {
        format!(
            "int __real_f(int); int __wrap_f(int x) {{ return {f} * __real_f(x); }}
                 int __real_g(int); int __wrap_g(int x) {{ return 100 * __real_g(x); }}"
        )
    };
    folder
        .unit("main", &["-O1", "-fPIE"], WRAPPED_MAIN)
        .unit("g", &["-O1", "-fPIE"], &g(2))
        .unit("f", &["-O1"], "int f(int x) { return x + 1; }")
        .unit("wrap", &["-O1", "-fPIE"], &wrap(10));
    let inputs = ["-pie", "main.o", "f.o", "g.o", "wrap.o", "-Wl,--wrap=f,--wrap=g"];
    assert_eq!(folder.patch("out", &inputs).0, "full");
    assert_eq!(folder.run("out"), "20 300 6\n");
    folder.unit("wrap", &["-O1", "-fPIE"], &wrap(20));
    assert_eq!(folder.patch("out", &inputs), ("patched".into(), vec![]));
    assert_eq!(folder.run("out"), "40 300 6\n");
    // The same object defines a name and means it by two others.
    folder.unit("g", &["-O1", "-fPIE"], &g(4));
    assert_eq!(folder.patch("out", &inputs), ("patched".into(), vec![]));
    assert_eq!(folder.run("out"), "40 500 10\n");
    // A reference less, and one more: both names are in the image.
    folder.unit("main", &["-O1", "-fPIE"], &main("g(1), own(1)", "f(2), own(2)"));
    assert_eq!(folder.patch("out", &inputs), ("patched".into(), vec![]));
    assert_eq!(folder.run("out"), "40 60 12\n");
    let real = main("int f(int);", "int __real_f(int); int f(int);").replace("g(1)", "__real_f(1)");
    folder.unit("main", &["-O1", "-fPIE"], &real);
    assert_eq!(folder.patch("out", &inputs), ("patched".into(), vec![]));
    assert_eq!(folder.run("out"), "40 2 10\n");
    folder.unit("wrap", &["-O1", "-fPIE"], &wrap(20).replace("__wrap_g", "__wrap_h"));
    let said = folder.try_link(&[&inputs[..], &["-o", "out", "-Wl,--incremental"]].concat());
    assert_eq!(said.status, 0, "g is not wanted any more: {said}");
}

/// Tables of pointers: even places, and an odd one.
fn pointers(second: &str, more: &str) -> String {
    format!(
        r#"
#include <stdio.h>
static int one(void) {{ return 1; }}
static int two(void) {{ return 2; }}
int (*table[])(void) = {{ one, {second}, one, two, one, one, two {more} }};
static struct __attribute__((packed)) {{ char c; int (*f)(void); }} odd = {{ 'x', two }};
int *const self = (int *)&self;
int run(void)
{{
    int sum = 0;
    for (unsigned i = 0; i < sizeof table / sizeof *table; i++) sum = 10 * sum + table[i]();
    __asm__("" : "+m"(odd));
    return 10 * sum + odd.f() + (self != (int *)&self);
}}
"#
    )
}

const RUN_MAIN: &str =
    "#include <stdio.h>\nint run(void); int main(void) { printf(\"%d\\n\", run()); return 0; }";

#[test]
fn relative_relocations_are_packed() {
    let folder = Folder::new();
    folder.unit("table", &["-O1", "-g", "-fPIC", "-fno-toplevel-reorder"], &pointers("two", "")).unit(
        "main",
        &["-O1", "-fPIE"],
        RUN_MAIN,
    );
    let pack = "-Wl,-z,pack-relative-relocs";
    let pie = ["-pie", "main.o", "table.o"];
    folder.link(&[&pie[..], &["-o", "plain"]].concat());
    folder.link(&[&pie[..], &[pack, "-o", "packed"]].concat());
    folder.link_bfd(&[&pie[..], &[pack, "-o", "bfd"]].concat());
    folder.link(&["-shared", "table.o", pack, "-o", "libtable.so"]);
    folder.link(&["-pie", "main.o", "-L.", "-ltable", "-Wl,-rpath,$ORIGIN", "-o", "user"]);
    folder.link(&["-no-pie", "main.o", "table.o", pack, "-o", "fixed"]);
    folder.link(&["-static-pie", "main.o", "table.o", pack, "-o", "static-pie"]);
    for program in ["plain", "packed", "user", "fixed", "bfd", "static-pie"] {
        assert_eq!(folder.run(program), "12121122\n", "{program}");
    }
    for image in ["packed", "libtable.so"] {
        let dynamic = folder.readelf("-d", image);
        for tag in ["(RELR)", "(RELRSZ)", "(RELRENT)", "(RELACOUNT)"] {
            assert!(dynamic.contains(tag), "{image}: {tag}: {dynamic}");
        }
        let relocs = folder.readelf("-r", image);
        let relative = relocs.lines().filter(|line| line.contains("R_X86_64_RELATIVE")).count();
        assert_eq!(relative, 1, "only the odd place is left: {relocs}");
    }
    assert!(folder.readelf("-d", "static-pie").contains("(RELR)"));
    assert!(folder.readelf("-V", "packed").contains("GLIBC_ABI_DT_RELR"), "libc must know of it");
    let table = read(folder.path("libtable.so"));
    let needs_libc = folder.readelf("-d", "libtable.so").contains("[libc.so.6]");
    assert_eq!(folder.readelf("-V", "libtable.so").contains("GLIBC_ABI_DT_RELR"), needs_libc);
    assert!(Elf::parse(&table).section_bytes(".relr.dyn").len() <= 5 * 8);
    for image in ["plain", "fixed"] {
        assert!(!folder.readelf("-d", image).contains("RELR"), "{image}");
        assert!(!folder.readelf("-V", image).contains("DT_RELR"), "{image}");
    }
    readers::assert_no_worse(&folder.path("packed"), &readers::complaints(&folder.path("bfd")));
}

#[test]
fn packed_relocations_follow_pointers_in_patches() {
    let folder = Folder::new();
    let unit = |second: &str, more: &str| {
        folder.unit("table", &["-O1", "-fPIC", "-fno-toplevel-reorder"], &pointers(second, more));
    };
    folder.unit("main", &["-O1", "-fPIE"], RUN_MAIN);
    unit("two", "");
    let inputs = ["-pie", "main.o", "table.o", "-Wl,-z,pack-relative-relocs"];
    assert_eq!(folder.patch("out", &inputs).0, "full");
    assert_eq!(folder.run("out"), "12121122\n");
    // Another target at the same place: what is loaded there is all that changes.
    unit("one", "");
    assert_eq!(folder.patch("out", &inputs), ("patched".into(), vec![]));
    assert_eq!(folder.run("out"), "11121122\n");
    // A number where a pointer was, in the same bytes.
    unit("two", ", one");
    assert_eq!(folder.patch("out", &inputs), ("patched".into(), vec![]));
    assert_eq!(folder.run("out"), "121211212\n");
    // Where the compiler would choose another section for each of them.
    let data = "__attribute__((section(\".data.mine\")))";
    let pointer =
        |value: &str| format!("int x; void *p {data} = {value}; int run(void) {{ return p == &x; }}");
    folder.unit("table", &["-O1", "-fPIC"], &pointer("&x"));
    folder.patch("out", &inputs);
    assert_eq!(folder.run("out"), "1\n");
    folder.unit("table", &["-O1", "-fPIC"], &pointer("(void *)8"));
    assert_eq!(folder.patch("out", &inputs), ("patched".into(), vec![]));
    assert_eq!(folder.run("out"), "0\n");
}

#[test]
fn spare_got_slots_are_among_the_packed_places() {
    let folder = Folder::new();
    // `push` is an instruction that keeps its GOT slot in any case.
    let through = |name: &str| {
        format!(
            "int run(void) {{ int (*f)(void); \
             __asm__(\"pushq {name}@GOTPCREL(%%rip)\\n\\tpopq %0\" : \"=r\"(f)); return f(); }}"
        )
    };
    folder
        .unit("main", &["-O1", "-fPIE"], RUN_MAIN)
        .unit("both", &["-O1", "-fPIE"], "int first(void) { return 1; } int other(void) { return 2; }")
        .unit("got", &["-O1", "-fPIE", "-mno-red-zone"], &through("first"));
    let inputs = ["-pie", "main.o", "both.o", "got.o", "-Wl,-z,pack-relative-relocs"];
    assert_eq!(folder.patch("out", &inputs).0, "full");
    assert_eq!(folder.run("out"), "1\n");
    folder.unit("got", &["-O1", "-fPIE", "-mno-red-zone"], &through("other"));
    assert_eq!(folder.patch("out", &inputs), ("patched".into(), vec![]));
    assert_eq!(folder.run("out"), "2\n");
}

const DEBUGGED: &str = r#"
#include <stdio.h>
#include <stdlib.h>
struct pair { int first, second; };
int sum(struct pair *pair)
{
    return pair->first + pair->second; /* here */
}
int main(void) { struct pair p = { 20, 22 }; printf("%d\n", sum(&p)); return 0; }
"#;

#[test]
fn debug_sections_are_compressed() {
    let folder = Folder::new();
    folder.unit("main", &["-O0", "-g"], DEBUGGED);
    folder.link(&["main.o", "-o", "plain"]);
    folder.link(&["main.o", "-Wl,--compress-debug-sections=none", "-o", "none"]);
    assert!(read(folder.path("plain")) == read(folder.path("none")));
    let plain = read(folder.path("plain"));
    let elf = Elf::parse(&plain);
    let measure = readers::complaints(&folder.path("plain"));
    for format in ["zlib", "zstd"] {
        let flag = format!("-Wl,--compress-debug-sections={format}");
        folder.link(&["main.o", &flag, "-o", format]);
        folder.link(&["main.o", &flag, "-Wl,--threads=1", "-o", "again"]);
        let image = read(folder.path(format));
        assert!(image == read(folder.path("again")), "{format}: the same bytes at any number of threads");
        assert_eq!(folder.run(format), "42\n");
        assert!(image.len() < plain.len(), "{format}: {} of {}", image.len(), plain.len());
        let sections = folder.readelf("-t", format);
        assert!(sections.contains("COMPRESSED"), "{sections}");
        let name = format!("{}, ", format.to_uppercase());
        assert!(sections.contains(&name), "{format}: {sections}");
        let at = lines::address_of_line(&folder.path(format), "main.c", 7);
        assert_eq!(at, lines::address_of_line(&folder.path("plain"), "main.c", 7));
        if format == "zlib" {
            lines::assert_places(&folder.path(format), &[(at, ("main.c".into(), 7))]);
        }
        // Not all readers of all systems can do zstd.
        let able =
            |reader: &str| format == "zlib" || reader.starts_with("readelf") || reader.starts_with("gdb");
        for (what, times) in readers::complaints(&folder.path(format)) {
            assert!(
                !able(&what) || measure.get(&what).is_some_and(|known| *known >= times),
                "{format}: {what}"
            );
        }
        // As others decompress it.
        folder.objcopy(&["--decompress-debug-sections", format, "inflated"]);
        let inflated = read(folder.path("inflated"));
        for section in [".debug_info", ".debug_line", ".debug_str", ".debug_abbrev"] {
            assert!(Elf::parse(&inflated).section_bytes(section) == elf.section_bytes(section), "{section}");
        }
    }
    let flags = "-Wl,--incremental,--compress-debug-sections=zlib";
    let said = folder.link(&["main.o", flags, "-o", "incremental"]);
    assert!(said.stderr.contains("no effect with --incremental"), "{said}");
    assert!(!folder.readelf("-t", "incremental").contains("COMPRESSED"));
}

#[test]
fn compressed_inputs_are_what_they_were_before() {
    let folder = Folder::new();
    folder.unit("main", &["-O0", "-g"], DEBUGGED);
    folder.link(&["main.o", "-o", "plain"]);
    let plain = read(folder.path("plain"));
    let original = read(folder.path("main.o"));
    for format in ["zlib-gabi", "zlib-gnu", "zstd"] {
        folder.file("main.o", &original);
        folder.objcopy(&[&format!("--compress-debug-sections={format}"), "main.o", "packed.o"]);
        let packed = read(folder.path("packed.o"));
        assert!(packed.len() < original.len(), "{format}");
        // Under the same name, which the symbol table does not have but messages do.
        folder.file("main.o", &packed);
        folder.link(&["main.o", "-o", "out"]);
        assert!(read(folder.path("out")) == plain, "{format}");
    }
    // A claim that no memory would hold, and one that is wrong.
    folder.file("main.o", &original);
    folder.objcopy(&["--compress-debug-sections=zlib-gabi", "main.o", "packed.o"]);
    let packed = read(folder.path("packed.o"));
    let at = Elf::parse(&packed).section(".debug_info").start as usize;
    for (size, why) in [(1_u64 << 40, "far more than the file has"), (77, "recompile without -gz")] {
        let mut bomb = packed.clone();
        bomb[at + 8..at + 16].copy_from_slice(&size.to_le_bytes());
        folder.file("bomb.o", &bomb);
        let said = folder.try_link(&["bomb.o", "-o", "out"]);
        assert!(said.status != 0 && said.stderr.contains(why), "{said}");
        assert!(said.stderr.contains("bomb.o") && said.stderr.contains(".debug_info"), "{said}");
    }
}

#[test]
fn compressed_inputs_are_patched() {
    let folder = Folder::new();
    let unit = |from: &str, to: &str| folder.unit("main", &["-O0", "-g", "-gz"], &DEBUGGED.replace(from, to));
    unit("", "");
    assert!(folder.readelf("-t", "main.o").contains("COMPRESSED"));
    assert_eq!(folder.patch("out", &["main.o"]).0, "full");
    unit("pair->first + pair->second", "pair->first - pair->second");
    assert_eq!(folder.patch("out", &["main.o"]), ("patched".into(), vec![]));
    assert_eq!(folder.run("out"), "-2\n");
}

#[test]
fn what_libraries_lack_is_an_error_of_programs() {
    let folder = Folder::new();
    folder
        .unit("main", &["-fPIE"], "int api(void); int main(void) { return api(); }")
        .unit("lib", &["-fPIC"], "int lacking(void); int api(void) { return lacking() - 7; }")
        .unit("given", &["-fPIC"], "int lacking(void) { return 7; }");
    folder.link(&["-shared", "lib.o", "-o", "libapi.so"]);
    let program = ["main.o", "-L.", "-lapi", "-Wl,-rpath,$ORIGIN", "-o", "out"];
    let with = |flags: &[&str]| folder.try_link(&[flags, &program].concat());
    let message = "undefined reference due to --no-allow-shlib-undefined: lacking\n>>> referenced by ";
    for flags in [&[][..], &["-Wl,--no-allow-shlib-undefined"], &["-no-pie"]] {
        let said = with(flags);
        assert!(said.status != 0 && said.stderr.contains(message), "{said}");
        assert!(said.stderr.contains("libapi.so"), "{said}");
    }
    with(&["-Wl,--allow-shlib-undefined"]).ok();
    with(&["-Wl,--unresolved-symbols=ignore-in-shared-libs"]).ok();
    let said = with(&["-Wl,--warn-unresolved-symbols"]).ok();
    assert!(said.stderr.contains(message) && said.stderr.contains("warning: "), "{said}");
    // The program itself has it; or another library.
    with(&["given.o"]).ok();
    assert_eq!(folder.run("out"), "");
    folder.link(&["-shared", "given.o", "-o", "libgiven.so"]);
    folder.link(&[&program[..], &["-lgiven", "-Wl,--no-as-needed"]].concat());
    // Libraries of libraries may have it: only who knows all of them can tell.
    folder.link(&[
        "-shared",
        "lib.o",
        "-L.",
        "-Wl,--no-as-needed",
        "-lgiven",
        "-Wl,-rpath,$ORIGIN",
        "-o",
        "libapi.so",
    ]);
    with(&[]).ok();
    assert_eq!(folder.run("out"), "");
    // A library may lack what programs will have, unless it says otherwise.
    folder.link(&["-shared", "lib.o", "-o", "libapi.so"]);
    folder.link(&["-shared", "main.o", "-L.", "-lapi", "-o", "libmore.so"]);
    let said = folder.try_link(&[
        "-shared",
        "main.o",
        "-L.",
        "-lapi",
        "-Wl,--no-allow-shlib-undefined",
        "-o",
        "m.so",
    ]);
    assert!(said.status != 0 && said.stderr.contains(message), "{said}");
}

#[test]
fn unresolved_symbols_are_listed_in_warnings() {
    let folder = Folder::new();
    let text = "int absent(void); extern int weak __attribute__((weak));
                int main(int n, char **v) { return n > 9 ? absent() : &weak != 0; }";
    folder.unit("main", &["-O1", "-fPIE"], text);
    let link = |flag: &str| folder.try_link(&["-pie", "main.o", flag, "-Wl,-z,lazy", "-o", "out"]);
    let said = link("-Wl,--error-unresolved-symbols");
    assert!(said.status != 0 && said.stderr.contains("error: undefined symbol: absent"), "{said}");
    let said = link("-Wl,--warn-unresolved-symbols").ok();
    assert!(said.stderr.contains("warning: undefined symbol: absent\n>>> referenced by main"), "{said}");
    assert_eq!(said.stderr.matches("undefined symbol").count(), 1, "weak ones are nobody's business: {said}");
    assert_eq!(folder.run("out"), "");
    let said = link("-Wl,--warn-unresolved-symbols,--fatal-warnings");
    assert!(said.status != 0, "{said}");
    for method in ["ignore-all", "ignore-in-object-files"] {
        let said = link(&format!("-Wl,--unresolved-symbols={method}")).ok();
        assert_eq!(said.stderr, "", "{said}");
        assert_eq!(folder.run("out"), "");
    }
    // Where no loader looks for it, it is zero.
    for shape in ["-static", "-static-pie"] {
        let said = folder.link(&[shape, "main.o", "-Wl,--warn-unresolved-symbols", "-o", "out"]);
        assert!(said.stderr.contains("warning: undefined symbol: absent"), "{said}");
        assert_eq!(folder.run("out"), "", "{shape}");
    }
    // A link that could be patched repeats them, too.
    let args = ["-pie", "main.o", "-Wl,--warn-unresolved-symbols,-z,lazy"];
    assert_eq!(folder.patch("again", &args).0, "full");
    for _ in 0..2 {
        assert_eq!(
            folder.patch("again", &args),
            ("fell_back_full".into(), vec!["warnings-to-repeat".into()])
        );
        let said = folder.link(&[&args[..], &["-Wl,--incremental", "-o", "again"]].concat());
        assert!(said.stderr.contains("warning: undefined symbol: absent"), "{said}");
    }
    for method in ["report-all", "ignore-in-shared-libs"] {
        let said = link(&format!("-Wl,--unresolved-symbols={method}"));
        assert!(said.status != 0 && said.stderr.contains("undefined symbol: absent"), "{said}");
    }
}

#[test]
fn first_of_several_definitions_is_taken() {
    let folder = Folder::new();
    folder
        .unit("main", &["-fPIE"], "int f(void); int main(void) { return f() - 1; }")
        .unit("one", &["-fPIC"], "int f(void) { return 1; }")
        .unit("two", &["-fPIC"], "int f(void) { return 2; }");
    let inputs = ["main.o", "one.o", "two.o"];
    let said = folder.try_link(&[&inputs[..], &["-o", "out"]].concat());
    assert!(said.status != 0 && said.stderr.contains("duplicate symbol: f"), "{said}");
    for flag in ["-Wl,--allow-multiple-definition", "-Wl,-z,muldefs"] {
        folder.link(&[&inputs[..], &[flag, "-o", "out"]].concat());
        assert_eq!(folder.run("out"), "", "{flag}");
    }
    folder.link(&["-shared", "one.o", "two.o", "-Wl,-z,muldefs", "-o", "libf.so"]);
    folder.link(&["main.o", "-L.", "-lf", "-Wl,-rpath,$ORIGIN", "-o", "user"]);
    assert_eq!(folder.run("user"), "");
}

#[test]
fn stripped_dynamic_outputs_run() {
    let folder = Folder::new();
    let lib = "static int hidden(void) { static int calls; return calls += 5; }
               int api(void) { hidden(); return hidden() - 10; }";
    folder
        .unit("main", &["-O0", "-g", "-fPIE"], "int api(void); int main(void) { return api(); }")
        .unit("lib", &["-O0", "-g", "-fPIC"], lib)
        .assembled("label", ".text\n.Llabel: nop\n.globl labelled\nlabelled: .quad .Llabel - .\n");
    for (flag, symtab, locals, debug) in [
        ("-X", true, true, true),
        ("-x", true, false, true),
        ("-S", true, true, false),
        ("-s", false, false, false),
    ] {
        let flag = format!("-Wl,{flag}");
        folder.link(&["-shared", "lib.o", "label.o", &flag, "-o", "libapi.so"]);
        folder.link(&["-pie", "main.o", "-L.", "-lapi", &flag, "-Wl,-rpath,$ORIGIN", "-o", "out"]);
        assert_eq!(folder.run("out"), "", "{flag}");
        for image in ["libapi.so", "out"] {
            let sections = folder.readelf("-S", image);
            assert_eq!(sections.contains(".symtab"), symtab, "{flag} {image}: {sections}");
            assert_eq!(sections.contains(".debug_info"), debug, "{flag} {image}: {sections}");
            assert!(sections.contains(".dynsym"), "{flag} {image}");
        }
        let symbols = folder.readelf("-s", "libapi.so");
        assert_eq!(symbols.contains(" hidden\n"), locals, "{flag}: {symbols}");
        assert!(!symbols.contains(".Llabel"), "{flag}: {symbols}");
        assert!(symbols.contains(" api\n"), "{flag}: {symbols}");
        let lint = tools::EU_ELFLINT.run(["--gnu-ld", &folder.path("libapi.so").display().to_string()]);
        assert!(lint.stdout.contains("No errors"), "{flag}: {lint}");
    }
}

/// Sections that describe others, against the order of these.
const LINKED: &str = r#"
    .section .meta,"ao",@progbits,.text.second,unique,1
    .byte 2
    .section .meta,"ao",@progbits,.text.first,unique,2
    .byte 1
    .section .junk,"e",@progbits
    .asciz "left out"
    .section .text.first,"ax",@progbits
    .globl first
first:  ret
    .section .text.second,"ax",@progbits
    .globl second
second: ret
    .section .note.GNU-stack,"",@progbits
"#;

#[test]
fn linked_sections_follow_the_order_of_what_they_describe() {
    let folder = Folder::new();
    let again = LINKED.replace("first", "third").replace("second", "fourth");
    folder
        .unit("main", &["-O1"], "int main(void) { return 0; }")
        .assembled("a", LINKED)
        .assembled("b", &again.replace(".byte 1", ".byte 3").replace(".byte 2", ".byte 4"));
    for (order, bytes) in [(["a.o", "b.o"], [1, 2, 3, 4]), (["b.o", "a.o"], [3, 4, 1, 2])] {
        folder.link(&["main.o", order[0], order[1], "-o", "out"]);
        let image = read(folder.path("out"));
        assert_eq!(Elf::parse(&image).section_bytes(".meta"), bytes);
        assert!(!folder.readelf("-S", "out").contains(".junk"), "SHF_EXCLUDE");
        assert!(!image.windows(8).any(|bytes| bytes == b"left out"));
    }
    // They live with what they describe.
    folder.link(&["main.o", "a.o", "b.o", "-Wl,--gc-sections,-u,fourth", "-o", "out"]);
    assert_eq!(Elf::parse(&read(folder.path("out"))).section_bytes(".meta"), [4]);
    assert_eq!(folder.run("out"), "");
}

#[test]
fn retained_sections_survive_garbage_collection() {
    let folder = Folder::new();
    let text = r#"
        __attribute__((used, retain)) static const char kept[] = "kept for a tool";
        __attribute__((used)) static const char dropped[] = "dropped as nobody";
        int main(void) { return 0; }"#;
    folder.unit("main", &["-O1", "-fdata-sections"], text);
    let has =
        |words: &str| read(folder.path("out")).windows(words.len()).any(|bytes| bytes == words.as_bytes());
    folder.link(&["main.o", "-Wl,--gc-sections", "-o", "out"]);
    assert_eq!((has("kept for a tool"), has("dropped as nobody")), (true, false));
    folder.link(&["main.o", "-o", "out"]);
    assert_eq!((has("kept for a tool"), has("dropped as nobody")), (true, true));
}

#[test]
fn objects_may_have_more_sections_than_16_bits_count() {
    const SECTIONS: usize = 66_000;
    let folder = Folder::new();
    let mut text = String::new();
    for number in 0..SECTIONS {
        text += &format!(".section .data.d{number},\"aw\"\n.globl d{number}\nd{number}: .long {number}\n");
    }
    text += ".section .data.table,\"aw\"\n.globl table\ntable: .quad d0, d65279, d65280, d65535, d65536, d65999\n";
    folder.assembled("many", &text).unit(
        "main",
        &["-O1", "-fPIE"],
        "#include <stdio.h>\nextern int *table[6], d65998;
         int main(void) { for (int i = 0; i < 6; i++) printf(\"%d \", *table[i]); printf(\"%d\\n\", d65998); return 0; }",
    );
    for flags in [&["-pie"][..], &["-no-pie", "-Wl,--gc-sections"]] {
        folder.link(&[flags, &["main.o", "many.o", "-o", "out"]].concat());
        assert_eq!(folder.run("out"), "0 65279 65280 65535 65536 65999 65998\n");
    }
    assert_eq!(folder.patch("out", &["-pie", "main.o", "many.o"]).0, "full");
    folder.assembled("many", &text.replace(".long 65280\n", ".long -1\n"));
    assert_eq!(folder.patch("out", &["-pie", "main.o", "many.o"]), ("patched".into(), vec![]));
    assert_eq!(folder.run("out"), "0 65279 -1 65535 65536 65999 65998\n");
}
