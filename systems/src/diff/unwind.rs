//! Frame descriptions of a changed object against those in the image, by the code that they describe. They come and go
//! with it.

use std::collections::VecDeque;

use formats::eh_frame::{Record, records};
use hashbrown::{HashMap, HashSet};
use object::LittleEndian;
use relink_engine::column::StoreError;
use relink_engine::components::Input;
use relink_engine::program::{EhPiece, SectionUse};
use relink_engine::records::{FdeRecord, atom_flags};
use relink_engine::report::GateReason;
use relink_engine::rows::{AtomRow, CieRow, FdeRow, SymbolRow, Target};
use relink_formats as formats;

use super::Context;
use super::rows::is_vacant_fde;
use super::symbols::Change;
use crate::resolve::unwind::{code_of, relocs_within};

/// Fills the object's `fdes` and their rows; their places in the image come later.
pub(super) fn match_fdes(
    context: &mut Context<'_>,
    input: &mut Input,
    symbols: &[Change],
) -> Result<(), StoreError> {
    let mut found = Vec::new();
    let object = &input.object;
    let name = object.name.clone();
    let refuse = |why: &str| GateReason::UnwindChanged { input: name.clone(), why: why.to_owned() };
    for (index, used) in object.uses.iter().enumerate() {
        let SectionUse::EhFrame(_) = used else { continue };
        let bytes = object.parsed.section_bytes(index);
        let relocs = object.parsed.relocations(index);
        let Ok(records) = records(bytes) else {
            context.frame.refuse(refuse("its .eh_frame can't be read"));
            return Ok(());
        };
        let mut cies: HashMap<u32, Option<CieRow>> = HashMap::new();
        for record in records {
            match record {
                Record::Cie { offset, len } => {
                    let raw = bytes.get(offset as usize..(offset + len) as usize).unwrap_or_default();
                    let span = relocs_within(relocs, offset, len);
                    let personality = relocs[span.indexes()].first().map_or(Target::NONE, |rela| {
                        object.targets[rela.r_sym(LittleEndian, false) as usize]
                    });
                    cies.insert(offset, find_cie(context, raw, personality)?);
                }
                Record::Fde { offset, len, cie } => {
                    let span = relocs_within(relocs, offset, len);
                    let Some((atom, start)) = code_of(object, relocs, offset, span) else { continue };
                    if context.atom(atom)?.flags & atom_flags::LIVE == 0 {
                        continue;
                    }
                    let Some(Some(cie)) = cies.get(&cie) else {
                        context.frame.refuse(refuse("it needs a CIE that the image does not have"));
                        return Ok(());
                    };
                    found.push(EhPiece {
                        section: index as u32,
                        start: offset,
                        len,
                        cie: cie.0,
                        atom,
                        atom_offset: start,
                        relocs: span,
                        ..Default::default()
                    });
                }
                Record::Terminator { .. } => {}
            }
        }
    }
    let mut known = Vec::new();
    for row in input.record.fdes.and(input.record.more_fdes) {
        let fde = context.store.fdes.get(row)?;
        if !is_vacant_fde(&fde) {
            known.push((FdeRow(row), fde));
        }
    }
    let paired = pair(&known, found, symbols);
    let (mut pieces, mut rows) = (Vec::new(), Vec::new());
    for (piece, row) in paired.pieces {
        let row = match row {
            Some(row) => Some(row),
            None => {
                context.frame.differ(refuse("it describes code that had no entry"));
                context.take_fde(input.row)?
            }
        };
        let Some(row) = row else {
            context.frame.refuse(refuse("it has more entries than there is room for"));
            return Ok(());
        };
        context.taken_fdes.insert(row.0);
        pieces.push(piece);
        rows.push(row);
    }
    for (row, fde) in paired.gone {
        context.frame.differ(refuse("code that had an entry has none any more"));
        let code = context.store.atoms.get(fde.atom.0)?.address.wrapping_add(fde.start.into());
        context.plan.removed_fdes.push((row, fde, code));
    }
    (input.object.fdes, input.fde_rows) = (pieces, rows);
    Ok(())
}

struct Paired {
    /// The new object's pieces, each with the row that it takes over.
    pieces: Vec<(EhPiece, Option<FdeRow>)>,
    /// Rows that no piece takes over.
    gone: Vec<(FdeRow, FdeRecord)>,
}

