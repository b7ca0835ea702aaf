//! Imports and exports that come and go: under the wide gate the loader's tables are patched. Each image does what the
//! system linker's does, bound late and at once, the oracle finds nothing, and readers no more than in a link from scratch.

use object::{Object, ObjectSection};
use relink::{DynamicOptions, GateKind, HashStyle, IncrementalOptions, LinkOptions, OutputKind};
use relink_tests::cc::{Cc, Opt, archive};
use relink_tests::ld;
use relink_tests::program::{self, Inputs, Program};
use relink_tests::scene::{Scene, Stage};
use relink_tests::start::START;

/// How units are compiled, and how the program is linked.
const WAYS: [(&str, &str); 8] = [
    ("-O0 -fPIE", "-pie"),
    ("-O2 -fPIE -fcf-protection=full", "-pie -Wl,-z,now"),
    ("-O2 -fPIE -g", "-pie -Wl,--hash-style=both -Wl,-z,lazy"),
    ("-O0 -fno-pie", "-no-pie"),
    ("-O2 -fno-pie", "-no-pie -Wl,-z,now"),
    ("-O0 -fno-pie -fcf-protection=full", "-no-pie -Wl,--hash-style=sysv"),
    ("-O1 -fno-pie -g", "-no-pie -Wl,--hash-style=both -Wl,-E"),
    ("-O1 -fPIE", "-pie -Wl,-z,pack-relative-relocs"),
];

const MAIN: &str = "#include <stdio.h>\nint work(const char *);\n\
    int main(int c, char **v) { printf(\"%d\\n\", work(\"hello\") + (int)(v[c] != 0)); return 0; }\n";

/// The program without anything to import beside what main calls.
const PLAIN: &str = "int work(const char *s) { return s[0]; }\n";

/// Calls, an address in code, one in data.
const CALLS: &str = "#include <string.h>\n#include <stdlib.h>\n\
    size_t (*volatile at)(const char *);\nsize_t (*table[])(const char *) = {strlen};\n\
    int work(const char *s) { at = strlen; if (!s) at = strlen; return (int)(strlen(s) + at(s) + strspn(s, \"he\")) + (at == table[0]); }\n";

/// Others: one stays, one goes, one has a version that nothing else needs.
const OTHERS: &str = "#include <string.h>\n#include <stdlib.h>\n\
    int work(const char *s) { char *p = reallocarray(0, 4, 5); p[0] = s[1]; int x = p[0] + strspn(s, \"h\"); free(p);\n\
    return x + (getenv(\"NOBODY_HAS_IT\") != 0); }\n";

fn scene(way: (&str, &str), unit: &str) -> Scene {
    let (flags, link) = way;
    Scene::new()
        .c("main", flags, MAIN)
        .c("unit", &format!("{flags} -fno-builtin -D_GNU_SOURCE"), unit)
        .link(&format!("{link} -o main main.o unit.o"))
        .run("main")
        .run("LD_BIND_NOW=1 main")
}

#[track_caller]
fn patched(scene: &Scene, stage: &Stage) {
    let linked = scene.again(stage);
    let last = linked.last().expect("a link");
    last.assert_outcome("patched");
    assert_eq!(last.counter("whole_program_resolutions"), 0);
    assert!(last.counter("dynamic_symbols_written") > 0, "{:#}", last.report);
    scene.compare(stage);
}

#[test]
fn imports_come_and_go() {
    for way in WAYS {
        let (stage, linked) = scene(way, PLAIN).incremental_wide();
        linked[0].assert_outcome("full");
        let imports = |name: &str| stage.lines("--dyn-syms", "main", name).len();
        let versions = || stage.readelf("-V", "main");
        let (plt, before) =
            (stage.lines("-r", "main", "JUMP_SLO").len(), stage.readelf("--dyn-syms", "main"));
        patched(&scene(way, CALLS), &stage);
        assert_eq!((imports(" strlen"), imports(" strspn"), imports(" getenv")), (1, 1, 0), "{way:?}");
        patched(&scene(way, OTHERS), &stage);
        assert_eq!((imports(" strlen"), imports(" strspn"), imports(" getenv")), (0, 1, 1), "{way:?}");
        assert!(versions().contains("GLIBC_2.26"), "{way:?}");
        patched(&scene(way, PLAIN), &stage);
        assert!(!versions().contains("GLIBC_2.26"), "a version that nobody has is not asked for: {way:?}");
        let named = |table: &str| -> Vec<String> {
            let global = table.lines().filter(|line| line.contains("GLOBAL"));
            global.filter_map(|line| line.split_whitespace().nth(7)).map(str::to_owned).collect()
        };
        assert_eq!(named(&stage.readelf("--dyn-syms", "main")), named(&before), "{way:?}");
        // What they left serves again: the tables do not grow with each edit.
        for _ in 0..3 {
            patched(&scene(way, CALLS), &stage);
            patched(&scene(way, OTHERS), &stage);
        }
        assert!(stage.lines("-r", "main", "JUMP_SLO").len() <= plt + 6, "{way:?}");
    }
}

