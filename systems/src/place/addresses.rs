//! Addresses and file offsets of everything, slack and reserves included.

use bevy_ecs::prelude::{Res, ResMut};
use formats::dynamic::{plt, relr};
use formats::elf;
use formats::error::FormatError;
use formats::units::{Align, VirtAddr};
use relink_engine::diagnostic::Diagnostic;
use relink_engine::frame::{Frame, Request};
use relink_engine::options::LinkOptions;
use relink_engine::program::{OutputSection, Program, Segment as ProgramHeader};
use relink_engine::records::atom_flags;
use relink_engine::rows::AtomRow;
use relink_formats as formats;

use super::arrange::debug_section;
use super::names::{Relro, Segment, segment};
use super::reserve;
use crate::relocate::dynamic::packed_entries;

const ELF_HEADER: u64 = 64;
const PROGRAM_HEADER: u64 = 56;
const SECTION_HEADER: u64 = 64;

/// Lays out sections in addresses and file.
pub(crate) fn assign_addresses(
    request: Res<'_, Request>,
    mut program: ResMut<'_, Program>,
    mut frame: ResMut<'_, Frame>,
) {
    if !frame.cold() {
        return;
    }
    let options = &request.options;
    let program = &mut *program;
    let mut outputs = std::mem::take(&mut program.outputs);
    super::fixed::mark(&mut outputs, options, &mut frame);
    let plan = plan_headers(&outputs, options);
    let default_base = if options.output_kind.is_position_independent() { 0 } else { 0x40_0000 };
    let base = options.image_base.map_or(default_base, |base| base.0);
    let page = Align::from_bytes(options.max_page_size).unwrap_or(Align::PAGE);
    // The TLS block starts as aligned as its most aligned part, so that offsets from its end are constants.
    let tls = |section: &OutputSection| section.flags & u64::from(elf::SHF_TLS) != 0;
    let tls_align = outputs.iter().filter(|section| tls(section)).map(|section| section.align).max();
    if let Some(first) = outputs.iter_mut().find(|section| tls(section)) {
        first.align = tls_align.unwrap_or(0);
    }
    let start = Layout { address: base, offset: 0, previous: Segment::Read, page };
    let layout = loop {
        let mut layout = start;
        layout.advance(header_bytes(plan.len() as u64));
        // The size of `.relr.dyn` alone depends on addresses.
        let again = program.pack_relative.then(|| outputs.clone());
        place_outputs(program, outputs, &mut layout, options);
        match (grow_packed_table(program, options.incremental.is_some()), again) {
            (Ok(true), Some(again)) => outputs = again,
            (Err(error), _) => {
                frame.errors.push(Diagnostic::Other { message: format!(".relr.dyn: {error}") });
                return;
            }
            _ => break layout,
        }
    };
    let called = own_address(program, program.synthetic.plt);
    // A PLT of one piece starts with the entry that all others go through.
    let header = program.kind.is_dynamic() && program.synthetic.lazy_plt.some().is_none();
    program.plt_address = called + if header { plt::ENTRY_LEN } else { 0 };
    let headers = base..base + header_bytes(plan.len() as u64);
    program.segments = program_headers(program, options, base, plan);
    super::fixed::check_overlaps(program, options, headers, &mut frame);
    program.image_len = layout.offset;
    let inputs: u64 = program.names.sources.iter().map(|bytes| bytes.len() as u64).sum();
    let limit = inputs.saturating_mul(16).saturating_add(IMAGE_ALLOWANCE);
    if program.image_len > limit {
        let message = format!(
            "the image would have {} bytes, far more than its inputs: some section has an absurd alignment",
            program.image_len
        );
        frame.errors.push(Diagnostic::Other { message });
    }
}

/// Places all sections and notes where tables are that sites refer to.
fn place_outputs(
    program: &mut Program,
    mut outputs: Vec<OutputSection>,
    layout: &mut Layout,
    options: &LinkOptions,
) {
    let mut index = 1;
    for section in &mut outputs {
        layout.place(section, program, options);
        if section.size + section.tail > 0 {
            section.index = index;
            index += 1;
        }
    }
    program.outputs = outputs;
    set_tls(program);
    let got_base = program.synthetic.got_plt.some().or(program.synthetic.got.some());
    program.got_base = got_base.map_or(0, |row| program.atoms[row.index()].address);
    program.got_address = own_address(program, program.synthetic.got);
    program.tls_pairs_address =
        program.got_address + 8 * (program.got.len() as u64 + u64::from(program.got_spare));
    program.tls_descriptors_address = program.tls_pairs_address + 16 * program.tls_pairs.len() as u64;
    program.tls_module_address = program.tls_descriptors_address + 16 * program.tls_descriptors.len() as u64;
}