/// Pairs new pieces with the known ones: a piece takes the place of the one that described the same symbol's code, wherever
/// that is in its atom now; without a symbol, the next one that is left in its atom.
///
/// Any order would be right, for each piece is derived anew; this one keeps most of them in the room that they have.
fn pair(known: &[(FdeRow, FdeRecord)], new: Vec<EhPiece>, symbols: &[Change]) -> Paired {
    let places = known.iter().map(|(_, fde)| (fde.atom, fde.start));
    if places.eq(new.iter().map(|piece| (piece.atom, piece.atom_offset))) {
        let rows = known.iter().map(|(row, _)| Some(*row));
        return Paired { pieces: new.into_iter().zip(rows).collect(), gone: Vec::new() };
    }
    let mut old_names: HashMap<(AtomRow, u64), SymbolRow> = HashMap::new();
    let mut new_names: HashMap<(AtomRow, u64), SymbolRow> = HashMap::new();
    for (row, old, new) in symbols {
        old_names.entry((old.atom, old.value)).or_insert(*row);
        new_names.entry((new.atom, new.value)).or_insert(*row);
    }
    let mut named: HashMap<(AtomRow, SymbolRow), usize> = HashMap::new();
    for (index, (_, fde)) in known.iter().enumerate() {
        if let Some(&symbol) = old_names.get(&(fde.atom, u64::from(fde.start))) {
            named.insert((fde.atom, symbol), index);
        }
    }
    let mut taken = vec![false; known.len()];
    let mut pieces: Vec<(EhPiece, Option<FdeRow>)> = Vec::with_capacity(new.len());
    let mut nameless = Vec::new();
    for piece in new {
        let symbol = new_names.get(&(piece.atom, u64::from(piece.atom_offset)));
        match symbol.and_then(|&symbol| named.remove(&(piece.atom, symbol))) {
            Some(index) => {
                taken[index] = true;
                pieces.push((piece, Some(known[index].0)));
            }
            None => nameless.push(piece),
        }
    }
    let mut left: HashMap<AtomRow, VecDeque<usize>> = HashMap::new();
    for (index, (_, fde)) in known.iter().enumerate().filter(|&(index, _)| !taken[index]) {
        left.entry(fde.atom).or_default().push_back(index);
    }
    for piece in nameless {
        let index = left.get_mut(&piece.atom).and_then(VecDeque::pop_front);
        if let Some(index) = index {
            taken[index] = true;
        }
        pieces.push((piece, index.map(|index| known[index].0)));
    }
    let gone = known.iter().zip(taken).filter(|(_, taken)| !taken).map(|(fde, _)| *fde).collect();
    Paired { pieces, gone }
}

/// Whether code of an input that did not change has a symbol as its personality routine, or as the pointer to it. O(frame
/// descriptions), and only of such a symbol.
pub(super) fn is_personality_elsewhere(context: &Context<'_>, symbol: SymbolRow) -> Result<bool, StoreError> {
    let store = context.store;
    let mut cies = HashSet::new();
    for cie in 0..store.cies.len() {
        if store.cies.get(cie)?.personality == Target::symbol(symbol) {
            cies.insert(cie);
        }
    }
    if cies.is_empty() {
        return Ok(false);
    }
    for row in 0..store.fdes.len() {
        let fde = store.fdes.get(row)?;
        if !is_vacant_fde(&fde) && cies.contains(&fde.cie.0) && !context.changed.contains(&fde.input) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The image's CIE with these bytes and this personality.
fn find_cie(context: &Context<'_>, raw: &[u8], personality: Target) -> Result<Option<CieRow>, StoreError> {
    let Some(section) = context.plan.image.eh_frame.some() else { return Ok(None) };
    let table = context.store.sections.get(section.0)?;
    for row in 0..context.store.cies.len() {
        let cie = context.store.cies.get(row)?;
        if cie.personality != personality || (cie.len as usize) < raw.len() {
            continue;
        }
        let Some(mut bytes) = context.image.read(table.offset + u64::from(cie.offset), cie.len as usize)
        else {
            continue;
        };
        // The personality pointer is relocated; the length may count padding.
        let mut new = raw.to_vec();
        formats::eh_frame::pad_record(&mut new, cie.len as usize);
        if personality != Target::NONE {
            let at = cie.personality_offset as usize;
            for bytes in [&mut bytes, &mut new] {
                if let Some(field) = bytes.get_mut(at..at + 4) {
                    field.fill(0);
                }
            }
        }
        if bytes == new {
            return Ok(Some(CieRow(row)));
        }
    }
    Ok(None)
}
