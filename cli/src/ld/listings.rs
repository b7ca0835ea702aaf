//! What a link tells beside its output: `--trace`, `--trace-symbol`, `--print-gc-sections`, `-Map`, `--cref`,
//! `--dependency-file`.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use relink::host::{self, HostError, Io};
use relink::{LinkSession, NameUse};

use super::command::LdCommand;
use crate::console;

/// Width of the column of names in `--cref`; GNU ld's.
const NAME_WIDTH: usize = 50;

/// All that the command line asks for.
pub(super) fn write(
    io: &dyn Io,
    command: &LdCommand,
    session: &LinkSession,
    dependencies: &[PathBuf],
) -> Result<(), HostError> {
    if command.trace {
        session.loaded_inputs().iter().for_each(console::line);
    }
    if command.print_gc_sections {
        session.dropped_sections().iter().for_each(|section| {
            console::line(format_args!("removing unused section {section}"));
        });
    }
    if !command.traced_symbols.is_empty() {
        console::print(traced(session, &command.traced_symbols));
    }
    let mut map = Vec::new();
    if command.map_to_output || command.map.is_some() {
        let path = command.map.clone().unwrap_or_else(|| PathBuf::from("-"));
        session.write_map(&mut map).map_err(|source| HostError::Io { action: "write", path, source })?;
    }
    if command.cross_reference {
        map.extend(cross_reference(session).into_bytes());
    }
    if let Some(path) = &command.map {
        host::write_file(io, path, &map)?;
    }
    if command.map_to_output || command.map.is_none() {
        console::bytes(&map);
    }
    if let Some(path) = &command.dependency_file {
        host::write_file(io, path, &dependency_rules(&command.output, dependencies))?;
    }
    Ok(())
}

/// A line for each object that has one of the names, as every ld writes them.
fn traced(session: &LinkSession, names: &[String]) -> String {
    let mut text = String::new();
    session.visit_names(|object, name, name_use| {
        if names.iter().any(|traced| traced == name) {
            let what = match name_use {
                NameUse::Definition => "definition of",
                NameUse::Common => "common definition of",
                NameUse::Reference => "reference to",
            };
            let _ = writeln!(text, "{object}: {what} {name}");
        }
    });
    text
}

/// Names in order, and for each the objects that have it: who defines it first.
fn cross_reference(session: &LinkSession) -> String {
    let mut names: BTreeMap<String, Vec<(NameUse, String)>> = BTreeMap::new();
    session.visit_names(|object, name, name_use| {
        names.entry(name.to_owned()).or_default().push((name_use, object.to_owned()));
    });
    let mut text = format!("\nCross Reference Table\n\n{:NAME_WIDTH$}File\n", "Symbol");
    for (name, mut objects) in names {
        objects.sort_by_key(|(name_use, _)| *name_use);
        let mut name = name.as_str();
        for (_, object) in objects {
            // A long name still needs a space behind it.
            let width = NAME_WIDTH - 1;
            let _ = writeln!(text, "{name:width$} {object}");
            name = "";
        }
    }
    text
}

/// Rules for make: the output needs all files, and none of them need be there for ever.
fn dependency_rules(output: &Path, files: &[PathBuf]) -> Vec<u8> {
    let mut rules = escaped(output);
    rules.push(b':');
    for file in files {
        rules.extend(b" \\\n  ");
        rules.extend(escaped(file));
    }
    rules.push(b'\n');
    for file in files {
        rules.push(b'\n');
        rules.extend(escaped(file));
        rules.extend(b":\n");
    }
    rules
}

/// A path as make reads it.
fn escaped(path: &Path) -> Vec<u8> {
    let mut bytes = Vec::new();
    for &byte in path.as_os_str().as_bytes() {
        match byte {
            b' ' | b'#' | b'\\' => bytes.extend([b'\\', byte]),
            b'$' => bytes.extend(b"$$"),
            _ => bytes.push(byte),
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use relink::{IncrementalOptions, Input, LinkOptions};

    use super::*;

    #[test]
    fn dependencies_are_written_for_make() {
        let files = [PathBuf::from("a b.o"), PathBuf::from("$x.o")];
        let rules = dependency_rules(Path::new("out"), &files);
        let rules = String::from_utf8(rules).unwrap();
        assert_eq!(rules, "out: \\\n  a\\ b.o \\\n  $$x.o\n\na\\ b.o:\n\n$$x.o:\n");
    }

    #[test]
    fn names_are_listed_with_their_objects() {
        for incremental in [None, Some(IncrementalOptions::default())] {
            let options = LinkOptions { incremental, ..LinkOptions::default() };
            let mut session = LinkSession::new(options).unwrap();
            let objects: [(&str, &[u8]); 5] = [
                ("app_a.o", include_bytes!("../../prebuilt/app_a.o")),
                ("table.o", include_bytes!("../../prebuilt/table.o")),
                ("state.o", include_bytes!("../../prebuilt/state.o")),
                ("arith.o", include_bytes!("../../prebuilt/arith.o")),
                ("weakdef.o", include_bytes!("../../prebuilt/weakdef.o")),
            ];
            for (name, bytes) in objects {
                session.add_input(Input::bytes(name, bytes.to_vec()));
            }
            session.resolve().unwrap();
            let text = traced(&session, &["arith_add".to_owned()]);
            assert!(text.contains("arith.o: definition of arith_add\n"), "{text}");
            assert!(text.contains("table.o: reference to arith_add\n"), "{text}");
            assert!(!text.contains("state_sum"), "{text}");
            let text = cross_reference(&session);
            let at = text.find("\narith_add ").unwrap();
            let lines: Vec<&str> = text[at + 1..].lines().take(3).collect();
            let line = |name, object| format!("{name:NAME_WIDTH$}{object}");
            assert_eq!(lines, [line("arith_add", "arith.o"), line("", "app_a.o"), line("", "table.o")]);
        }
    }
}