#[test]
fn strict_gate_has_reasons_as_ever() {
    for way in [WAYS[0], WAYS[3]] {
        let (stage, _) = scene(way, PLAIN).incremental();
        let linked = scene(way, CALLS).again(&stage);
        linked[0].assert_outcome("fell_back_full");
        let reasons = linked[0].reasons();
        assert!(reasons.contains(&"new-undefined"), "{reasons:?}");
        let linked = scene(way, PLAIN).again(&stage);
        linked[0].assert_outcome("fell_back_full");
        assert!(linked[0].reasons().contains(&"removed-undefined"), "{:?}", linked[0].reasons());
    }
}

#[test]
fn data_of_libraries_are_reached_through_the_got() {
    let unit = "#include <stdio.h>\n#include <unistd.h>\n\
        int work(const char *s) { fprintf(stdout, \"%s\\n\", s); return environ != 0; }\n";
    let packed = "-pie -Wl,-z,pack-relative-relocs";
    for link in ["-pie", "-no-pie", "-pie -Wl,-z,now -Wl,--hash-style=both", packed] {
        let way = ("-O1 -fPIC", link);
        let (stage, _) = scene(way, PLAIN).incremental_wide();
        for _ in 0..2 {
            patched(&scene(way, unit), &stage);
            patched(&scene(way, PLAIN), &stage);
        }
    }
}

/// Data that code refers to without a detour are copied into the program, for all modules and under all of their names.
#[test]
fn copied_data_come_and_go() {
    let library = "int level = 3;\nextern int other_level __attribute__((weak, alias(\"level\")));\nlong table[5] = {1, 2, 3};\n\
        const int fixed = 7;\nint read_level(void) { return level + other_level; }\nlong *read_table(void) { return table; }\n";
    let unit = |body: &str| {
        format!(
            "#include <stdio.h>\n#include <unistd.h>\nextern int level, other_level;\nextern const int fixed;\n\
             extern long table[5];\nint read_level(void);\nlong *read_table(void);\n\
             int work(const char *s) {{ {body} }}\n"
        )
    };
    let scene = |way: (&str, &str), body: &str| {
        Scene::new()
            .file("versions", "V_1 { global: *; };\n")
            .c("lib", "-O1 -fPIC", library)
            .c("main", way.0, MAIN)
            .c("unit", &format!("{} -D_GNU_SOURCE", way.0), &unit(body))
            .link("-shared -Wl,-soname,libdata.so -Wl,--version-script=versions -o libdata.so lib.o")
            .link(&format!("{} -o main main.o unit.o libdata.so", way.1))
    };
    for way in [
        ("-O1 -fPIE", "-pie"),
        ("-O0 -fno-pie", "-no-pie -Wl,-z,now -Wl,--hash-style=both"),
        ("-O1 -fno-pie -g", "-no-pie -Wl,--as-needed"),
        ("-O1 -fPIE", "-pie -Wl,-z,pack-relative-relocs"),
    ] {
        let (stage, _) = scene(way, "return read_level() + s[0];").incremental_wide();
        for (body, copies) in [
            ("level++; return read_level() + s[0];", 1),
            ("level++; other_level++; return read_level() + s[0];", 1),
            (
                "other_level++; table[4] = 9; return read_level() + read_table()[4] + (table == read_table());",
                2,
            ),
            ("fputs(s, stderr); return read_level();", 1),
            ("fputs(s, stdout); return read_level() + (environ != 0);", 2),
            ("fputs(s, stdout); level = 8; return read_level();", 2),
            ("return read_level();", 0),
            ("table[1] = 8; return read_table()[1] + level;", 2),
        ] {
            let linked = scene(way, body).again(&stage);
            linked[1].assert_outcome("patched");
            assert_eq!(linked[1].counter("whole_program_resolutions"), 0);
            scene(way, body).compare(&stage);
            assert_eq!(stage.lines("-r", "main", "R_X86_64_COPY").len(), copies, "{way:?} {body}");
        }
        // What is read-only would have a section of its own.
        let body = "return fixed + read_level();";
        let linked = scene(way, body).again(&stage);
        assert_eq!(linked[1].reasons(), ["import-need-added"]);
        scene(way, body).compare(&stage);
    }
}

/// A datum that something reaches by the loader's table already would be reached directly from there on.
#[test]
fn imported_data_are_not_copied_unnoticed() {
    let unit =
        |name: &str, body: &str| format!("extern int level;\nint {name}(int x) {{ return {body}; }}\n");
    let scene = |body: &str| {
        Scene::new()
            .c("lib", "-O1 -fPIC", "int level = 3;\nint read_level(void) { return level; }\n")
            .c("main", "-O1 -fPIE", "#include <stdio.h>\nint a(int), b(int);\nint main(void) { printf(\"%d\\n\", a(1) + b(2)); return 0; }\n")
            .c("a", "-O1 -fPIC", &unit("a", "level + x"))
            .c("b", "-O1 -fPIE", &unit("b", body))
            .link("-shared -Wl,-soname,libdata.so -o libdata.so lib.o")
            .link("-pie -o main main.o a.o b.o libdata.so")
    };
    let (stage, _) = scene("x").incremental_wide();
    let linked = scene("level++ + x").again(&stage);
    assert_eq!(linked[1].reasons(), ["import-need-added"]);
    scene("level++ + x").compare(&stage);
}

