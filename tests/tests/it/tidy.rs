//! Rules that a reader of the tree may rely on. If a rule matters, a test enforces it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use relink_tests::root;

/// Files longer than this are asked to become two.
const LINES_MAX: usize = 800;

/// Crates in the order in which they may depend on each other: each on those before it.
const ORDER: [&str; 5] = ["relink-formats", "relink-engine", "relink-systems", "relink", "relink-cli"];

/// Folders of the crates, in the same order.
const FOLDERS: [&str; 5] = ["formats", "engine", "systems", "relink", "cli"];

/// Files that may hold `unsafe`, each block with its `SAFETY:`.
const UNSAFE: [&str; 5] = [
    "relink/src/host/map.rs",
    "engine/src/column.rs",
    "systems/src/raw.rs",
    "engine/src/shared_image.rs",
    "cli/src/arena.rs",
];

/// Every source file of the workspace, from its root on.
fn sources() -> Vec<(PathBuf, String)> {
    let mut files = Vec::new();
    for folder in FOLDERS.into_iter().chain(["tests", "benches"]) {
        collect(&root().join(folder), &mut files);
    }
    assert!(files.len() > 20, "the sources are found");
    files
}

fn collect(dir: &Path, files: &mut Vec<(PathBuf, String)>) {
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            if !path.ends_with("target") && !path.ends_with("corpus") && !path.ends_with("artifacts") {
                collect(&path, files);
            }
        } else if path.extension().is_some_and(|e| e == "rs") {
            let text = std::fs::read_to_string(&path).unwrap();
            files.push((path.strip_prefix(root()).unwrap().to_owned(), text));
        }
    }
}

#[track_caller]
fn assert_none(rule: &str, breaches: Vec<String>) {
    assert!(breaches.is_empty(), "{rule}:\n{}", breaches.join("\n"));
}

/// Code without its comments and without the tests at its end.
fn code(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let tests = text.find("\n#[cfg(test)]\nmod ").unwrap_or(text.len());
    text[..tests]
        .lines()
        .enumerate()
        .map(|(n, line)| (n + 1, line))
        .filter(|(_, line)| !line.trim_start().starts_with("//"))
}

/// Places of code that hold one of some words.
fn places(files: &[(PathBuf, String)], within: impl Fn(&Path) -> bool, words: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    for (path, text) in files.iter().filter(|(path, _)| within(path)) {
        for (number, line) in code(text) {
            if words.iter().any(|word| line.contains(word)) {
                found.push(format!("{}:{number}: {}", path.display(), line.trim()));
            }
        }
    }
    found
}

#[test]
fn dependencies_run_one_way() {
    let mut breaches = Vec::new();
    for (rank, folder) in FOLDERS.into_iter().enumerate() {
        let manifest = std::fs::read_to_string(root().join(folder).join("Cargo.toml")).unwrap();
        let mut section = String::new();
        for line in manifest.lines() {
            if line.starts_with('[') {
                section = line.trim_matches(['[', ']']).to_owned();
            } else if section.ends_with("dependencies") {
                let name = line.split(['.', '=', ' ']).next().unwrap_or_default();
                let allowed = ORDER.iter().position(|known| *known == name).is_none_or(|other| other < rank);
                if !allowed || ["relink-tests", "relink-benches"].contains(&name) {
                    breaches.push(format!("{folder} depends on {name}"));
                }
            }
        }
    }
    assert_none("formats <- engine <- systems <- relink <- cli", breaches);
}

#[test]
fn formats_know_no_entities_and_no_files() {
    let files = sources();
    let formats = |path: &Path| path.starts_with("formats/src");
    let words = ["bevy", "std::fs", "std::env", "std::process", "std::net", "std::time"];
    assert_none(
        "formats turn bytes into structs and back, and do nothing else",
        places(&files, formats, &words),
    );
    let manifest = std::fs::read_to_string(root().join("formats/Cargo.toml")).unwrap();
    assert!(!manifest.contains("bevy"));
}

#[test]
fn only_the_host_opens_files() {
    let files = sources();
    let library = |path: &Path| {
        ["engine/src", "systems/src", "relink/src", "cli/src"].iter().any(|dir| path.starts_with(dir))
            && !path.starts_with("relink/src/host")
    };
    let words = [
        "std::fs::",
        "use std::fs;",
        "fs::read",
        "fs::write",
        "File::open",
        "File::create",
        "OpenOptions",
        "memmap2",
    ];
    assert_none("files are opened in relink/src/host alone", places(&files, library, &words));
}

