//! Imports follow their references: without any a full link would not have them, and with weak ones alone they are weak.

use formats::reloc::Op;
use hashbrown::{HashMap, HashSet};
use relink_engine::records::{RelocRecord, SymbolRecord, atom_flags, image_flags, reloc_flags, symbol_flags};
use relink_engine::report::GateReason;
use relink_engine::rows::{AtomRow, RelocRow, Span, SymbolRow, TargetKind};
use relink_formats as formats;

use super::dynamic_symbols::Tables;
use crate::debug::changed::Stop;
use crate::resolve::dynamic::is_defined_here;
use crate::view::{View, text_of};

/// What references ask of the symbol that they name.
mod kind {
    /// Anything.
    pub(super) const USED: u8 = 1;
    /// An address of its own in the program.
    pub(super) const ADDRESS: u8 = 2;
    /// More than a weak reference does.
    pub(super) const STRONG: u8 = 4;
    /// An address that no relocation of the loader could supply, if it were another module's.
    pub(super) const FIXED: u8 = 8;
}

/// What a relocation asks of the symbol that it names, if loaded memory has it.
fn use_of(view: &View<'_>, reloc: &RelocRecord) -> Option<(SymbolRow, u8)> {
    if reloc.flags & (reloc_flags::DEAD | reloc_flags::DEBUG) != 0 {
        return None;
    }
    let TargetKind::Symbol(row) = reloc.target.kind() else { return None };
    let op = u8::try_from(reloc.op).ok().and_then(Op::from_u8)?;
    let address = !op.is_branch() && !op.needs_got_slot() && reloc.flags & reloc_flags::SYMBOLIC == 0;
    let strong = reloc.flags & reloc_flags::WEAK == 0;
    let fixed = address && (op != Op::Abs64 || !is_writable(view, reloc.atom));
    let bit = |on: bool, kind: u8| if on { kind } else { 0 };
    let kinds = bit(address, kind::ADDRESS) | bit(strong, kind::STRONG) | bit(fixed, kind::FIXED);
    Some((row, kind::USED | kinds))
}

/// Whether the loader may write to an atom.
fn is_writable(view: &View<'_>, row: AtomRow) -> bool {
    let anywhere = view.plan.image.flags & image_flags::TEXT_RELOCATIONS != 0;
    anywhere || view.atom_record(row).flags & atom_flags::WRITE != 0
}

/// All kinds of uses by symbol.
fn uses(view: &View<'_>, relocs: impl Iterator<Item = RelocRecord>) -> HashMap<SymbolRow, u8> {
    let mut uses = HashMap::new();
    for (row, kinds) in relocs.filter_map(|reloc| use_of(view, &reloc)) {
        *uses.entry(row).or_default() |= kinds;
    }
    uses
}

