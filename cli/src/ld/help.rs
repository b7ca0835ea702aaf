//! `--version` and `--help`.

use std::fmt::Write;

use super::table::{Act, Spec, Value, options};

/// Programs that choose options by this line, and what they read in it: libtool, gettext and meson `GNU`; glibc, gcc and
/// cmake `GNU ld version N.N`, the version whose options are understood. The `v` keeps libtool from taking our
/// number for that of a GNU ld without version scripts (` 0.`, ` 1.`, ` 2.N.`).
pub(super) const VERSION: &str =
    concat!("relink v", env!("CARGO_PKG_VERSION"), " (compatible with GNU ld version 2.42)");

/// Width of the column of names.
const NAMES_WIDTH: usize = 34;

/// The text of `--help`.
pub(super) fn help() -> String {
    let mut text = String::from(
        "ld.relink: an incremental linker for x86-64 ELF\n\n\
         Usage: ld.relink [OPTIONS] FILES\n\n\
         Files are objects, archives, shared libraries, linker scripts that name inputs, and @FILE with more of\n\
         all this.\n\n\
         Options:\n",
    );
    for spec in options().filter(|spec| !spec.help.is_empty()) {
        let names = spec.names.iter().map(|name| with_value(name, spec)).collect::<Vec<_>>().join(", ");
        let mut lines = spec.help.lines();
        if names.len() < NAMES_WIDTH {
            let _ = writeln!(text, "  {names:NAMES_WIDTH$}{}", lines.next().unwrap_or_default());
        } else {
            let _ = writeln!(text, "  {names}");
        }
        for line in lines {
            let _ = writeln!(text, "  {:NAMES_WIDTH$}{line}", "");
        }
    }
    list(&mut text, "Accepted without effect", |act| matches!(act, Act::Ignore | Act::WithoutEffect));
    list(&mut text, "Not supported yet", |act| matches!(act, Act::Refuse(_)));
    text.push_str(
        "\nNot supported yet: linker scripts with SECTIONS, link-time optimization.\n\n\
         ld.relink: supported targets: elf64-x86-64\n\
         ld.relink: supported emulations: elf_x86_64\n",
    );
    text
}

/// A name as it is written with its value.
fn with_value(name: &str, spec: &Spec) -> String {
    let short = name.len() == 2;
    match spec.value {
        Value::None => name.to_owned(),
        Value::Required(what) if short => format!("{name} {what}"),
        Value::Required(what) => format!("{name}={what}"),
        Value::Optional(what) if short => format!("{name}[{what}]"),
        Value::Optional(what) => format!("{name}[={what}]"),
    }
}

fn list(text: &mut String, title: &str, of: impl Fn(&Act) -> bool) {
    let _ = write!(text, "\n{title}:\n ");
    let mut width = 1;
    let specs = options().filter(|spec| spec.help.is_empty() && of(&spec.act));
    let mut names: Vec<&str> = specs.flat_map(|spec| spec.names).copied().collect();
    names.sort_by_key(|name| name.trim_start_matches('-').to_ascii_lowercase());
    names.dedup();
    for name in names {
        if width + name.len() > 100 {
            text.push_str("\n ");
            width = 1;
        }
        let _ = write!(text, " {name}");
        width += name.len() + 1;
    }
    text.push('\n');
}
