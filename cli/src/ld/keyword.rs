//! `-z KEYWORD`.

use super::command::LdCommand;
use super::value::number;

/// Keywords without meaning for a static x86-64 link, or that ask for what is done anyway. A `=` at the end stands
/// for any value.
const ACCEPTED: &[&str] = &[
    "cet-report=",
    "combreloc",
    "common-page-size=",
    "dead-reloc-in-nonalloc=",
    "defs",
    "dynamic-undefined-weak",
    "global",
    "initfirst",
    "interpose",
    "keep-text-section-prefix",
    "loadfltr",
    "nocombreloc",
    "nocommon",
    "nocopyreloc",
    "nodefaultlib",
    "nodefs",
    "nodelete",
    "nodlopen",
    "nodump",
    "nodynamic-undefined-weak",
    "noextern-protected-data",
    "nognustack",
    "nokeep-text-section-prefix",
    "nomark-plt",
    "nopack-relative-relocs",
    "noreloc-overflow",
    "norewrite-endbr",
    "nosectionheader",
    "notext",
    "nounique-symbol",
    "origin",
    "pack-relative-relocs",
    "rel",
    "rela",
    "report-relative-reloc",
    "retpolineplt",
    "rodynamic",
    "sectionheader",
    "start-stop-visibility=",
    "text",
    "textoff",
    "undefs",
    "unique-symbol",
    "wxneeded",
    "ibtplt",
    "lam-u48",
    "lam-u57",
    "mark-plt",
    "common",
];

/// Keywords that would mark the program in a way that is not done yet.
const WITHOUT_EFFECT: &[&str] =
    &["ibt", "shstk", "x86-64-baseline", "x86-64-v2", "x86-64-v3", "x86-64-v4", "isa-level-report="];

/// Does what one keyword asks for. A keyword that nobody knows is a warning, as with ld.
pub(super) fn apply(command: &mut LdCommand, text: &str) -> Result<(), String> {
    let options = &mut command.options;
    let (name, value) = text.split_once('=').map_or((text, None), |(name, value)| (name, Some(value)));
    match (name, value) {
        ("relro", None) => options.relro = true,
        ("norelro", None) => options.relro = false,
        ("now", None) => options.now = true,
        ("lazy", None) => options.now = false,
        ("execstack", None) => options.exec_stack = Some(true),
        ("noexecstack", None) => options.exec_stack = Some(false),
        ("separate-code", None) => options.separate_code = true,
        ("noseparate-code" | "separate-loadable-segments", None) => {
            options.separate_code = name.starts_with("separate")
        }
        ("muldefs", None) => options.allow_multiple_definition = true,
        ("start-stop-gc", None) => options.start_stop_gc = true,
        ("nostart-stop-gc", None) => options.start_stop_gc = false,
        ("stack-size", Some(value)) => options.stack_size = number(value)?,
        ("max-page-size", Some(value)) => {
            let bytes = number(value)?;
            if !bytes.is_power_of_two() || bytes < 4096 {
                return Err(format!("max-page-size={value}: must be a power of two and at least 4096"));
            }
            options.max_page_size = bytes;
        }
        _ if is_in(ACCEPTED, text) => {}
        _ if is_in(WITHOUT_EFFECT, text) => command.warn(format!("-z {text} has no effect yet")),
        _ => command.warn(format!("-z {text} ignored")),
    }
    Ok(())
}

fn is_in(list: &[&str], text: &str) -> bool {
    list.iter().any(|known| match known.strip_suffix('=') {
        Some(name) => text.strip_prefix(name).is_some_and(|rest| rest.starts_with('=')),
        None => *known == text,
    })
}