impl Tables<'_> {
    /// Takes imports out that nothing refers to any more, and makes them as strong as their references are. `before` are the
    /// relocations that changed atoms had, `after` those that they have; `changed` are those atoms. A gate that lets no
    /// symbol go has a reason instead.
    pub(super) fn follow_uses(
        &mut self,
        before: &[Span],
        after: &[RelocRecord],
        changed: &HashSet<AtomRow>,
        wide: bool,
    ) -> Result<(), Stop> {
        let mut known = Vec::new();
        for span in before {
            for entry in self.store.relocs.span(*span) {
                known.push(entry?.1);
            }
        }
        let view = View::new(self.store, self.plan);
        let (before, after) = (uses(&view, known.into_iter()), uses(&view, after.iter().copied()));
        view.damage()?;
        let rows = before.keys().chain(after.keys());
        let mut rows: Vec<SymbolRow> =
            rows.filter(|row| before.get(*row) != after.get(*row)).copied().collect();
        rows.sort_unstable();
        rows.dedup();
        for row in rows {
            let record = self.record(row)?;
            if record.flags & symbol_flags::COPIED != 0 && is_defined_here(&record) {
                self.follow_copy(&record, &after, changed, wide)?;
            }
            if record.dynsym == 0 || is_defined_here(&record) {
                continue;
            }
            let [before, after] = [&before, &after].map(|uses| uses.get(&row).copied().unwrap_or(0));
            let was_strong = record.flags & symbol_flags::STRONG != 0;
            let canonical = record.flags & symbol_flags::CANONICAL_PLT != 0;
            let decisive = if canonical { !kind::FIXED } else { !(kind::ADDRESS | kind::FIXED) };
            let lost = before & !after & decisive;
            let others = if lost != 0 { self.other_uses(row, changed, lost)? } else { 0 };
            let left = after | others;
            let lost = lost & !others;
            if lost != 0 && self.is_kept(row, &record)? {
                continue;
            }
            if left & kind::USED == 0 {
                if !wide {
                    return Err(self.removed(&record));
                }
                let record = self.forget(&record)?;
                self.plan.symbols.insert(row.0, record);
                self.plan.written_symbols.push(row);
                continue;
            }
            if lost & kind::ADDRESS != 0 {
                // An address of its own less, but an import still: another kind of entry.
                return Err(self.removed(&record));
            }
            let strong = left & kind::STRONG != 0 || was_strong && lost & kind::STRONG == 0;
            if strong != was_strong {
                if !wide {
                    let symbol = text_of(self.store, self.plan, record.name);
                    return Err(Stop::Reason(GateReason::BindingChanged { symbol, input: String::new() }));
                }
                self.bind(row, strong)?;
            }
        }
        Ok(())
    }

    /// Takes a copy out that nothing refers to any more. One that only pointers refer to, a full link would leave to the loader.
    fn follow_copy(
        &mut self,
        record: &SymbolRecord,
        after: &HashMap<SymbolRow, u8>,
        changed: &HashSet<AtomRow>,
        wide: bool,
    ) -> Result<(), Stop> {
        let names = self.names_of_copy(record)?;
        let mut left = 0;
        for &name in &names {
            left |= after.get(&name).copied().unwrap_or(0);
            if left & kind::FIXED == 0 {
                left |= self.other_uses(name, changed, kind::USED | kind::FIXED)?;
            }
            if left & kind::FIXED != 0 || self.is_kept(name, &self.record(name)?)? {
                return Ok(());
            }
        }
        if wide && left == 0 { self.drop_copy(record, &names) } else { Err(self.removed(record)) }
    }

    fn removed(&self, record: &SymbolRecord) -> Stop {
        let symbol = text_of(self.store, self.plan, record.name);
        Stop::Reason(GateReason::RemovedUndefined { symbol, input: String::new() })
    }

    /// Whether something has used a symbol's address before this frame.
    pub(super) fn has_address_uses(&self, row: SymbolRow) -> Result<bool, Stop> {
        Ok(self.other_uses(row, &HashSet::new(), kind::ADDRESS)? & kind::ADDRESS != 0)
    }

    /// What atoms that did not change ask of a symbol: looks until all that is `wanted` is found.
    fn other_uses(&self, row: SymbolRow, changed: &HashSet<AtomRow>, wanted: u8) -> Result<u8, Stop> {
        let mut found = 0;
        if row.0 >= self.store.symbols.len() {
            return Ok(found);
        }
        let view = View::new(self.store, self.plan);
        let mut next = self.store.symbols.get(row.0)?.first_incoming;
        let mut left = self.store.relocs.len();
        while let Some(at) = RelocRow::some(next).filter(|_| left > 0 && wanted & !found != 0) {
            let reloc = self.store.relocs.get(at.0)?;
            (next, left) = (reloc.next, left - 1);
            let live = view.atom_record(reloc.atom).flags & atom_flags::LIVE != 0;
            if let Some((_, kinds)) = use_of(&view, &reloc).filter(|_| live && !changed.contains(&reloc.atom))
            {
                found |= kinds;
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
}