/// A program that looks names up, in a library or in itself.
const HOST: &str = "#include <dlfcn.h>\n#include <stdio.h>\n#include <string.h>\n\
    int main(int c, char **v) { void *h = dlopen(strcmp(v[1], \".\") ? v[1] : 0, RTLD_NOW);\n\
    if (!h) { puts(dlerror()); return 1; }\n\
    for (int i = 2; i < c; i++) { int (*f)(int) = (int (*)(int))dlsym(h, v[i]);\n\
    if (f) printf(\"%s %d\\n\", v[i], f(4)); else printf(\"%s none\\n\", v[i]); } return 0; }\n";

/// Enough names that buckets of the hash table have several.
fn library(added: &[usize]) -> String {
    let plain = (0..40).map(|n| format!("int plain_{n}(int x) {{ return x + {n}; }}\n"));
    let added = added.iter().map(|n| {
        format!("int level_{n} = {n};\nint added_{n}(int x) {{ return plain_{n}(x) * 2 + level_{n}; }}\n")
    });
    let text: String = plain.chain(added).collect();
    format!("{text}static int own(int x) {{ return x; }}\nint use_own(int x) {{ return own(x); }}\n")
}

const ASKED: &str = "plain_0 plain_17 plain_39 added_3 added_4 added_5 added_6 added_7 added_8 use_own own";

#[test]
fn exports_of_a_library_come_and_go() {
    for (flags, link) in [
        ("-O0 -fPIC", ""),
        ("-O2 -fPIC -fcf-protection=full", "-Wl,-z,now"),
        ("-O0 -fPIC -g", "-Wl,--hash-style=both"),
        ("-O0 -fPIC", "-Wl,--hash-style=sysv -Wl,-Bsymbolic"),
        ("-O1 -fPIC -ffunction-sections -fdata-sections", "-Wl,--gc-sections"),
    ] {
        let scene = |added: &[usize]| {
            Scene::new()
                .c("host", "-O1", HOST)
                .c("lib", flags, &library(added))
                .link("-o host host.o -ldl")
                .link(&format!("-shared {link} -o libown.so lib.o"))
                .run(&format!("host ./libown.so {ASKED}"))
                .run(&format!("LD_BIND_NOW=1 host ./libown.so {ASKED}"))
        };
        let (stage, linked) = scene(&[]).incremental_wide();
        linked[1].assert_outcome("full");
        for added in [&[3][..], &[3, 4, 5, 6, 7, 8], &[4, 8], &[], &[8, 3, 5]] {
            let linked = scene(added).again(&stage);
            linked[1].assert_outcome("patched");
            assert!(linked[1].counter("dynamic_symbols_written") > 0, "{flags} {link}");
            scene(added).compare(&stage);
        }
        // Strictly, a new name is another resolution.
        let (stage, _) = scene(&[]).incremental();
        let linked = scene(&[3]).again(&stage);
        assert!(linked[1].reasons().contains(&"new-global"), "{:?}", linked[1].reasons());
    }
}

#[test]
fn exports_of_a_program_come_and_go() {
    for (flags, link) in [("-O0 -fPIE", "-pie"), ("-O2 -fno-pie", "-no-pie -Wl,--hash-style=both")] {
        let scene = |added: &[usize]| {
            Scene::new()
                .c("host", flags, HOST)
                .c("lib", flags, &library(added))
                .link(&format!("{link} -rdynamic -o host host.o lib.o -ldl"))
                .run(&format!("host . {ASKED}"))
        };
        let (stage, _) = scene(&[]).incremental_wide();
        for added in [&[3][..], &[3, 4, 5, 6, 7, 8], &[4], &[]] {
            patched(&scene(added), &stage);
        }
    }
}

/// Exports follow a version script: some names have a version, others are nobody else's business.
#[test]
fn exports_have_the_versions_of_the_script() {
    let script = "OLD { global: plain_*; local: *; };\nNEW { global: added_*; } OLD;\n";
    let scene = |added: &[usize]| {
        Scene::new()
            .c("host", "-O1", HOST)
            .c("lib", "-O1 -fPIC", &library(added))
            .file("exports", script)
            .link("-o host host.o -ldl")
            .link("-shared -Wl,--version-script=exports -Wl,-soname,libown.so -o libown.so lib.o")
            .run(&format!("host ./libown.so {ASKED}"))
    };
    let (stage, _) = scene(&[]).incremental_wide();
    scene(&[3, 5]).again(&stage)[1].assert_outcome("patched");
    scene(&[3, 5]).compare(&stage);
    assert_eq!(stage.lines("--dyn-syms", "libown.so", "added_3@@NEW").len(), 1);
    assert_eq!(stage.lines("--dyn-syms", "libown.so", "level_3").len(), 0);
    scene(&[]).again(&stage)[1].assert_outcome("patched");
    scene(&[]).compare(&stage);
}

