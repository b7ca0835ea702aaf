//! Imports of special kinds behind the wide gate: weak ones, of libraries that are not needed yet, of versions, thread-local
//! ones, copied data, IFUNCs; and packed pointers. Each step is a patch that runs and that the oracle finds nothing in, or has a
//! reason.

use relink_tests::scene::{Scene, Stage};

use super::imports::MAIN;

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

/// Code that is not position-independent has zero for what only weak references ask for of a library that is not needed.
#[test]
fn addresses_of_weak_imports_follow_their_library() {
    let scene = |body: &str| {
        Scene::new()
            .c("lib", "-O1 -fPIC", "int one(int x) { return x * 3; }\nint two(int x) { return x * 5; }\n")
            .c("main", "-O1 -fno-pie", MAIN)
            .c("weak", "-O1 -fno-pie", "__attribute__((weak)) int one(int);\nint weak(int x) { return one ? one(x) : 7; }\n")
            .c("unit", "-O1 -fno-pie", &format!("int two(int), weak(int);\n__attribute__((weak)) int one(int);\nint work(const char *s) {{ return {body}; }}\n"))
            .link("-shared -Wl,-soname,libweak.so -o libweak.so lib.o")
            .link("-no-pie -o main main.o unit.o weak.o -Wl,--as-needed libweak.so")
    };
    let (stage, _) = scene("weak(s[0])").incremental_wide();
    scene("weak(s[0])").compare(&stage);
    for (body, reason) in [
        ("weak(s[0]) + 1", ""),
        ("weak(s[0]) + two(1)", "import-need-added"),
        ("weak(s[0]) + two(2)", ""),
        ("weak(s[0]) + (one ? one(2) : two(2))", ""),
        ("weak(s[0]) + (one ? one(2) : 2)", "import-need-added"),
        ("weak(s[0])", ""),
    ] {
        let linked = scene(body).again(&stage);
        assert_eq!(linked[1].reasons(), if reason.is_empty() { vec![] } else { vec![reason] }, "{body}");
        scene(body).compare(&stage);
    }
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