/// Makes `.relr.dyn` as long as it must be for these addresses; tells whether it grew, which moves what is behind it. It
/// never shrinks, so that this comes to an end: at most an entry a place.
fn grow_packed_table(program: &mut Program, incremental: bool) -> Result<bool, FormatError> {
    let Some(row) = program.synthetic.relr.some() else { return Ok(false) };
    let entries = packed_entries(program)?.len() as u64;
    let spare = if incremental { reserve::packed_spare(entries) } else { 0 };
    let needed = (entries + spare) * relr::ENTRY_LEN;
    let atom = &mut program.atoms[row.index()];
    let grows = needed > atom.size;
    atom.size = atom.size.max(needed);
    Ok(grows)
}

/// Bytes of the ELF header and so many program headers.
pub(crate) fn header_bytes(segments: u64) -> u64 {
    ELF_HEADER + segments * PROGRAM_HEADER
}

/// Alignment, as an exponent, of sections that atoms are added to: compilers ask for 32 bytes for large arrays.
const ADDED_ALIGN: u8 = 5;

/// What an image may have beyond 16 times its inputs: reserves and alignment of small programs.
const IMAGE_ALLOWANCE: u64 = 64 << 20;

#[derive(Clone, Copy)]
struct Layout {
    address: u64,
    offset: u64,
    previous: Segment,
    page: Align,
}

impl Layout {
    fn advance(&mut self, bytes: u64) {
        self.address += bytes;
        self.offset += bytes;
    }

    /// Starts a new segment: a new page in memory that may share its file page with the one before.
    fn enter(&mut self, next: Segment, options: &LinkOptions) {
        if next == self.previous {
            return;
        }
        if next == Segment::None {
            self.previous = next;
            return;
        }
        let separate = options.separate_code && (next == Segment::Code || self.previous == Segment::Code);
        if separate {
            self.offset = self.page.up(self.offset);
        }
        self.address = self.page.up(self.address) + self.offset % self.page.bytes();
        self.previous = next;
    }

    /// Starts a new segment at an address that the user chose.
    fn jump(&mut self, to: VirtAddr, next: Segment, options: &LinkOptions) {
        if options.separate_code {
            self.offset = self.page.up(self.offset);
        }
        let mask = self.page.bytes() - 1;
        self.offset += to.0.wrapping_sub(self.offset) & mask;
        self.address = to.0;
        self.previous = next;
    }

    fn place(&mut self, section: &mut OutputSection, program: &mut Program, options: &LinkOptions) {
        let next = segment(&section.name, section.kind, section.flags, Relro::of(options));
        if section.atoms.iter().all(|row| program.atoms[row.index()].size == 0)
            && section.name != b".pad.relro"
            && next != Segment::None
        {
            // Nothing in it: no segment of its own, but its labels must be somewhere.
            section.address = self.address;
            section.offset = self.offset;
            for row in &section.atoms {
                program.atoms[row.index()].address = self.address;
            }
            return;
        }
        let first = self.previous != next || section.fixed;
        match super::fixed::start_of(section, options).filter(|_| section.fixed) {
            Some(start) => self.jump(start, next, options),
            None => self.enter(next, options),
        }
        let grows = section.name == b".text" || grows_by_data(section, program);
        if options.incremental.is_some() && grows && !section.fixed {
            // What a later frame adds may ask for more than what is there.
            section.align = section.align.max(ADDED_ALIGN);
        }
        let align = Align::from_exponent(section.align);
        if next == Segment::None {
            self.place_unloaded(section, program, options, align);
            return;
        }
        if section.name == b".pad.relro" {
            section.address = self.address;
            section.offset = self.offset;
            section.size = self.page.up(self.address) - self.address;
            self.address += section.size;
            if options.incremental.is_some() {
                // eu-elflint looks for `.bss` by its file offset in the memory of the segments, the first one first.
                self.offset += section.size;
            }
            return;
        }
        let padding = align.up(self.address) - self.address;
        let nobits = section.kind == elf::SHT_NOBITS;
        let start = self.address + padding;
        section.address = start;
        // The first of a segment has an offset that agrees with its address, also where it takes no bytes; elsewhere such a
        // section stands where the segment's bytes end.
        section.offset = self.offset + if nobits && !first { 0 } else { padding };
        let end = place_atoms(section, program, options, start);
        section.size = (end - start).saturating_sub(section.tail);
        section.capacity = if nobits { 0 } else { end - start };
        if nobits && section.flags & u64::from(elf::SHF_TLS) != 0 {
            return; // Thread-local zeros take no room in the image's memory.
        }
        self.address = end;
        if !nobits {
            self.offset = section.offset + section.capacity;
        }
    }