/// Calls between exported functions of a library go through the PLT; their addresses are looked up.
#[test]
fn own_names_that_others_may_replace_get_entries() {
    let unit = |body: &str| {
        format!(
            "int number = 3;\nint other(int x) {{ return x + number; }}\n\
             int (*volatile at)(int);\nint entry(int x) {{ {body} }}\n"
        )
    };
    let scene = |body: &str| {
        Scene::new()
            .c("host", "-O1", HOST)
            .c("lib", "-O0 -fPIC", &unit(body))
            .link("-o host host.o -ldl")
            .link("-shared -o libown.so lib.o")
            .run("host ./libown.so entry other")
    };
    let (stage, _) = scene("return x;").incremental_wide();
    for body in ["return other(x);", "at = other; return at(x) + other(x);", "return x;"] {
        scene(body).again(&stage)[1].assert_outcome("patched");
        scene(body).compare(&stage);
    }
}

/// Two objects bring and drop one import in one edit; a third one mentions it as well, and keeps it.
#[test]
fn objects_share_imports() {
    let unit = |name: &str, call: bool| {
        let used = if call { "(int)strlen(s)" } else { "s[0]" };
        format!("#include <string.h>\nint {name}(const char *s) {{ return {used}; }}\n")
    };
    let scene = |calls: [bool; 3]| {
        let main = "#include <stdio.h>\nint a(const char *), b(const char *), c(const char *);\n\
            int main(void) { printf(\"%d %d %d\\n\", a(\"one\"), b(\"eleven\"), c(\"x\")); return 0; }\n";
        let flags = "-O1 -fPIE -fno-builtin";
        let units = ["a", "b", "c"].into_iter().zip(calls);
        let scene = Scene::new().c("main", flags, main);
        units
            .fold(scene, |scene, (name, call)| scene.c(name, flags, &unit(name, call)))
            .link("-pie -o main main.o a.o b.o c.o")
    };
    let (stage, _) = scene([false; 3]).incremental_wide();
    for calls in [
        [true, true, false],
        [false, false, false],
        [true, true, true],
        [false, false, true],
        [true, false, false],
        [false; 3],
    ] {
        let scene = scene(calls);
        scene.again(&stage)[0].assert_outcome("patched");
        scene.compare(&stage);
        let imports = stage.lines("--dyn-syms", "main", " strlen").len();
        assert_eq!(imports, usize::from(calls.contains(&true)), "{calls:?}");
    }
}

/// Names in the loader's table, each with its binding.
#[track_caller]
fn bindings(stage: &Stage, output: &str, names: &[&str]) -> Vec<String> {
    let table = stage.readelf("--dyn-syms", output);
    let rows: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
    let base = |name: &'_ str| name.split('@').next().map(str::to_owned);
    let of = |name: &&str| {
        let row = rows.iter().find(|row| row.get(7).and_then(|shown| base(shown)).as_deref() == Some(*name));
        row.map_or_else(|| "none".to_owned(), |row| row[4].to_owned())
    };
    names.iter().map(of).collect()
}

/// An import is weak as long as all references to it are, those of one object and of several.
#[test]
fn imports_are_as_strong_as_their_references() {
    let unit = |name: &str, how: &str| {
        let (declared, body) = match how {
            "weak" => ("__attribute__((weak)) int extra(int);", "extra ? extra(x) : 7"),
            "strong" => ("int extra(int);", "extra(x)"),
            _ => ("", "x"),
        };
        format!("{declared}\nint {name}(int x) {{ return {body}; }}\n")
    };
    let main = "#include <stdio.h>\nint a(int), b(int);\n\
        int main(void) { printf(\"%d %d\\n\", a(1), b(2)); return 0; }\n";
    for (flags, link) in [("-O1 -fPIE", "-pie"), ("-O0 -fPIC -g", "-no-pie -Wl,--hash-style=both")] {
        let scene = |hows: [&str; 2]| {
            Scene::new()
                .c("lib", "-O1 -fPIC", "int extra(int x) { return x * 3; }\n")
                .c("main", flags, main)
                .c("a", flags, &unit("a", hows[0]))
                .c("b", flags, &unit("b", hows[1]))
                .link("-shared -Wl,-soname,libextra.so -o libextra.so lib.o")
                .link(&format!("{link} -o main main.o a.o b.o -Wl,--no-as-needed libextra.so"))
        };
        let (stage, _) = scene(["weak", "none"]).incremental_wide();
        assert_eq!(bindings(&stage, "main", &["extra"]), ["WEAK"]);
        for (hows, binding) in [
            (["weak", "strong"], "GLOBAL"),
            (["weak", "none"], "WEAK"),
            (["strong", "none"], "GLOBAL"),
            (["weak", "weak"], "WEAK"),
            (["none", "strong"], "GLOBAL"),
            (["none", "none"], "none"),
            (["none", "weak"], "WEAK"),
            (["weak", "strong"], "GLOBAL"),
            (["weak", "weak"], "WEAK"),
        ] {
            let linked = scene(hows).again(&stage);
            linked[1].assert_outcome("patched");
            assert_eq!(linked[1].counter("whole_program_resolutions"), 0);
            scene(hows).compare(&stage);
            assert_eq!(bindings(&stage, "main", &["extra"]), [binding], "{hows:?}");
        }
        // Strictly, another binding is a full link's.
        let (stage, _) = scene(["weak", "strong"]).incremental();
        let linked = scene(["weak", "none"]).again(&stage);
        assert_eq!(linked[1].reasons(), ["binding-changed"]);
        scene(["weak", "none"]).compare(&stage);
    }
}

