//! `--version` and `--help`.

use std::fmt::Write;

use super::table::{Act, OPTIONS, Spec, Value};

/// configure scripts look for "GNU ld" to know which options they may use, libtool and meson too.
pub(super) const VERSION: &str = concat!("relink ", env!("CARGO_PKG_VERSION"), " (compatible with GNU ld)");

/// Width of the column of names.
const NAMES_WIDTH: usize = 34;

/// The text of `--help`.
pub(super) fn help() -> String {
    let mut text = String::from(
        "ld.relink: an incremental linker for static x86-64 ELF programs\n\n\
         Usage: ld.relink [OPTIONS] FILES\n\n\
         Files are objects, archives, linker scripts that name inputs, and @FILE with more of all this.\n\n\
         Options:\n",
    );
    for spec in OPTIONS.iter().filter(|spec| !spec.help.is_empty()) {
        let names = spec.names.iter().map(|name| with_value(name, spec)).collect::<Vec<_>>().join(", ");
        if names.len() < NAMES_WIDTH {
            let _ = writeln!(text, "  {names:NAMES_WIDTH$}{}", spec.help);
        } else {
            let _ = writeln!(text, "  {names}\n  {:NAMES_WIDTH$}{}", "", spec.help);
        }
    }
    list(&mut text, "Accepted without effect", |act| matches!(act, Act::Ignore | Act::WithoutEffect));
    list(&mut text, "Not supported yet", |act| matches!(act, Act::Refuse(_)));
    text.push_str(
        "\nNot supported yet: shared libraries and programs that load them, -r, linker scripts with SECTIONS,\n\
         link-time optimization.\n\n\
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
    let specs = OPTIONS.iter().filter(|spec| spec.help.is_empty() && of(&spec.act));
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