    fn place_unloaded(
        &mut self,
        section: &mut OutputSection,
        program: &mut Program,
        options: &LinkOptions,
        align: Align,
    ) {
        self.offset = align.up(self.offset);
        section.offset = self.offset;
        let end = place_atoms(section, program, options, 0);
        section.size = end;
        section.capacity = end;
        if options.incremental.is_some() && section.size > 0 && debug_section(section).is_some() {
            section.capacity += reserve::debug_tail(end);
        }
        self.offset += section.capacity;
    }
}

/// Gives the atoms of a section their slots from `start` on; returns the end.
fn place_atoms(section: &mut OutputSection, program: &mut Program, options: &LinkOptions, start: u64) -> u64 {
    let debug = debug_section(section);
    let mut cursor = start;
    for row in &section.atoms {
        let atom = &mut program.atoms[row.index()];
        cursor = Align::from_exponent(atom.align as u8).up(cursor);
        atom.address = cursor;
        atom.capacity = match &options.incremental {
            Some(incremental) => reserve::capacity(incremental, atom, debug).max(atom.size),
            None => atom.size,
        };
        cursor += atom.capacity;
    }
    if let Some(incremental) = &options.incremental
        && section.name == b".text"
    {
        let from = cursor.next_multiple_of(16);
        cursor = from + reserve::text_reserve(incremental, from - start);
        section.free.push((from, cursor - from));
    }
    if options.incremental.is_some() && grows_by_data(section, program) {
        let from = cursor.next_multiple_of(16);
        cursor = from + reserve::data_reserve(from - start);
        section.free.push((from, cursor - from));
    }
    cursor
}

/// Whether a section holds data that may stand anywhere in it, and nothing that may not.
fn grows_by_data(section: &OutputSection, program: &Program) -> bool {
    let bad = u64::from(elf::SHF_EXECINSTR | elf::SHF_TLS);
    if section.flags & u64::from(elf::SHF_ALLOC) == 0 || section.flags & bad != 0 {
        return false;
    }
    let mut plain = false;
    for row in &section.atoms {
        let flags = program.atoms[row.index()].flags;
        if flags & atom_flags::SYNTHETIC == 0 && flags & atom_flags::EXACT != 0 {
            return false;
        }
        plain |= flags & (atom_flags::SYNTHETIC | atom_flags::COMMON) == 0;
    }
    plain
}

/// The TLS block's bounds and the thread pointer, which stands at its aligned end (variant II).
fn set_tls(program: &mut Program) {
    let tls = program
        .outputs
        .iter()
        .filter(|section| section.flags & u64::from(elf::SHF_TLS) != 0 && section.size > 0);
    let (mut start, mut end, mut align) = (u64::MAX, 0, 0);
    for section in tls {
        start = start.min(section.address);
        end = end.max(section.address + section.size);
        align = align.max(section.align);
    }
    if start != u64::MAX {
        program.tls_start = start;
        program.tp = start + Align::from_exponent(align).up(end - start);
    }
}