/// A library of `--as-needed` comes with the first reference that is not weak, and goes with the last one; weak references
/// have its versions meanwhile.
#[test]
fn libraries_become_needed_and_go() {
    let unit = |body: &str| {
        format!(
            "int one(int), two(int), deux(int);\n__attribute__((weak)) int zwei(int);\n\
             int work(const char *s) {{ return {body}; }}\n"
        )
    };
    let library = |name: &str| format!("int {name}(int x) {{ return x * 3; }}\n");
    let scene = |way: (&str, &str), body: &str| {
        Scene::new()
            .file("versions", "V_1 { global: two; }; V_2 { global: deux; zwei; } V_1;\n")
            .c("one", "-O1 -fPIC", &library("one"))
            .c("two", "-O1 -fPIC", &["two", "deux", "zwei"].map(library).concat())
            .c("three", "-O1 -fPIC", &library("three"))
            .c("main", way.0, MAIN)
            .c("unit", way.0, &unit(body))
            .link("-shared -Wl,-soname,libone.so -o libone.so one.o")
            .link("-shared -Wl,-soname,libtwo.so -Wl,--version-script=versions -o libtwo.so two.o")
            .link("-shared -Wl,-soname,libthree.so -o libthree.so three.o")
            .link(&format!(
                "{} -Wl,--as-needed -o main main.o unit.o libone.so libtwo.so -Wl,--no-as-needed libthree.so",
                way.1
            ))
    };
    for way in [("-O1 -fPIE", "-pie"), ("-O0 -fPIC", "-no-pie -Wl,-z,now -Wl,--hash-style=both")] {
        let (stage, _) = scene(way, "s[0]").incremental_wide();
        let needed = |stage: &Stage| -> Vec<String> {
            let lines = stage.lines("-d", "main", "NEEDED");
            lines.iter().filter_map(|line| Some(line.split('[').nth(1)?.replace(']', ""))).collect()
        };
        for (body, libraries) in [
            ("two(s[0])", &["libtwo.so"][..]),
            ("one(s[0]) + two(1) + deux(2)", &["libone.so", "libtwo.so"]),
            ("one(s[0])", &["libone.so"]),
            ("one(s[0]) + (zwei ? zwei(1) : 5)", &["libone.so"]),
            ("(zwei ? zwei(1) : 5) + two(2)", &["libtwo.so"]),
            ("(zwei ? zwei(1) : 5)", &[]),
            ("s[0]", &[]),
            ("deux(s[0])", &["libtwo.so"]),
        ] {
            let scene = scene(way, body);
            let linked = scene.again(&stage);
            linked[3].assert_outcome("patched");
            assert_eq!(linked[3].counter("whole_program_resolutions"), 0);
            scene.compare(&stage);
            let wanted = [libraries, &["libthree.so", "libc.so.6"]].concat();
            assert_eq!(needed(&stage), wanted, "{body}");
            assert_eq!(needed(&scene.built(None)), wanted, "{body}");
            let weak = bindings(&stage, "main", &["zwei"]) == ["WEAK"];
            let versioned = !stage.lines("--dyn-syms", "main", "zwei@V_2").is_empty();
            assert_eq!(versioned, weak && libraries.contains(&"libtwo.so"), "{body}");
        }
    }
    // Strictly, none comes.
    let (stage, _) = scene(("-O1 -fPIE", "-pie"), "s[0]").incremental();
    let linked = scene(("-O1 -fPIE", "-pie"), "one(s[0])").again(&stage);
    assert_eq!(linked[3].reasons(), ["new-undefined"]);
}

/// Libraries that lack something are not needed unnoticed.
#[test]
fn libraries_that_lack_definitions_do_not_come() {
    let scene = |body: &str| {
        Scene::new()
            .c("lib", "-O1 -fPIC", "int nobody(int);\nint extra(int x) { return nobody(x) * 3; }\n")
            .c("main", "-O1 -fPIE", MAIN)
            .c("unit", "-O1 -fPIE", &format!("int extra(int);\nint work(const char *s) {{ {body} }}\n"))
            .link("-shared -Wl,-soname,libextra.so -o libextra.so lib.o -Wl,-z,undefs")
            .link("-pie -Wl,--as-needed -o main main.o unit.o libextra.so")
    };
    let (stage, _) = scene("return s[0];").incremental_wide();
    assert!(scene("return extra(s[0]);").refused().contains("nobody"));
    assert!(scene("return extra(s[0]);").refused_again(&stage).contains("nobody"));
    scene("return s[0] + 1;").again(&stage)[1].assert_outcome("patched");
}

