//! `-z KEYWORD`.

use relink::Unresolved;

use super::command::LdCommand;
use super::value::number;

/// Keywords that ask for what is done anyway, or whose effect no program would notice. A `=` at the end stands for any
/// value.
const ACCEPTED: &[&str] = &[
    "bndplt",
    "cet-report=",
    "combreloc",
    "common",
    "common-page-size=",
    "dead-reloc-in-nonalloc=",
    "dynamic-undefined-weak",
    "keep-text-section-prefix",
    "lam-u48-report=",
    "lam-u57-report=",
    "mark-plt",
    "nocombreloc",
    "nocommon",
    "nocopyreloc",
    "nodynamic-undefined-weak",
    "noextern-protected-data",
    "nognustack",
    "noindirect-extern-access",
    "nokeep-text-section-prefix",
    "nomark-plt",
    "nomemory-seal",
    "noreloc-overflow",
    "norewrite-endbr",
    "nounique-symbol",
    "rel",
    "rela",
    "report-relative-reloc",
    "rodynamic",
    "sectionheader",
    "start-stop-visibility=",
    "textwarn",
    "unique-symbol",
    "wxneeded",
];

/// Keywords that would mark or shape the output in a way that is not done yet.
const WITHOUT_EFFECT: &[&str] = &[
    "global",
    "isa-level-report=",
    "lam-u48",
    "lam-u57",
    "loadfltr",
    "memory-seal",
    "nodefaultlib",
    "nodump",
    "nosectionheader",
    "retpolineplt",
    "shstk",
    "x86-64-baseline",
    "x86-64-v2",
    "x86-64-v3",
    "x86-64-v4",
];

/// Does what one keyword asks for. A keyword that nobody knows is a warning, as with ld.
pub(super) fn apply(command: &mut LdCommand, text: &str) -> Result<(), String> {
    let options = &mut command.options;
    let dynamic = &mut options.dynamic;
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
        ("defs", None) => dynamic.unresolved = Unresolved::Error,
        ("nodefs", None) => dynamic.unresolved = Unresolved::ByKind,
        ("undefs", None) => dynamic.unresolved = Unresolved::Ignore,
        ("text", None) => dynamic.text_relocations = false,
        ("notext" | "textoff", None) => dynamic.text_relocations = true,
        ("pack-relative-relocs", None) => dynamic.pack_relative_relocs = true,
        ("nopack-relative-relocs", None) => dynamic.pack_relative_relocs = false,
        ("origin", None) => dynamic.origin = true,
        ("nodelete", None) => dynamic.nodelete = true,
        ("nodlopen", None) => dynamic.nodlopen = true,
        ("initfirst", None) => dynamic.initfirst = true,
        ("interpose", None) => dynamic.interpose = true,
        ("ibt" | "force-ibt" | "ibtplt", None) => dynamic.force_ibt = true,
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
