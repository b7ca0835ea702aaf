//! Rust under cargo: a workspace with a program, a library, a proc-macro and a C library, cold and after edits.
//!
//! What cargo and rustc do between two links: they rename most objects, remove the output, hard-link it elsewhere, and
//! remove the objects afterwards. `scripts/rust.sh` does the same with ripgrep.

use std::path::{Path, PathBuf};
use std::process::Command;

use relink_tests::tools::{self, Said};
use relink_tests::{ld, scratch};
use serde_json::Value;

/// Files, each behind a line `=== PATH`.
const WORKSPACE: &str = include_str!("rust/workspace.txt");

struct Workspace {
    dir: tempfile::TempDir,
    /// What `RELINK_INCREMENTAL` says.
    incremental: &'static str,
}

impl Workspace {
    fn new() -> Workspace {
        let dir = scratch();
        for file in WORKSPACE.split("=== ").skip(1) {
            let (name, text) = file.split_once('\n').unwrap();
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            relink_tests::write(path, text);
        }
        Workspace { dir, incremental: "1" }
    }

    #[track_caller]
    fn cargo(&self, args: &[&str]) -> Said {
        let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        command.current_dir(self.dir.path()).args(args).arg("--offline");
        for name in ["CARGO_ENCODED_RUSTFLAGS", "RUSTC_WRAPPER", "CARGO_BUILD_TARGET", "RUST_BACKTRACE"] {
            command.env_remove(name);
        }
        let prefix = ld::gcc_prefix().display();
        command.env("RUSTFLAGS", format!("-Clinker=gcc -Clink-arg=-B{prefix}"));
        command.env("CARGO_TARGET_DIR", self.dir.path().join("target")).env("CARGO_INCREMENTAL", "1");
        tools::say(command.env("RELINK_INCREMENTAL", self.incremental)).ok()
    }

    #[track_caller]
    fn edit(&self, file: &str, from: &str, to: &str) {
        let path = self.dir.path().join(file);
        let text = String::from_utf8(relink_tests::read(&path)).unwrap();
        assert_eq!(text.matches(from).count(), 1, "`{from}` in {file}");
        relink_tests::write(path, text.replace(from, to));
    }

    /// The file that rustc had made: `target/debug/deps/STEM…`, with a state folder of its own.
    #[track_caller]
    fn output(&self, stem: &str) -> PathBuf {
        let deps = self.dir.path().join("target/debug/deps");
        let names = std::fs::read_dir(deps.join(".relink")).unwrap().map(|entry| entry.unwrap().file_name());
        let found = names.filter(|name| name.to_string_lossy().starts_with(stem));
        // A crate is linked as itself and for its tests.
        let newest = found.max_by_key(|name| {
            std::fs::metadata(deps.join(".relink").join(name).join("log")).unwrap().modified().unwrap()
        });
        let name = newest.unwrap_or_else(|| panic!("nothing was linked incrementally as {stem}"));
        deps.join(name)
    }

    /// How an output was linked last; and the oracle finds nothing.
    #[track_caller]
    fn last_link(&self, stem: &str) -> (String, String) {
        let output = self.output(stem);
        tools::say(ld::relink().arg("verify").arg(&output)).ok();
        let log = tools::say(ld::relink().args(["log", "--json"]).arg(&output)).ok().stdout;
        let entry: Value = serde_json::from_str(log.lines().last().unwrap()).unwrap();
        (entry["outcome"].as_str().unwrap().to_owned(), entry["reasons"].to_string())
    }

    #[track_caller]
    fn assert_patched(&self, stem: &str) {
        let (outcome, reasons) = self.last_link(stem);
        assert_eq!(outcome, "patched", "{stem}: {reasons}");
    }

    fn run(&self, name: &str, args: &[&str]) -> Said {
        let program = self.dir.path().join("target/debug").join(name);
        tools::say(Command::new(program).args(args).env("RUST_BACKTRACE", "1"))
    }
}

/// A library's rlib is made anew for each edit of it, its units of code come and go, and most of them are loaded for the names
/// that others want.
#[test]
fn units_of_libraries_come_and_go() {
    const MODULE: &str = "pub mod extra {\n    pub struct Table { map: Vec<(u8, u16)> }\n    impl Table {\n        \
        pub fn new() -> Table { Table { map: Vec::new() } }\n        \
        pub fn put(&mut self, key: u8, value: u16) { self.map.push((key, value)) }\n        \
        pub fn sum(&self) -> u32 { let mut n = 0; for (_, v) in &self.map { n += u32::from(*v); } n }\n    }\n}\n\n";
    const USE: &str = "    let mut table = shapes::extra::Table::new();\n    table.put(3, 4);\n    \
        println!(\"sum {}\", table.sum());\n";
    const ADDED: &str = "#[inline(never)]\npub fn added(x: u32) -> u32 {\n    x.wrapping_mul(3)\n}\n\n";
    const CALL: &str = "    println!(\"added {}\", shapes::added(7));\n";
    let workspace = Workspace { incremental: "wide", ..Workspace::new() };
    workspace.cargo(&["build"]);
    let first = workspace.run("app", &[]).ok().stdout;
    let library = |from: &str, to: &str| ("shapes/src/lib.rs", from.to_owned(), to.to_owned());
    let program = |from: &str, to: &str| ("app/src/main.rs", from.to_owned(), to.to_owned());
    let (fail, report) = ("pub fn fail", "    report::shapes();");
    for (file, from, to) in [
        library(fail, &format!("{ADDED}{fail}")),
        library("n * 2", "added(n)"),
        program(report, &format!("{CALL}{report}")),
        library(ADDED, &format!("{MODULE}{ADDED}")),
        program(CALL, &format!("{USE}{CALL}")),
        program(USE, ""),
        program(CALL, &format!("{USE}{CALL}")),
        program(&format!("{USE}{CALL}"), ""),
        library(MODULE, ""),
        library("added(n)", "n * 2"),
        library(ADDED, ""),
    ] {
        workspace.edit(file, &from, &to);
        workspace.cargo(&["build"]);
        workspace.assert_patched("app-");
        let calls = |text: &str| to.contains(text).then_some(());
        let said = workspace.run("app", &[]).ok().stdout;
        assert!(calls(USE).is_none() || said.contains("sum 4\n"), "{said}");
        assert!(calls(CALL).is_none() || said.contains("added 21\n"), "{said}");
    }
    assert_eq!(workspace.run("app", &[]).ok().stdout, first);
    assert_backtrace(&workspace);
}