/// A program's references to thread-local variables of a library go through GOT slots that hold distances.
#[test]
fn thread_local_imports_come_and_go() {
    let library =
        "__thread int level = 3;\n__thread int depth = 4;\nint plain(int x) { return x + level; }\n";
    let unit = |body: &str| {
        format!(
            "extern __thread int level, depth;\nint plain(int);\nint work(const char *s) {{ return {body}; }}\n"
        )
    };
    let scene = |way: (&str, &str), body: &str| {
        Scene::new()
            .c("lib", "-O1 -fPIC", library)
            .c("main", way.0, MAIN)
            .c("unit", way.0, &unit(body))
            .link("-shared -Wl,-soname,libtls.so -o libtls.so lib.o")
            .link(&format!("{} -o main main.o unit.o libtls.so", way.1))
    };
    for way in [
        ("-O1 -fPIE", "-pie"),
        ("-O1 -fPIC", "-pie -Wl,-z,now"),
        ("-O0 -fno-pie", "-no-pie -Wl,--hash-style=both"),
        ("-O1 -fPIC -mtls-dialect=gnu2", "-pie"),
        ("-O1 -fPIE", "-pie -Wl,-z,pack-relative-relocs"),
    ] {
        let (stage, _) = scene(way, "plain(s[0])").incremental_wide();
        for (body, slots) in [
            ("plain(s[0]) + level", 1),
            ("++depth + plain(s[0]) + level++", 2),
            ("depth", 1),
            ("plain(s[0])", 0),
            ("plain(s[0]) + depth", 1),
        ] {
            let linked = scene(way, body).again(&stage);
            linked[1].assert_outcome("patched");
            assert_eq!(linked[1].counter("whole_program_resolutions"), 0);
            scene(way, body).compare(&stage);
            assert_eq!(stage.lines("-r", "main", "TPOFF64").len(), slots, "{way:?} {body}");
        }
    }
    // In a library they are pairs, which have no spare room.
    let scene = |body: &str| {
        Scene::new()
            .c("lib", "-O1 -fPIC", library)
            .c("main", "-O1", MAIN)
            .c("unit", "-O1 -fPIC", &unit(body))
            .link("-shared -Wl,-soname,libtls.so -o libtls.so lib.o")
            .link("-shared -o libunit.so unit.o libtls.so")
            .link("-o main main.o libunit.so libtls.so")
    };
    let (stage, _) = scene("plain(s[0])").incremental_wide();
    let linked = scene("plain(s[0]) + level").again(&stage);
    assert_eq!(linked[1].reasons(), ["import-need-added"]);
    scene("plain(s[0]) + level").compare(&stage);
}

/// An IFUNC of the image that nothing called: its first caller brings the entry that its resolver decides about.
#[test]
fn ifuncs_are_called_for_the_first_time() {
    let chosen = "static int one(int x) { return x + 1; }\nstatic int two(int x) { return x + 2; }\n\
        static int (*choose(void))(int) { return choice() ? one : two; }\n\
        static int (*choose_more(void))(int) { return choice() ? two : one; }\n\
        int picked(int) __attribute__((ifunc(\"choose\")));\n\
        int more(int) __attribute__((ifunc(\"choose_more\")));\n";
    let chosen = format!("static int choice(void) {{ return 1; }}\n{chosen}");
    let unit = |body: &str| {
        format!(
            "#include <string.h>\nint picked(int), more(int);\nint (*volatile at)(int);\n\
             int work(const char *s) {{ {body} }}\n"
        )
    };
    for way in [
        ("-O1 -fPIE", "-pie"),
        ("-O2 -fPIE -fcf-protection=full", "-pie -Wl,-z,now"),
        ("-O0 -fno-pie", "-no-pie -Wl,-E"),
        ("-O1 -fPIE -fno-plt", "-pie -Wl,-z,pack-relative-relocs"),
    ] {
        let scene = |body: &str| {
            Scene::new()
                .c("main", way.0, MAIN)
                .c("chosen", way.0, &chosen)
                .c("unit", &format!("{} -fno-builtin", way.0), &unit(body))
                .link(&format!("{} -o main main.o unit.o chosen.o", way.1))
                .run("main")
                .run("LD_BIND_NOW=1 main")
        };
        let (stage, _) = scene("return s[0];").incremental_wide();
        for body in [
            "return picked(s[0]);",
            "return picked(s[0]) + (int)strlen(s);",
            "at = more; return at(s[0]) + more(2) + picked(1) + (at == more);",
            "at = more; return at(s[0]) + (int)strspn(s, \"he\");",
        ] {
            let linked = scene(body).again(&stage);
            linked[0].assert_outcome("patched");
            assert_eq!(linked[0].counter("whole_program_resolutions"), 0);
            scene(body).compare(&stage);
        }
        assert_eq!(stage.lines("-r", "main", "IRELATIV").len(), 2, "{way:?}");
        let (stage, _) = scene("return s[0];").incremental();
        let linked = scene("return picked(s[0]);").again(&stage);
        assert_eq!(linked[0].reasons(), ["ifunc-changed"]);
    }
    // Start-up code of a static program runs through a table without spare entries.
    let scene = |body: &str| {
        Scene::new()
            .c("main", "-O1", MAIN)
            .c("chosen", "-O1", &chosen)
            .c("unit", "-O1", &unit(body))
            .link("-static -o main main.o unit.o chosen.o")
    };
    let (stage, _) = scene("return s[0];").incremental_wide();
    let linked = scene("return picked(s[0]);").again(&stage);
    assert_eq!(linked[0].reasons(), ["ifunc-changed"]);
    scene("return picked(s[0]);").compare(&stage);
}

