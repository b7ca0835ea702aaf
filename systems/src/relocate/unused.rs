//! Imports that the edit has left without a reference: a full link would not have them.

use formats::reloc::Op;
use hashbrown::HashSet;
use relink_engine::records::{
    RelocRecord, SymbolRecord, atom_flags, file_flags, place, reloc_flags, symbol_flags,
};
use relink_engine::report::GateReason;
use relink_engine::rows::{AtomRow, InputRow, RelocRow, Span, SymbolRow, TargetKind};
use relink_formats as formats;

use super::dynamic_symbols::Tables;
use crate::debug::changed::Stop;
use crate::resolve::dynamic::is_defined_here;
use crate::view::{View, text_of};

/// A symbol, and whether a reference may ask for its address in the program.
type Use = (SymbolRow, bool);

/// What a relocation says of the symbol that it names, if loaded memory has it.
fn use_of(reloc: &RelocRecord) -> Option<Use> {
    if reloc.flags & (reloc_flags::DEAD | reloc_flags::DEBUG) != 0 {
        return None;
    }
    let TargetKind::Symbol(row) = reloc.target.kind() else { return None };
    let op = u8::try_from(reloc.op).ok().and_then(Op::from_u8)?;
    let address = !op.is_branch() && !op.needs_got_slot() && reloc.flags & reloc_flags::SYMBOLIC == 0;
    Some((row, address))
}

impl Tables<'_> {
    /// Takes imports out that nothing refers to any more. `before` are the relocations that changed atoms had, `after` those
    /// that they have; `changed` are those atoms. A gate that lets no symbol go has a reason instead.
    pub(super) fn drop_unused(
        &mut self,
        before: &[Span],
        after: &[RelocRecord],
        changed: &HashSet<AtomRow>,
        wide: bool,
    ) -> Result<(), Stop> {
        let after: HashSet<Use> = after.iter().filter_map(use_of).collect();
        let mut lost: Vec<Use> = Vec::new();
        for span in before {
            for entry in self.store.relocs.span(*span) {
                lost.extend(use_of(&entry?.1).filter(|used| !after.contains(used)));
            }
        }
        lost.sort_unstable();
        lost.dedup();
        for (row, address) in lost {
            let record = self.record(row)?;
            if record.dynsym == 0 || is_defined_here(&record) {
                continue;
            }
            let canonical = record.flags & symbol_flags::CANONICAL_PLT != 0;
            let used = [true, false].map(|address| after.contains(&(row, address)));
            if used.contains(&true) && !(address && canonical && !used[0]) {
                continue;
            }
            let others = self.other_uses(row, changed)?;
            if address && canonical && !used[0] && !others[0] && (used[1] || others[1]) {
                // An address of its own less, but an import still: another kind of entry.
                return Err(self.removed(&record));
            }
            if used.contains(&true) || others.contains(&true) || self.is_kept(row, &record)? {
                continue;
            }
            if !wide || self.is_last_of_library(row, &record)? {
                return Err(self.removed(&record));
            }
            let record = self.forget(&record)?;
            self.plan.symbols.insert(row.0, record);
        }
        Ok(())
    }

    fn removed(&self, record: &SymbolRecord) -> Stop {
        let symbol = text_of(self.store, self.plan, record.name);
        Stop::Reason(GateReason::RemovedUndefined { symbol, input: String::new() })
    }

    /// Whether atoms that did not change refer to a symbol: for its address, or otherwise.
    fn other_uses(&self, row: SymbolRow, changed: &HashSet<AtomRow>) -> Result<[bool; 2], Stop> {
        let mut found = [false; 2];
        if row.0 >= self.store.symbols.len() {
            return Ok(found);
        }
        let view = View::new(self.store, self.plan);
        let mut next = self.store.symbols.get(row.0)?.first_incoming;
        let mut left = self.store.relocs.len();
        while let Some(at) = RelocRow::some(next).filter(|_| left > 0 && found.contains(&false)) {
            let reloc = self.store.relocs.get(at.0)?;
            (next, left) = (reloc.next, left - 1);
            let live = view.atom_record(reloc.atom).flags & atom_flags::LIVE != 0;
            if let Some((_, address)) = use_of(&reloc).filter(|_| live && !changed.contains(&reloc.atom)) {
                found[usize::from(!address)] = true;
            }
        }
        view.damage()?;
        Ok(found)
    }

    /// Options and unwind tables refer to symbols without relocations that the store has.
    fn is_kept(&self, row: SymbolRow, record: &SymbolRecord) -> Result<bool, Stop> {
        if record.flags & symbol_flags::OPTION != 0 {
            return Ok(true);
        }
        for cie in 0..self.store.cies.len() {
            if self.store.cies.get(cie)?.personality.kind() == TargetKind::Symbol(row) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether the image needs a library of `--as-needed` for this symbol alone.
    fn is_last_of_library(&self, row: SymbolRow, record: &SymbolRecord) -> Result<bool, Stop> {
        if record.atom != place::SHARED {
            return Ok(false);
        }
        if self.store.files.get(record.input.0)?.flags & file_flags::AS_NEEDED == 0 {
            return Ok(false);
        }
        let is_other = |other: SymbolRow, file: InputRow| -> Result<bool, Stop> {
            let known = self.record(other)?;
            let strong = known.flags & symbol_flags::STRONG != 0;
            Ok(other != row && strong && known.atom == place::SHARED && known.input == file)
        };
        let owners = self.plan.image.dynsym_owners;
        for index in 0..owners.len {
            if let Some(other) = self.owner(owners, index)?
                && is_other(other, record.input)?
            {
                return Ok(false);
            }
        }
        Ok(true)
    }
}
