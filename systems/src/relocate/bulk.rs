//! Relocate of a cold frame: copies every atom to its slot and applies its relocations, in parallel.

use bevy_ecs::prelude::{Res, ResMut};
use formats::dwarf::extend::extend;
use formats::dwarf::filler::has_offsets;
use formats::dwarf::{self, DebugSection, FillerContext, HoleTooSmall};
use formats::elf;
use formats::reloc::Op;
use object::LittleEndian;
use rayon::prelude::*;
use relink_engine::diagnostic::Diagnostic;
use relink_engine::frame::{Frame, Request};
use relink_engine::image::ImageBytes;
use relink_engine::program::{Applied, Object, Program};
use relink_engine::records::{AtomRecord, atom_flags};
use relink_engine::rows::{AtomRow, NONE, Target, TargetKind};
use relink_formats as formats;

use super::dynamic::{DynamicReloc, is_packed};
use crate::commit::bulk::{foreign_relocs, record_of};
use crate::kernel::{Dynamic, Places, SectionSymbols, Site, SiteError, field_width, lower, store};
use crate::place::arrange::debug_section;
use crate::place::names::is_reversed;
use crate::resolve::scan::site_error;

/// What a chunk of atoms leaves behind beside its bytes.
#[derive(Default)]
struct Written {
    dynamic: Vec<DynamicReloc>,
    relocations: u64,
    errors: Vec<Diagnostic>,
    /// What the store keeps of the relocations, if there will be one.
    applied: Option<Applied>,
}

/// An atom and the bytes of its slot.
struct Job<'a> {
    atom: AtomRow,
    debug: Option<DebugSection>,
    slot: &'a mut [u8],
}

/// Atoms a task handles: enough to hide the cost of a task, few enough to balance two cores.
const ATOMS_PER_TASK: usize = 64;

/// Bytes of lent memory that a task makes ready.
const PREPARED_BYTES: usize = 8 << 20;

/// Writes all atoms into a new image.
pub(crate) fn write_atoms(
    request: Res<'_, Request>,
    mut program: ResMut<'_, Program>,
    mut frame: ResMut<'_, Frame>,
) {
    if !frame.cold() {
        return;
    }
    let mut image = match program.memory.take() {
        Some(memory) if memory.bytes().len() as u64 == program.image_len => {
            let len = memory.bytes().len();
            (0..len.div_ceil(PREPARED_BYTES)).into_par_iter().for_each(|part| {
                memory.prepare(part * PREPARED_BYTES..len.min((part + 1) * PREPARED_BYTES));
            });
            ImageBytes::Lent(memory)
        }
        _ => ImageBytes::Owned(vec![0; program.image_len as usize]),
    };
    let written = write_image_atoms(&program, &mut image, request.options.incremental.is_some());
    let mut dynamic = Vec::with_capacity(program.dynamic_relocs as usize);
    program.applied.clear();
    for written in written {
        program.applied.extend(written.applied);
        dynamic.extend(written.dynamic);
        frame.counters.relocations_applied += written.relocations;
        frame.errors.extend(written.errors);
    }
    frame.counters.atoms_placed =
        program.atoms.iter().filter(|atom| atom.flags & atom_flags::LIVE != 0).count() as u64;
    program.image = image;
    if let Err(error) = super::dynamic::write_dynamic_relocs(&mut program, dynamic) {
        frame.errors.push(Diagnostic::Other { message: format!(".relr.dyn: {error}") });
    }
}