/// Pointers of `.relr.dyn` come and go as those of `.rela.dyn` do.
#[test]
fn packed_pointers_come_and_go() {
    let unit = |count: usize| {
        let names: Vec<String> = (0..count).map(|n| format!("f{n}")).collect();
        let functions: String = names
            .iter()
            .map(|name| format!("static int {name}(int x) {{ return x + {}; }}\n", &name[1..]))
            .collect();
        let list = names.join(", ");
        format!(
            "{functions}static int (*table[])(int) = {{{list}}};\nint (**volatile at)(int) = table;\n\
             int work(const char *s) {{ int sum = s[0]; for (int n = 0; n < {count}; n++) sum += at[n](n) * n; return sum; }}\n"
        )
    };
    for (flags, link) in [
        ("-O1 -fPIE -fdata-sections -ffunction-sections", "-pie"),
        ("-O0 -fPIE", "-pie -Wl,-z,now"),
        ("-O1 -fPIE -fdata-sections", "-static-pie"),
    ] {
        let scene = |count: usize| {
            Scene::new()
                .c("main", flags, MAIN)
                .c("unit", flags, &unit(count))
                .link(&format!("{link} -Wl,-z,pack-relative-relocs -o main main.o unit.o"))
        };
        let (stage, _) = scene(3).incremental_wide();
        for count in [4, 30, 5, 1, 25, 3] {
            let linked = scene(count).again(&stage);
            linked[0].assert_outcome("patched");
            scene(count).compare(&stage);
        }
    }
}

/// References to a version of one's choice, beside the one that everybody gets.
#[test]
fn versions_of_names_come_and_go() {
    let library = "__asm__(\".symver old_f, f@V_1\");\n__asm__(\".symver new_f, f@@V_2\");\n\
        int old_f(int x) { return x + 1; }\nint new_f(int x) { return x + 2; }\nint g(int x) { return x; }\n";
    let unit = |body: &str| {
        format!(
            "__asm__(\".symver f_1, f@V_1\");\n__asm__(\".symver f_2, f@V_2\");\n\
             int f(int), f_1(int), f_2(int), g(int);\nint work(const char *s) {{ return {body}; }}\n"
        )
    };
    let scene = |way: (&str, &str), body: &str| {
        Scene::new()
            .file("versions", "V_1 { global: f; g; }; V_2 { global: f; } V_1;\n")
            .c("lib", "-O1 -fPIC", library)
            .c("main", way.0, MAIN)
            .c("unit", way.0, &unit(body))
            .link("-shared -Wl,-soname,libf.so -Wl,--version-script=versions -o libf.so lib.o")
            .link(&format!("{} -o main main.o unit.o libf.so", way.1))
    };
    for way in [("-O1 -fPIE", "-pie"), ("-O0 -fno-pie", "-no-pie -Wl,--hash-style=both")] {
        let (stage, _) = scene(way, "g(s[0])").incremental_wide();
        for (body, versions) in [
            ("g(s[0]) + f_1(1)", [1, 0]),
            ("g(s[0]) + f_1(1) + f(1)", [1, 1]),
            ("f_1(1) * 2 + f(1)", [1, 1]),
            ("f(s[0])", [0, 1]),
            ("f_1(s[0])", [1, 0]),
            ("f_2(s[0])", [0, 1]),
            ("g(s[0])", [0, 0]),
        ] {
            let linked = scene(way, body).again(&stage);
            linked[1].assert_outcome("patched");
            scene(way, body).compare(&stage);
            let found = ["f@V_1", "f@V_2"].map(|name| stage.lines("--dyn-syms", "main", name).len());
            assert_eq!(found, versions, "{body}");
        }
    }
}