#[test]
fn only_the_command_line_prints() {
    let files = sources();
    let words = ["println!", "eprintln!", "print!", "eprint!", "dbg!", "io::stdout", "io::stderr"];
    let silent = |path: &Path| {
        FOLDERS[..4].iter().any(|folder| path.starts_with(folder)) && !path.ends_with("build.rs")
    };
    assert_none("only cli prints", places(&files, silent, &words));
}

#[test]
fn each_file_says_what_it_is_and_is_short() {
    let files = sources();
    let silent = files.iter().filter(|(_, text)| !text.starts_with("//!"));
    assert_none("each file begins with //!", silent.map(|(path, _)| path.display().to_string()).collect());
    let long = files.iter().filter(|(_, text)| text.lines().count() > LINES_MAX);
    let long = long.map(|(path, text)| format!("{}: {} lines", path.display(), text.lines().count()));
    assert_none(&format!("a file has at most {LINES_MAX} lines"), long.collect());
}

#[test]
fn unsafe_is_rare_and_argued() {
    let mut breaches = Vec::new();
    for (path, text) in sources() {
        if path.starts_with("tests") {
            continue;
        }
        let lines: Vec<_> = text.lines().collect();
        for (number, line) in code(&text) {
            let word =
                line.contains("unsafe {") || line.contains("unsafe fn") || line.contains("unsafe impl");
            if !word {
                continue;
            }
            let place = format!("{}:{number}", path.display());
            if !UNSAFE.iter().any(|allowed| path == Path::new(allowed)) {
                breaches.push(format!("{place}: not on the list of tests/tests/it/tidy.rs"));
            }
            let argued = lines[number.saturating_sub(6)..number]
                .iter()
                .any(|line| line.contains("SAFETY:") || line.contains("# Safety"));
            if !argued {
                breaches.push(format!("{place}: no SAFETY line above it"));
            }
        }
    }
    assert_none("unsafe code is on a short list, each block with its reason", breaches);
}

#[test]
fn exceptions_from_lints_have_reasons_and_nothing_is_left_undone() {
    let files = sources();
    let own = |path: &Path| !path.ends_with("tidy.rs");
    assert_none(
        "what is unfinished is an issue",
        places(&files, own, &["todo!(", "unimplemented!(", "TODO", "FIXME", "XXX"]),
    );
    let mut breaches = Vec::new();
    for (path, text) in files.iter().filter(|(path, _)| own(path)) {
        let lines: Vec<_> = text.lines().collect();
        for (number, line) in
            code(text).filter(|(_, line)| line.contains("[allow(") || line.contains("[expect("))
        {
            let end = (number + 3).min(lines.len());
            if !lines[number - 1..end].iter().any(|line| line.contains("reason =")) {
                breaches.push(format!("{}:{number}: {}", path.display(), line.trim()));
            }
        }
    }
    assert_none("each exception from a lint has its reason", breaches);
}

#[test]
fn ignored_tests_do_not_exist() {
    let files = sources();
    let own = |path: &Path| !path.ends_with("tidy.rs");
    assert_none("a test runs or does not exist", places(&files, own, &["#[ignore", "should_panic"]));
}

#[test]
fn documents_are_there() {
    let mut missing = Vec::new();
    for (name, words) in BTreeMap::from([
        ("README.md", &["cargo run --release -- demo", "scripts/test.sh"][..]),
        (
            "ARCHITECTURE.md",
            &["Ingest", "Diff", "Gate", "Resolve", "Place", "Move", "Relocate", "Debug", "BuildId", "Commit"],
        ),
        ("GLOSSARY.md", &["atom", "slot", "island", "frame", "gate", "store", "world"]),
        ("CONTRIBUTING.md", &["scripts/test.sh"]),
        ("LICENSE-MIT", &[]),
        ("LICENSE-APACHE", &[]),
    ]) {
        match std::fs::read_to_string(root().join(name)) {
            Ok(text) => {
                missing.extend(words.iter().filter(|w| !text.contains(**w)).map(|w| format!("{name}: `{w}`")))
            }
            Err(error) => missing.push(format!("{name}: {error}")),
        }
    }
    assert_none("documents and what they hold", missing);
}