/// The line (from 1) of the only place that holds a text.
#[track_caller]
fn line_of(path: &Path, needle: &str) -> usize {
    let text = String::from_utf8(relink_tests::read(path)).unwrap();
    text.lines().position(|line| line.contains(needle)).unwrap() + 1
}

#[track_caller]
fn assert_backtrace(workspace: &Workspace) {
    let said = workspace.run("app", &["panic"]);
    assert_eq!(said.status, 101, "{said}");
    for (file, needle) in [("shapes/src/lib.rs", "panic!("), ("app/src/report.rs", "shapes::fail(3)")] {
        let place = format!("{file}:{}:", line_of(&workspace.dir.path().join(file), needle));
        assert!(said.stderr.contains(&place), "{place} in\n{said}");
    }
}

#[test]
fn cargo_build_after_body_edits_patches() {
    let workspace = Workspace::new();
    workspace.cargo(&["build"]);
    assert_eq!(workspace.last_link("app-").0, "full");
    let first = workspace.run("app", &[]).ok().stdout;
    let expected = "answer 42 Point\ncounts [2, 4, 6]\ncaught true 8\narea 9.00\narea 3.00\n";
    assert_eq!(first, expected);
    assert_backtrace(&workspace);

    // The program's own unit: its object has another name each time.
    workspace.edit("app/src/report.rs", "deep(n - 1) + 1", "deep(n - 1) + 2");
    workspace.cargo(&["build"]);
    workspace.assert_patched("app-");

    // A member of an rlib, with a constant and with lines moved.
    workspace.edit("shapes/src/lib.rs", "3.0 * self.r", "4.0 * self.r");
    workspace.cargo(&["build"]);
    workspace.assert_patched("app-");
    workspace.edit("shapes/src/lib.rs", "pub fn fail", "// Lines\n// that move.\npub fn fail");
    workspace.edit("shapes/src/lib.rs", "n * 2", "n * 3");
    workspace.cargo(&["build"]);
    workspace.assert_patched("app-");
    let expected = expected.replace("area 3.00", "area 4.00").replace("true 8", "true 12");
    assert_eq!(workspace.run("app", &[]).ok().stdout, expected);
    assert_backtrace(&workspace);

    // Another literal: rustc numbers its constants by use, so their sections change their names.
    workspace.edit("shapes/src/lib.rs", "three is not allowed", "number three is not allowed");
    workspace.cargo(&["build"]);
    workspace.assert_patched("app-");
    assert!(workspace.run("app", &[]).ok().stderr.contains("number three is not allowed"));
}

#[test]
fn libraries_macros_and_tests_are_linked_and_patched() {
    let workspace = Workspace::new();
    workspace.cargo(&["build"]);
    let said = workspace.cargo(&["test"]);
    assert!(said.stdout.contains("2 passed; 0 failed"), "{said}");
    workspace.edit("plugin/src/lib.rs", "n > 10", "n > 11");
    workspace.edit("macros/src/lib.rs", "42u32", "43u32");
    workspace.edit(
        "shapes/src/lib.rs",
        "assert_eq!(Square(2.0).area(), 4.0)",
        "assert_eq!(Square(3.0).area(), 9.0)",
    );
    workspace.cargo(&["build"]);
    workspace.assert_patched("libplugin");
    // The compiler loads the patched macro.
    workspace.assert_patched("libmacros");
    assert!(workspace.run("app", &[]).ok().stdout.starts_with("answer 43 Point\n"));
    let said = workspace.cargo(&["test"]);
    assert!(said.stdout.contains("2 passed; 0 failed"), "{said}");
    workspace.assert_patched("shapes-");

    let caller = workspace.dir.path().join("caller.c");
    let source = "#include <stdio.h>\nunsigned plugin_sum(unsigned);\n\
                  int main(void) { printf(\"%u %u\\n\", plugin_sum(11), plugin_sum(12)); }\n";
    relink_tests::write(&caller, source);
    let (program, library) = (workspace.dir.path().join("caller"), workspace.dir.path().join("target/debug"));
    let mut gcc = tools::GCC.command();
    gcc.args(["-o"]).arg(&program).arg(&caller).arg(library.join("libplugin.so"));
    tools::say(gcc.arg(format!("-Wl,-rpath,{}", library.display()))).ok();
    assert_eq!(tools::say(&mut Command::new(&program)).ok().stdout, "66 4294967295\n");
}

#[test]
fn release_profile_links_and_runs() {
    let workspace = Workspace::new();
    workspace.cargo(&["build", "--release"]);
    let program = workspace.dir.path().join("target/release/app");
    let said = tools::say(&mut Command::new(program)).ok();
    assert!(said.stdout.starts_with("answer 42 Point\ncounts [2, 4, 6]\ncaught true 8\n"), "{said}");
}
