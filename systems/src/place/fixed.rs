//! Sections whose addresses the user chooses: `--section-start`, `-Ttext`, `-Tdata`, `-Tbss`.

use std::ops::Range;

use formats::elf;
use formats::units::{Align, VirtAddr};
use relink_engine::diagnostic::Diagnostic;
use relink_engine::frame::Frame;
use relink_engine::options::LinkOptions;
use relink_engine::program::{OutputSection, Program};
use relink_formats as formats;

use super::names::{Relro, Segment, segment};

/// The address that an option gives to a section.
pub(super) fn start_of(section: &OutputSection, options: &LinkOptions) -> Option<VirtAddr> {
    let named = |(name, _): &&(String, VirtAddr)| name.as_bytes() == section.name;
    options.section_starts.iter().rev().find(named).map(|&(_, start)| start)
}

/// Notes which sections start where an option says; those that can't are errors.
pub(super) fn mark(outputs: &mut [OutputSection], options: &LinkOptions, frame: &mut Frame) {
    if options.section_starts.is_empty() {
        return;
    }
    for section in outputs {
        let Some(start) = start_of(section, options) else { continue };
        let why = match segment(&section.name, section.kind, section.flags, Relro::of(options)) {
            Segment::None => "it is not loaded, so it has no address",
            Segment::Relro => "it is part of what becomes read-only in one piece once loaded; add -z norelro",
            _ if section.flags & u64::from(elf::SHF_TLS) != 0 => "thread-local sections stand together",
            _ if !start.0.is_multiple_of(Align::from_exponent(section.align).bytes()) => {
                "the address is not aligned as the section must be"
            }
            _ => {
                section.fixed = true;
                continue;
            }
        };
        let name = String::from_utf8_lossy(&section.name);
        let message = format!("--section-start {name}={:#x}: {why}", start.0);
        frame.errors.push(Diagnostic::Other { message });
    }
}

/// What the user placed must not lie on anything else; what shares a page with something else is worth a warning.
pub(super) fn check_overlaps(
    program: &Program,
    options: &LinkOptions,
    headers: Range<u64>,
    frame: &mut Frame,
) {
    if !program.outputs.iter().any(|section| section.fixed) {
        return;
    }
    let loaded = program.outputs.iter().filter(|section| {
        let tls_zeros = section.kind == elf::SHT_NOBITS && section.flags & u64::from(elf::SHF_TLS) != 0;
        section.index != 0 && section.flags & u64::from(elf::SHF_ALLOC) != 0 && section.size > 0 && !tls_zeros
    });
    let mut ranges: Vec<(u64, u64, String)> = loaded
        .map(|section| {
            let name = String::from_utf8_lossy(&section.name).into_owned();
            (section.address, section.address.saturating_add(section.size), name)
        })
        .collect();
    ranges.push((headers.start, headers.end, "the ELF and program headers".to_owned()));
    ranges.sort();
    let hint = match options.incremental {
        Some(_) => "; --incremental reserves room behind sections: leave more between them",
        None => "",
    };
    for pair in ranges.windows(2) {
        let [(start, end, first), (next, last, second)] = pair else { continue };
        if next < end {
            let message = format!(
                "{second} [{next:#x}, {last:#x}) overlaps {first} [{start:#x}, {end:#x}): choose other addresses \
                 (--section-start, --image-base){hint}"
            );
            frame.errors.push(Diagnostic::Other { message });
        }
    }
    let page = Align::from_bytes(options.max_page_size).unwrap_or(Align::PAGE);
    let mut loads: Vec<(u64, u64)> = program
        .segments
        .iter()
        .filter(|segment| segment.kind == elf::PT_LOAD && segment.memory_size > 0)
        .map(|segment| (segment.address, segment.address.saturating_add(segment.memory_size)))
        .collect();
    loads.sort_unstable();
    for pair in loads.windows(2) {
        let [(_, end), (next, _)] = pair else { continue };
        if next >= end && page.up(*end) > *next - *next % page.bytes() && !end.is_multiple_of(page.bytes()) {
            let message = format!(
                "the segments that end at {end:#x} and start at {next:#x} share a page: a loader can map only one of them"
            );
            frame.warnings.push(Diagnostic::Other { message });
        }
    }
}