/// A name that an archive offers is taken from there.
#[test]
fn archives_go_before_libraries_behind_them() {
    let member = Cc::new(["-O1", "-fPIE"]).text("member.c", "int both(int x) { return x * 5; }\n");
    let scene = |body: &str| {
        Scene::new()
            .file("libmember.a", archive(&[("member.o", &member)]))
            .c("lib", "-O1 -fPIC", "int both(int x) { return x * 3; }\nint known(int x) { return x; }\n")
            .c("main", "-O1 -fPIE", MAIN)
            .c(
                "unit",
                "-O1 -fPIE",
                &format!("int both(int), known(int);\nint work(const char *s) {{ {body} }}\n"),
            )
            .link("-shared -Wl,-soname,libboth.so -o libboth.so lib.o")
            .link("-pie -o main main.o unit.o libmember.a libboth.so")
    };
    let (stage, _) = scene("return known(s[0]);").incremental_wide();
    let linked = scene("return known(s[0]) + both(2);").again(&stage);
    linked[1].assert_outcome("fell_back_full");
    assert_eq!(linked[1].reasons(), ["archive-member-pulled"]);
    scene("return known(s[0]) + both(2);").compare(&stage);
}

/// Invariant 8 compares digests of the whole file; it would hide that a part is not looked at.
const DIGEST: u8 = 8;

/// The oracle finds what a patch may do wrong: each table of an image with new imports and exports is damaged.
#[test]
fn one_wrong_byte_in_patched_tables_is_a_violation() {
    let library = "int number = 3;\nint f(int x) { return x; }\nint g(int x) { return x + number; }\n\
                   int h(int x) { return x * 2; }\n";
    let stage = Scene::new()
        .c("lib", "-O1 -fPIC", library)
        .file("versions", "OWN_1 { global: f; h; number; };\nOWN_2 { global: g; };\n")
        .link("-shared -nostdlib -Wl,--version-script=versions -o libown.so lib.o")
        .built(Some(ld::gcc_prefix()));
    let cc = Cc::freestanding(Opt::O0).with(["-fPIC"]);
    let inputs = |body: &str, more: &str| -> Inputs {
        let text = format!(
            "{START}extern int number;\nint f(int), g(int), h(int);\nint exported(int x) {{ return x; }}\n{more}\n\
             int app_main(void) {{ return {body}; }}\n"
        );
        vec![
            ("main.o".to_owned(), cc.text("main.c", &text)),
            ("libown.so".to_owned(), relink_tests::read(stage.path("libown.so"))),
        ]
    };
    let dynamic =
        DynamicOptions { hash_style: HashStyle::Both, export_dynamic: true, ..DynamicOptions::default() };
    let incremental = IncrementalOptions { gate_kind: GateKind::Wide, ..IncrementalOptions::default() };
    let options = LinkOptions {
        output_kind: OutputKind::Pie,
        dynamic,
        incremental: Some(incremental),
        ..program::incremental()
    };
    let edited = inputs("f(1) + g(2) + h(3) + number + (g != 0)", "int added(int x) { return exported(x); }");
    let mut linked = Program::linked(options.clone(), &inputs("f(1)", ""));
    linked.verify();
    let outcome = linked.edit(&edited);
    linked.assert_patched(outcome);
    linked.verify();
    let mut columns = Vec::new();
    linked.session.serialize_columns(&mut columns).unwrap();
    let image = linked.image();
    let elf = object::File::parse(&*image).unwrap();
    let section = |name: &str| {
        let section = elf.section_by_name(name).unwrap_or_else(|| panic!("no {name}"));
        section.file_range().unwrap()
    };
    let mut places: Vec<(String, u64)> = Vec::new();
    // Whole tables, but the bytes of names that nobody has any more.
    for (name, step) in [
        (".dynsym", 4),
        (".gnu.version", 1),
        (".gnu.version_r", 4),
        (".gnu.hash", 4),
        (".hash", 4),
        (".rela.plt", 4),
        (".dynamic", 8),
        (".got", 8),
        (".got.plt", 8),
        (".plt", 4),
    ] {
        let (start, len) = section(name);
        places.extend((0..len).step_by(step).map(|at| (format!("{name} + {at}"), start + at)));
    }
    let info = {
        let headers = u64::from_le_bytes(image[0x28..0x30].try_into().unwrap());
        let header = |name: &str| headers + 64 * elf.section_by_name(name).unwrap().index().0 as u64 + 44;
        [header(".dynsym"), header(".gnu.version_r")]
    };
    places.extend(info.map(|at| ("sh_info".to_owned(), at)));
    assert!(places.len() > 400, "{} places", places.len());
    // Each a verification of its own: of the many like ones a part will do.
    for (what, offset) in places
        .iter()
        .enumerate()
        .filter(|(at, _)| at % 3 == 0 || *at > places.len() - 3)
        .map(|(_, place)| place)
    {
        let mut wrong = image.clone();
        wrong[*offset as usize] ^= 0x10;
        let mut program = Program::new(options.clone(), &edited);
        program.session.set_prior_parts(columns.clone().into(), wrong.into());
        let violations = program.session.verify().unwrap();
        let found = violations.iter().any(|violation| violation.invariant != DIGEST);
        assert!(found, "{what} at {offset:#x}: {violations:?}");
    }
}
