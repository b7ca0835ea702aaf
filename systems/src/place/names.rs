//! Which output section an input section goes to, and in which order output sections stand.

use formats::elf;
use relink_engine::options::LinkOptions;
use relink_formats as formats;

/// Prefixes that name an output section: `.text.f` goes to `.text`. Order matters: longer ones first.
const PREFIXES: [&[u8]; 21] = [
    b".text",
    b".rodata",
    b".data.rel.ro",
    b".data",
    b".bss.rel.ro",
    b".bss",
    b".tdata",
    b".tbss",
    b".init_array",
    b".fini_array",
    b".preinit_array",
    b".ctors",
    b".dtors",
    b".gcc_except_table",
    b".lrodata",
    b".ldata",
    b".lbss",
    b".ltext",
    b".sdata",
    b".sbss",
    b".eh_frame",
];

/// The output section of an input section.
pub(crate) fn output_name(name: &[u8]) -> &[u8] {
    for prefix in PREFIXES {
        if let Some(rest) = name.strip_prefix(prefix)
            && (rest.is_empty() || rest[0] == b'.')
        {
            return match prefix {
                b".ctors" => b".init_array",
                b".dtors" => b".fini_array",
                b".bss.rel.ro" => b".data.rel.ro",
                prefix => prefix,
            };
        }
    }
    name
}

/// Constructor order: smaller runs first; what has no number runs last.
pub(crate) fn init_priority(name: &[u8]) -> u32 {
    const LAST: u32 = 65_536;
    let number = |prefix: &[u8]| {
        let digits = name.strip_prefix(prefix)?.strip_prefix(b".")?;
        std::str::from_utf8(digits).ok()?.parse::<u32>().ok()
    };
    for prefix in [&b".init_array"[..], b".fini_array", b".preinit_array"] {
        if let Some(priority) = number(prefix) {
            return priority.min(LAST);
        }
    }
    // `.ctors.N` counts the other way round.
    for prefix in [&b".ctors"[..], b".dtors"] {
        if let Some(priority) = number(prefix) {
            return 65_535_u32.saturating_sub(priority);
        }
    }
    LAST
}

/// `.ctors` and `.dtors` run from the end; in the arrays that took their place they stand reversed.
pub(crate) fn is_reversed(name: &[u8]) -> bool {
    [&b".ctors"[..], b".dtors"]
        .iter()
        .any(|prefix| name.strip_prefix(*prefix).is_some_and(|rest| rest.is_empty() || rest[0] == b'.'))
}

/// Segments, by what their pages allow. The order is that of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Segment {
    Read,
    Code,
    Relro,
    Write,
    /// Not loaded.
    None,
}

/// What becomes read-only once the loader is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Relro {
    No,
    /// All but the slots that calls bind late.
    Partial,
    /// `-z now`: those as well.
    Full,
}

impl Relro {
    pub(crate) fn of(options: &LinkOptions) -> Relro {
        match (options.relro, options.now && options.output_kind.is_dynamic()) {
            (false, _) => Relro::No,
            (true, false) => Relro::Partial,
            (true, true) => Relro::Full,
        }
    }
}

/// The segment of an output section.
///
/// `relro` keeps out of the writable one what only the loader writes; `.got.plt` counts if `now` makes it so.
pub(crate) fn segment(name: &[u8], kind: u32, flags: u64, relro: Relro) -> Segment {
    let has = |flag: u32| flags & u64::from(flag) != 0;
    if !has(elf::SHF_ALLOC) {
        Segment::None
    } else if has(elf::SHF_EXECINSTR) {
        Segment::Code
    } else if !has(elf::SHF_WRITE) {
        Segment::Read
    } else if relro != Relro::No && is_relro(name, kind, flags) || relro == Relro::Full && name == b".got.plt"
    {
        Segment::Relro
    } else {
        Segment::Write
    }
}

fn is_relro(name: &[u8], kind: u32, flags: u64) -> bool {
    flags & u64::from(elf::SHF_TLS) != 0
        || matches!(
            kind,
            elf::SHT_INIT_ARRAY | elf::SHT_FINI_ARRAY | elf::SHT_PREINIT_ARRAY | elf::SHT_DYNAMIC
        )
        || matches!(name, b".data.rel.ro" | b".got" | b".jcr" | b".bss.rel.ro" | b".pad.relro")
}

/// Order of output sections within their segment.
pub(crate) fn rank(name: &[u8], kind: u32, flags: u64) -> u32 {
    let has = |flag: u32| flags & u64::from(flag) != 0;
    match name {
        // Whatever its name: TLS is one range.
        _ if has(elf::SHF_TLS) => 60 + u32::from(kind == elf::SHT_NOBITS),
        b".interp" => 5,
        b".note.gnu.property" => 10,
        b".note.gnu.build-id" => 11,
        b".dynsym" => 20,
        b".gnu.version" => 21,
        b".gnu.version_d" => 22,
        b".gnu.version_r" => 23,
        b".gnu.hash" => 24,
        b".hash" => 25,
        b".dynstr" => 26,
        b".rela.dyn" | b".relr.dyn" => 27,
        b".rela.plt" => 28,
        b".eh_frame_hdr" => 40,
        b".eh_frame" => 41,
        b".init" => 50,
        b".fini" => 51,
        b".plt" | b".iplt" => 52,
        b".plt.sec" => 53,
        // The last section of code, so that its reserve sorts last in `.eh_frame_hdr`.
        b".text" => 59,
        b".preinit_array" => 62,
        b".init_array" => 63,
        b".fini_array" => 64,
        b".data.rel.ro" => 66,
        b".dynamic" => 67,
        b".got" => 68,
        b".bss.rel.ro" => 70,
        b".pad.relro" => 71,
        b".data" => 70,
        b".got.plt" => 69,
        b".bss" => 81,
        b".comment" => 90,
        b".symtab" => 100,
        b".shstrtab" => 101,
        b".strtab" => 102,
        _ if !has(elf::SHF_ALLOC) => 91,
        _ if kind == elf::SHT_NOTE => 12,
        _ if has(elf::SHF_EXECINSTR) => 55,
        _ if !has(elf::SHF_WRITE) => 30,
        _ if kind == elf::SHT_NOBITS => 82,
        _ => 72,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_their_prefix() {
        assert_eq!(output_name(b".text.main"), b".text");
        assert_eq!(output_name(b".textual"), b".textual");
        assert_eq!(output_name(b".data.rel.ro.local.x"), b".data.rel.ro");
        assert_eq!(output_name(b".data.relax"), b".data");
        assert_eq!(output_name(b".ctors.00100"), b".init_array");
    }

    #[test]
    fn priorities_order_constructors() {
        assert!(init_priority(b".init_array.101") < init_priority(b".init_array"));
        assert_eq!(init_priority(b".ctors.65434"), 101);
    }
}
