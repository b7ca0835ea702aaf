//! The first look at every relocation: who needs a GOT slot, an indirect PLT entry, a RELATIVE relocation, and
//! which names nothing defines.

use std::sync::atomic::{AtomicU8, Ordering};

use bevy_ecs::prelude::{Res, ResMut};
use formats::reloc::Op;
use object::LittleEndian;
use rayon::prelude::*;
use relink_engine::diagnostic::{Diagnostic, Place};
use relink_engine::frame::{Frame, Request};
use relink_engine::options::OutputKind;
use relink_engine::program::{Object, Program, SectionUse};
use relink_engine::records::atom_flags;
use relink_engine::rows::{SymbolRow, TargetKind};

use super::undefined::Missing;
use crate::kernel::{SiteError, is_plain, lower};

const GOT: u8 = 1;
const PLT: u8 = 2;

#[derive(Default)]
struct Found {
    dynamic_relocs: u32,
    missing: Vec<Missing>,
    errors: Vec<Diagnostic>,
}

/// Scans all live atoms and assigns GOT slots and indirect PLT entries in the order of symbol rows.
pub(crate) fn scan_relocations(
    request: Res<'_, Request>,
    mut program: ResMut<'_, Program>,
    mut frame: ResMut<'_, Frame>,
) {
    if !frame.resolving() {
        return;
    }
    program.position_independent = request.options.output_kind == OutputKind::StaticPie;
    let needs: Vec<AtomicU8> = (0..program.symbols.len()).map(|_| AtomicU8::new(0)).collect();
    let found: Vec<Found> = {
        let program = &*program;
        program
            .objects
            .par_iter()
            .enumerate()
            .map(|(row, object)| scan_object(program, row, object, &needs))
            .collect()
    };
    let mut missing = Vec::new();
    for (object, found) in program.objects.iter_mut().zip(found) {
        object.dynamic_relocs = found.dynamic_relocs;
        missing.extend(found.missing);
        frame.errors.extend(found.errors);
    }
    super::undefined::report(&program, missing, &mut frame);
    let Program { symbols, got, plt, .. } = &mut *program;
    for (row, needs) in needs.into_iter().enumerate() {
        let needs = needs.into_inner();
        if needs & GOT != 0 {
            got.push(SymbolRow(row as u32));
            symbols[row].got = got.len() as u32;
        }
        if needs & PLT != 0 {
            plt.push(SymbolRow(row as u32));
            symbols[row].plt = plt.len() as u32;
        }
    }
}

fn scan_object(program: &Program, row: usize, object: &Object, needs: &[AtomicU8]) -> Found {
    let mut found = Found::default();
    for (index, used) in object.uses.iter().enumerate() {
        let SectionUse::Atom(atom) = *used else { continue };
        let flags = program.atoms[atom.index()].flags;
        if flags & atom_flags::LIVE == 0 || flags & atom_flags::ALLOC == 0 {
            continue;
        }
        let relocs = object.parsed.relocations(index);
        let bytes = object.parsed.section_bytes(index);
        let mut next = 0;
        while next < relocs.len() {
            let at = next;
            next += 1;
            if is_plain(program, object, bytes.len(), &relocs[at]) {
                debug_assert!(lower(program, object, flags, bytes, relocs, at).is_ok_and(|site| {
                    matches!(site.plan.op, Op::Pc32 | Op::Branch32) && !site.ifunc && !site.plan.skip_next
                }));
                continue;
            }
            match lower(program, object, flags, bytes, relocs, at) {
                Ok(site) => {
                    next += usize::from(site.plan.skip_next);
                    let relative = site.relative && site.plan.op == Op::Abs64;
                    found.dynamic_relocs += u32::from(relative && program.position_independent);
                    let bits = if site.plan.op.needs_got_slot() { GOT } else { 0 }
                        | if site.ifunc { PLT } else { 0 };
                    if bits != 0
                        && let TargetKind::Symbol(symbol) = site.target.kind()
                    {
                        needs[symbol.index()].fetch_or(bits, Ordering::Relaxed);
                    } else if bits != 0 {
                        let why = "a GOT slot for a section symbol".to_owned();
                        found.errors.push(bad_relocation(program, object, index, &relocs[at], why));
                    }
                }
                Err(SiteError::Undefined(symbol)) => found.missing.push(Missing {
                    symbol,
                    object: row as u32,
                    section: index as u32,
                    offset: relocs[at].r_offset.get(LittleEndian),
                }),
                Err(error) => found.errors.push(site_error(program, object, index, &relocs[at], error)),
            }
        }
    }
    found
}