/// The program headers that the sections will need, in the order of the file's table.
fn plan_headers(outputs: &[OutputSection], options: &LinkOptions) -> Vec<u32> {
    let used = |wanted: Segment| {
        outputs.iter().any(|section| {
            segment(&section.name, section.kind, section.flags, Relro::of(options)) == wanted
                && !section.atoms.is_empty()
        })
    };
    let named = |name: &[u8]| outputs.iter().any(|section| section.name == name);
    let mut plan = vec![elf::PT_PHDR];
    if named(b".interp") {
        plan.push(elf::PT_INTERP);
    }
    plan.push(elf::PT_LOAD);
    for wanted in [Segment::Code, Segment::Relro, Segment::Write] {
        if used(wanted) {
            plan.push(elf::PT_LOAD);
        }
    }
    plan.extend(outputs.iter().filter(|section| section.fixed).map(|_| elf::PT_LOAD));
    if outputs.iter().any(|section| section.flags & u64::from(elf::SHF_TLS) != 0) {
        plan.push(elf::PT_TLS);
    }
    if named(b".dynamic") {
        plan.push(elf::PT_DYNAMIC);
    }
    if used(Segment::Relro) {
        plan.push(elf::PT_GNU_RELRO);
    }
    if named(b".eh_frame_hdr") {
        plan.push(elf::PT_GNU_EH_FRAME);
    }
    plan.push(elf::PT_GNU_STACK);
    if named(b".note.gnu.property") {
        plan.push(elf::PT_GNU_PROPERTY);
    }
    let mut aligns: Vec<u8> =
        outputs.iter().filter(|section| is_loaded_note(section)).map(|section| section.align).collect();
    aligns.dedup();
    plan.extend(aligns.iter().map(|_| elf::PT_NOTE));
    plan.extend(
        outputs.iter().filter(|section| section.fixed && is_loaded_note(section)).map(|_| elf::PT_NOTE),
    );
    plan
}

fn program_headers(
    program: &Program,
    options: &LinkOptions,
    base: u64,
    plan: Vec<u32>,
) -> Vec<ProgramHeader> {
    let headers = header_bytes(plan.len() as u64);
    let page = options.max_page_size;
    let mut loads = load_segments(program, options, base, headers, page).into_iter();
    let mut notes = note_groups(program).into_iter();
    let of = |name: &[u8]| {
        program.output(name).map_or((0, 0, 0), |section| (section.offset, section.address, section.size))
    };
    let mut segments = Vec::with_capacity(plan.len());
    for kind in plan {
        let mut header = ProgramHeader { kind, flags: elf::PF_R, align: 8, ..Default::default() };
        match kind {
            elf::PT_PHDR => {
                header.offset = ELF_HEADER;
                header.address = base + ELF_HEADER;
                header.file_size = headers - ELF_HEADER;
                header.memory_size = header.file_size;
            }
            elf::PT_LOAD => match loads.next() {
                Some(load) => header = load,
                None => header.kind = elf::PT_NULL,
            },
            elf::PT_TLS => header = tls_header(program),
            elf::PT_GNU_RELRO => header = relro_header(program, options),
            elf::PT_GNU_STACK => {
                let executable = options.exec_stack.unwrap_or(program.exec_stack);
                header.flags = elf::PF_R | elf::PF_W | if executable { elf::PF_X } else { 0 };
                header.memory_size = options.stack_size;
                header.align = 16;
            }
            elf::PT_NOTE => header = notes.next().unwrap_or(ProgramHeader { kind: elf::PT_NULL, ..header }),
            elf::PT_DYNAMIC | elf::PT_GNU_EH_FRAME | elf::PT_GNU_PROPERTY | elf::PT_INTERP => {
                let name: &[u8] = match kind {
                    elf::PT_INTERP => b".interp",
                    elf::PT_DYNAMIC => b".dynamic",
                    elf::PT_GNU_EH_FRAME => b".eh_frame_hdr",
                    _ => b".note.gnu.property",
                };
                (header.offset, header.address, header.file_size) = of(name);
                header.memory_size = header.file_size;
                header.flags = if kind == elf::PT_DYNAMIC { elf::PF_R | elf::PF_W } else { elf::PF_R };
                header.align = match kind {
                    elf::PT_INTERP => 1,
                    elf::PT_GNU_EH_FRAME => 4,
                    _ => 8,
                };
            }
            _ => {}
        }
        segments.push(header);
    }
    segments
}

