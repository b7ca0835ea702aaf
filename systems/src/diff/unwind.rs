//! Frame descriptions of a changed object against those in the image, by the code that they describe.

use std::collections::VecDeque;

use formats::eh_frame::{Record, records};
use hashbrown::HashMap;
use object::LittleEndian;
use relink_engine::column::StoreError;
use relink_engine::components::Input;
use relink_engine::program::{EhPiece, SectionUse};
use relink_engine::records::{FdeRecord, atom_flags};
use relink_engine::report::GateReason;
use relink_engine::rows::{AtomRow, CieRow, SymbolRow, Target};
use relink_formats as formats;

use super::Context;
use super::symbols::Change;
use crate::resolve::unwind::{code_of, relocs_within};

/// Fills the object's `fdes`, in the order of their rows; their places in the image come later.
pub(super) fn match_fdes(
    context: &mut Context<'_>,
    input: &mut Input,
    symbols: &[Change],
) -> Result<(), StoreError> {
    let mut found = Vec::new();
    let object = &input.object;
    let refuse = |why: &str| GateReason::UnwindChanged { input: object.name.clone(), why: why.to_owned() };
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
                    if context.store.atoms.get(atom.0)?.flags & atom_flags::LIVE == 0 {
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
    // A row of the state does not decide how much is allocated: what the object has is about as much.
    let mut known = Vec::with_capacity(found.len());
    for entry in context.store.fdes.span(input.record.fdes) {
        known.push(entry?.1);
    }
    match pair(&known, found, symbols) {
        Ok(pieces) => input.object.fdes = pieces,
        Err(why) => context.frame.refuse(refuse(why)),
    }
    Ok(())
}

/// Puts new pieces in the order of the known ones: a piece takes the place of the one that described the same symbol's
/// code, wherever that is in its atom now; without a symbol, the next one that is left in its atom.
///
/// Any order would be right, for each piece is derived anew; this one keeps most of them in the room that they have.
fn pair(known: &[FdeRecord], new: Vec<EhPiece>, symbols: &[Change]) -> Result<Vec<EhPiece>, &'static str> {
    let places = known.iter().map(|fde| (fde.atom, fde.start));
    if places.eq(new.iter().map(|piece| (piece.atom, piece.atom_offset))) {
        return Ok(new);
    }
    let mut old_names: HashMap<(AtomRow, u64), SymbolRow> = HashMap::new();
    let mut new_names: HashMap<(AtomRow, u64), SymbolRow> = HashMap::new();
    for (row, old, new) in symbols {
        old_names.entry((old.atom, old.value)).or_insert(*row);
        new_names.entry((new.atom, new.value)).or_insert(*row);
    }
    let mut named: HashMap<(AtomRow, SymbolRow), usize> = HashMap::new();
    for (index, fde) in known.iter().enumerate() {
        if let Some(&symbol) = old_names.get(&(fde.atom, u64::from(fde.start))) {
            named.insert((fde.atom, symbol), index);
        }
    }
    let mut pieces: Vec<Option<EhPiece>> = vec![None; known.len()];
    let mut nameless = Vec::new();
    for piece in new {
        let symbol = new_names.get(&(piece.atom, u64::from(piece.atom_offset)));
        match symbol.and_then(|&symbol| named.remove(&(piece.atom, symbol))) {
            Some(index) => pieces[index] = Some(piece),
            None => nameless.push(piece),
        }
    }
    let mut left: HashMap<AtomRow, VecDeque<usize>> = HashMap::new();
    for (index, fde) in known.iter().enumerate().filter(|&(index, _)| pieces[index].is_none()) {
        left.entry(fde.atom).or_default().push_back(index);
    }
    for piece in nameless {
        // An entry more than the unit had: its rows are a span that can't grow in place.
        let index = left.get_mut(&piece.atom).and_then(VecDeque::pop_front);
        pieces[index.ok_or("it describes code that had no entry")?] = Some(piece);
    }
    pieces.into_iter().collect::<Option<_>>().ok_or("code that had an entry has none any more")
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