/// The message of a relocation that can't be lowered or stored.
pub(crate) fn site_error(
    program: &Program,
    object: &Object,
    section: usize,
    rela: &formats::object_file::Rela,
    error: SiteError,
) -> Diagnostic {
    use formats::reloc::RelocError;
    match error {
        SiteError::Reloc(RelocError::OutOfRange { value, min, max, .. }) => {
            Diagnostic::RelocationOutOfRange {
                kind: formats::reloc::kind_name(rela.r_type(LittleEndian, false).0).to_owned(),
                symbol: target_name(program, object, rela),
                place: site_place(object, section, rela.r_offset.get(LittleEndian)),
                value: i128::from(value),
                min: i128::from(min),
                max: i128::from(max),
            }
        }
        SiteError::Reloc(RelocError::NotPositionIndependent { .. }) => {
            let why =
                "it can't be used in a position-independent executable; recompile with -fPIE".to_owned();
            bad_relocation(program, object, section, rela, why)
        }
        SiteError::Reloc(error) => bad_relocation(program, object, section, rela, error.to_string()),
        SiteError::Dropped => {
            let why = "it refers to a section that was discarded with its COMDAT group".to_owned();
            bad_relocation(program, object, section, rela, why)
        }
        SiteError::Undefined(symbol) => Diagnostic::UndefinedSymbol {
            symbol: String::from_utf8_lossy(program.names.of(symbol)).into_owned(),
            references: vec![site_place(object, section, rela.r_offset.get(LittleEndian))],
            reference_count: 1,
            suggestion: None,
        },
    }
}

fn bad_relocation(
    program: &Program,
    object: &Object,
    section: usize,
    rela: &formats::object_file::Rela,
    why: String,
) -> Diagnostic {
    Diagnostic::BadRelocation {
        kind: formats::reloc::kind_name(rela.r_type(LittleEndian, false).0).to_owned(),
        symbol: target_name(program, object, rela),
        place: site_place(object, section, rela.r_offset.get(LittleEndian)),
        why,
    }
}

fn target_name(program: &Program, object: &Object, rela: &formats::object_file::Rela) -> String {
    let index = rela.r_sym(LittleEndian, false) as usize;
    let name = match object.targets.get(index).map(|target| target.kind()) {
        Some(TargetKind::Symbol(row)) if row.0 < program.globals => program.names.of(row),
        _ => match object.parsed.symbol_place(index) {
            formats::object_file::SymbolPlace::Section(section)
                if object.parsed.symbol_name(index).is_empty() =>
            {
                object.parsed.section_name(section as usize)
            }
            _ => object.parsed.symbol_name(index),
        },
    };
    String::from_utf8_lossy(name).into_owned()
}

/// A place in an object with the function around it and its source line.
pub(crate) fn site_place(object: &Object, section: usize, offset: u64) -> Place {
    let symbols = object.parsed.symbols();
    let function = (0..symbols.len()).find(|&index| {
        let symbol = &symbols[index];
        let start = symbol.st_value.get(LittleEndian);
        object.parsed.symbol_place(index) == formats::object_file::SymbolPlace::Section(section as u32)
            && symbol.st_type().0 == formats::elf::STT_FUNC
            && offset >= start
            && offset - start < symbol.st_size.get(LittleEndian).max(1)
    });
    let line = formats::source_line::source_line(&object.parsed, section as u32, offset);
    Place {
        object: object.name.clone(),
        section: String::from_utf8_lossy(object.parsed.section_name(section)).into_owned(),
        offset,
        function: function
            .map(|index| String::from_utf8_lossy(object.parsed.symbol_name(index)).into_owned()),
        line: line.map(|line| (line.file, line.line)),
    }
}

use relink_formats as formats;