fn write_image_atoms(program: &Program, image: &mut [u8], keep: bool) -> Vec<Written> {
    for section in program.outputs.iter().filter(|section| section.flags & u64::from(elf::SHF_EXECINSTR) != 0)
    {
        // Free bytes of code trap; fragments of one function are joined by bytes that do nothing.
        let filler = if matches!(&section.name[..], b".init" | b".fini") { 0x90 } else { 0xcc };
        let range = section.offset as usize..(section.offset + section.size) as usize;
        if let Some(bytes) = image.get_mut(range) {
            bytes.fill(filler);
        }
    }
    for pool in &program.pools {
        let atom = &program.atoms[pool.atom.index()];
        if let Some(offset) = program.file_offset(atom) {
            image[offset as usize..offset as usize + pool.data.len()].copy_from_slice(&pool.data);
        }
    }
    let mut jobs = Vec::with_capacity(program.atoms.len());
    let (mut rest, mut at) = (image, 0);
    for section in program.outputs.iter().filter(|section| section.kind != elf::SHT_NOBITS) {
        let debug = debug_section(section);
        for &row in &section.atoms {
            let atom = &program.atoms[row.index()];
            if atom.section == NONE || atom.capacity == 0 || atom.flags & atom_flags::NOBITS != 0 {
                continue;
            }
            let start = section.offset + atom.address - section.address;
            let skip = (start - at) as usize;
            let (slot, tail) = std::mem::take(&mut rest)[skip..].split_at_mut(atom.capacity as usize);
            jobs.push(Job { atom: row, debug, slot });
            (rest, at) = (tail, start + atom.capacity);
        }
    }
    let context = filler_context(program);
    jobs.par_chunks_mut(ATOMS_PER_TASK)
        .map(|jobs| {
            let mut written = Written { applied: keep.then(Applied::default), ..Written::default() };
            for job in jobs {
                write_atom(program, job, context, &mut written);
            }
            written
        })
        .collect()
}

fn write_atom(program: &Program, job: &mut Job<'_>, context: FillerContext, written: &mut Written) {
    let atom = &program.atoms[job.atom.index()];
    let Some(object) = program.object(atom) else { return };
    let section = atom.section as usize;
    let bytes = object.parsed.section_bytes(section);
    let body = &mut job.slot[..bytes.len()];
    body.copy_from_slice(bytes);
    if atom.flags & atom_flags::DEBUG != 0 {
        relocate_debug(program, object, section, atom.address, body, written);
        if let Some(debug) = job.debug
            && close_hole(debug, job.slot, bytes.len(), context).is_err()
        {
            job.slot[bytes.len()..].fill(0);
        }
        if let Some(applied) = &mut written.applied {
            let before = applied.records.len();
            foreign_relocs(program, object, section, job.atom, atom.flags, &mut applied.records);
            applied.atoms.push((job.atom, (applied.records.len() - before) as u32));
        }
        return;
    }
    let bases = program.bases();
    let relocs = object.parsed.relocations(section);
    let name = object.parsed.section_name(section);
    let reversed = is_reversed(name);
    let before = written.applied.as_ref().map_or(0, |applied| applied.records.len());
    let mut next = 0;
    while next < relocs.len() {
        let at = next;
        next += 1;
        let site = match lower(program, object, atom.flags, bytes, relocs, at) {
            Ok(site) => site,
            Err(error) => {
                written.errors.push(site_error(program, object, section, &relocs[at], error));
                continue;
            }
        };
        next += usize::from(site.plan.skip_next);
        if let Err(error) = store(&bases, &site, body, atom.address) {
            let error = SiteError::Reloc(error);
            written.errors.push(site_error(program, object, section, &relocs[at], error));
        }
        if site.dynamic != Dynamic::None {
            let offset = site_offset(object, section, &site);
            written.dynamic.push(dynamic_reloc(program, &site, atom, offset));
        }
        written.relocations += 1;
        if let Some(applied) = &mut written.applied
            && site.plan.op != Op::None
            && site.target != Target::NONE
        {
            let size = reversed.then_some(bytes.len() as u64);
            applied.records.push(record_of(&site, job.atom, atom.flags, size));
        }
    }
    if let Some(applied) = &mut written.applied {
        applied.atoms.push((job.atom, (applied.records.len() - before) as u32));
    }
    if reversed {
        reverse_words(body);
    }
}

/// Where the word of a site ends up in its atom.
pub(crate) fn site_offset(object: &Object, section: usize, site: &Site) -> u64 {
    let reversed = is_reversed(object.parsed.section_name(section));
    let offset = site.plan.offset;
    if reversed { object.parsed.sections[section].size.saturating_sub(8 + offset) } else { offset }
}

/// The dynamic relocation of a site that has one, at an offset of its atom.
pub(crate) fn dynamic_reloc(program: &Program, site: &Site, atom: &AtomRecord, offset: u64) -> DynamicReloc {
    let place = atom.address.wrapping_add(offset);
    match (site.dynamic, site.target.kind()) {
        (Dynamic::Symbolic, TargetKind::Symbol(row)) => DynamicReloc {
            symbol: program.symbols[row.index()].dynsym,
            place,
            kind: elf::R_X86_64_64,
            addend: site.addend,
            packed: false,
        },
        _ => DynamicReloc {
            symbol: 0,
            place,
            kind: elf::R_X86_64_RELATIVE,
            addend: site.s.wrapping_add_signed(site.plan.addend) as i64,
            packed: is_packed(program, atom, offset),
        },
    }
}