fn load_segments(
    program: &Program,
    options: &LinkOptions,
    base: u64,
    headers: u64,
    page: u64,
) -> Vec<ProgramHeader> {
    let mut loads: Vec<ProgramHeader> = Vec::new();
    let mut open: Option<(Segment, ProgramHeader)> = None;
    for wanted in [Segment::Read, Segment::Code, Segment::Relro, Segment::Write] {
        let empty = ProgramHeader {
            kind: elf::PT_LOAD,
            flags: match wanted {
                Segment::Read => elf::PF_R,
                Segment::Code => elf::PF_R | elf::PF_X,
                _ => elf::PF_R | elf::PF_W,
            },
            align: page,
            ..Default::default()
        };
        if wanted == Segment::Read {
            let (file_size, memory_size) = (headers, headers);
            open = Some((wanted, ProgramHeader { address: base, file_size, memory_size, ..empty }));
        }
        for section in &program.outputs {
            if section.index == 0
                || segment(&section.name, section.kind, section.flags, Relro::of(options)) != wanted
            {
                continue;
            }
            if open.is_none_or(|(class, _)| class != wanted) || section.fixed {
                loads.extend(open.map(|(_, header)| header));
                open = Some((
                    wanted,
                    ProgramHeader { offset: section.offset, address: section.address, ..empty },
                ));
            }
            let Some((_, header)) = &mut open else { continue };
            let nobits = section.kind == elf::SHT_NOBITS;
            if !(nobits && section.flags & u64::from(elf::SHF_TLS) != 0) {
                header.memory_size =
                    (section.address + section.size + section.tail).saturating_sub(header.address);
            }
            if !nobits {
                header.file_size =
                    (section.offset + section.size + section.tail).saturating_sub(header.offset);
            }
        }
    }
    loads.extend(open.map(|(_, header)| header));
    // As loaders want them, whatever the order in the file.
    loads.sort_by_key(|header| header.address);
    loads
}

fn tls_header(program: &Program) -> ProgramHeader {
    let mut header = ProgramHeader { kind: elf::PT_NULL, flags: elf::PF_R, align: 1, ..Default::default() };
    for section in program.outputs.iter().filter(|s| s.flags & u64::from(elf::SHF_TLS) != 0 && s.size > 0) {
        if header.kind == elf::PT_NULL {
            header.kind = elf::PT_TLS;
            (header.offset, header.address) = (section.offset, section.address);
        }
        header.align = header.align.max(1 << section.align);
        header.memory_size = section.address + section.size - header.address;
        if section.kind != elf::SHT_NOBITS {
            header.file_size = section.offset + section.size - header.offset;
        }
    }
    header
}

fn relro_header(program: &Program, options: &LinkOptions) -> ProgramHeader {
    let mut header = ProgramHeader { kind: elf::PT_NULL, flags: elf::PF_R, align: 1, ..Default::default() };
    for section in &program.outputs {
        let relro = segment(&section.name, section.kind, section.flags, Relro::of(options)) == Segment::Relro;
        if !relro || section.index == 0 {
            continue;
        }
        if header.kind == elf::PT_NULL {
            header.kind = elf::PT_GNU_RELRO;
            (header.offset, header.address) = (section.offset, section.address);
        }
        let tls_zeros = section.kind == elf::SHT_NOBITS && section.flags & u64::from(elf::SHF_TLS) != 0;
        if !tls_zeros {
            header.memory_size = section.address + section.size - header.address;
        }
        if section.kind != elf::SHT_NOBITS {
            header.file_size = section.offset + section.size - header.offset;
        }
    }
    header
}

fn is_loaded_note(section: &OutputSection) -> bool {
    section.kind == elf::SHT_NOTE && section.flags & u64::from(elf::SHF_ALLOC) != 0
}

/// Notes of one alignment form one segment: readers step through it by that alignment.
fn note_groups(program: &Program) -> Vec<ProgramHeader> {
    let mut groups: Vec<(u8, ProgramHeader)> = Vec::new();
    for section in program.outputs.iter().filter(|section| is_loaded_note(section) && section.size > 0) {
        let align = section.align;
        if section.fixed || groups.last().is_none_or(|(known, _)| *known != align) {
            groups.push((
                align,
                ProgramHeader {
                    kind: elf::PT_NOTE,
                    flags: elf::PF_R,
                    offset: section.offset,
                    address: section.address,
                    align: 1 << align,
                    ..Default::default()
                },
            ));
        }
        if let Some((_, header)) = groups.last_mut() {
            header.file_size = section.offset + section.size - header.offset;
            header.memory_size = header.file_size;
        }
    }
    groups.into_iter().map(|(_, header)| header).collect()
}

/// Places the section headers at the end of the file and fixes its length.
pub(crate) fn finish_file(program: &mut Program, end: u64) {
    program.section_headers = end.next_multiple_of(8);
    let sections = program.outputs.iter().filter(|section| section.index != 0).count() as u64 + 1;
    program.image_len = program.section_headers + sections * SECTION_HEADER;
}

/// The address of an atom of the linker's own; 0 if there is none.
pub(crate) fn own_address(program: &Program, row: AtomRow) -> u64 {
    row.some().map_or(0, |row| program.atoms[row.index()].address)
}