/// Constructors of `.ctors` run from the end; `.init_array` runs from the start.
fn reverse_words(bytes: &mut [u8]) {
    let words: Vec<[u8; 8]> = bytes.chunks_exact(8).filter_map(|word| word.try_into().ok()).collect();
    for (slot, word) in bytes.chunks_exact_mut(8).zip(words.into_iter().rev()) {
        slot.copy_from_slice(&word);
    }
}

/// Applies the relocations of a debug contribution; what refers to dropped code gets a tombstone.
fn relocate_debug(
    program: &Program,
    object: &Object,
    section: usize,
    address: u64,
    body: &mut [u8],
    written: &mut Written,
) {
    let relocs = object.parsed.relocations(section);
    let errors = relocate_contribution(program, object, section, address, body);
    written.relocations += relocs.len() as u64;
    written.errors.extend(
        errors.into_iter().map(|(index, error)| site_error(program, object, section, &relocs[index], error)),
    );
}

/// The same for any placement; returns relocations that do not fit.
pub(crate) fn relocate_contribution<P: Places>(
    places: &P,
    object: &Object,
    section: usize,
    address: u64,
    body: &mut [u8],
) -> Vec<(usize, SiteError)> {
    let relocs = object.parsed.relocations(section);
    let bytes = object.parsed.section_bytes(section);
    let tombstone = dwarf::tombstone(object.parsed.section_name(section));
    let bases = places.bases();
    let mut errors = Vec::new();
    let mut symbols = SectionSymbols::new();
    for index in 0..relocs.len() {
        if let Some((value, width)) = symbols.value(places, object, &relocs[index])
            && let Ok(offset) = usize::try_from(relocs[index].r_offset.get(LittleEndian))
            && let Some(field) = offset.checked_add(width).and_then(|end| body.get_mut(offset..end))
        {
            field.copy_from_slice(&value.to_le_bytes()[..width]);
            if cfg!(debug_assertions) {
                let fast = field.to_vec();
                let site = lower(places, object, atom_flags::DEBUG, bytes, relocs, index);
                let stored = site.is_ok_and(|site| store(&bases, &site, body, address).is_ok());
                assert!(stored && body[offset..].starts_with(&fast), "two answers for relocation {index}");
            }
            continue;
        }
        match lower(places, object, atom_flags::DEBUG, bytes, relocs, index) {
            Ok(site) => {
                if let Err(error) = store(&bases, &site, body, address) {
                    errors.push((index, SiteError::Reloc(error)));
                }
            }
            Err(SiteError::Dropped | SiteError::Undefined(_)) => {
                let offset = relocs[index].r_offset.get(LittleEndian) as usize;
                let width = field_width(relocs[index].r_type(LittleEndian, false).0);
                if let Some(field) = offset.checked_add(width).and_then(|end| body.get_mut(offset..end)) {
                    field.copy_from_slice(&tombstone.to_le_bytes()[..width]);
                }
            }
            Err(error) => errors.push((index, error)),
        }
    }
    errors
}

/// Closes the hole behind a contribution of `len` bytes that has its relocations.
pub(crate) fn close_hole(
    debug: DebugSection,
    slot: &mut [u8],
    len: usize,
    context: FillerContext,
) -> Result<(), HoleTooSmall> {
    if extend(debug, slot, len) {
        return Ok(());
    }
    let context = FillerContext { has_offsets: has_offsets(&slot[..len]), ..context };
    dwarf::filler::fill(debug, &mut slot[len..], context)
}

/// What fillers refer to.
pub(crate) fn filler_context(program: &Program) -> FillerContext {
    let offset = |row: AtomRow| row.some().map_or(0, |row| program.atoms[row.index()].address as u32);
    FillerContext {
        abbrev_offset: offset(program.synthetic.filler_abbrev),
        unit_offset: offset(program.synthetic.filler_unit),
        version: FILLER_VERSION,
        has_offsets: false,
    }
}

/// DWARF version of filler units: readers of version 5 read version 4 as well, and its header is shorter.
pub(crate) const FILLER_VERSION: u16 = 4;
