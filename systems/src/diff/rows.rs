//! Rows that changed objects take and leave. What an object had in the cold link is one span of each column; what it
//! gains later stands in a second span, at the column's end; it grows as long as it is the last one there. Rows that it loses
//! are vacant until it gains others.

use relink_engine::column::StoreError;
use relink_engine::plan::Plan;
use relink_engine::records::{
    AtomRecord, FdeRecord, GlobalRecord, GroupRecord, InputRecord, SymbolRecord, atom_flags, place,
    symbol_flags,
};
use relink_engine::rows::{AtomRow, FdeRow, FileRow, InputRow, NONE, Span, SymbolRow};
use relink_engine::store::Store;

use super::Context;

/// Rows that a second span gets at once: a unit that gained one gains more.
const MORE_ROWS: u32 = 32;

/// A column that objects have spans of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Kind {
    Atoms,
    Locals,
    Globals,
    Fdes,
    Groups,
}

impl Context<'_> {
    /// The record of a changed input, as it will be.
    pub(super) fn input_record(&self, row: InputRow) -> Result<InputRecord, StoreError> {
        match self.plan.input_records.get(&row.0) {
            Some(record) => Ok(*record),
            None => self.store.inputs.get(row.0),
        }
    }

    /// Whether an input stands in front of another one in the order of the link.
    pub(super) fn is_before(&self, first: InputRow, second: InputRow) -> Result<bool, StoreError> {
        let place = |row: InputRow| -> Result<(u32, u32), StoreError> {
            let record = self.input_record(row)?;
            Ok((self.place_of(record.file), record.member))
        };
        Ok(place(first)? < place(second)?)
    }

    /// The place of a file on the command line.
    pub(super) fn place_of(&self, file: FileRow) -> u32 {
        if self.places.is_empty() { file.0 } else { self.places.get(file.index()).copied().unwrap_or(NONE) }
    }

    /// Inputs that are in the link before and after the frame.
    pub(super) fn staying_inputs(&self) -> Result<Vec<(InputRow, InputRecord)>, StoreError> {
        let mut staying = Vec::new();
        for row in (0..self.store.inputs.len()).map(InputRow) {
            let record = self.store.inputs.get(row.0)?;
            if record.file.some().is_some() && !self.going.contains(&row) {
                staying.push((row, record));
            }
        }
        Ok(staying)
    }

    /// An atom, as it will be.
    pub(super) fn atom(&self, row: AtomRow) -> Result<AtomRecord, StoreError> {
        match self.plan.atoms.get(&row.0) {
            Some(record) => Ok(*record),
            None => self.store.atoms.get(row.0),
        }
    }

    /// A symbol, as it will be.
    pub(super) fn symbol(&self, row: SymbolRow) -> Result<SymbolRecord, StoreError> {
        match self.plan.symbols.get(&row.0) {
            Some(record) => Ok(*record),
            None => self.store.symbols.get(row.0),
        }
    }

    /// A name that the frame brings.
    pub(super) fn add_name(&mut self, name: &[u8]) -> Span {
        add_name(self.store, self.plan, name)
    }

    /// The row of a new atom of an input; `None` if the input has no room for it.
    pub(super) fn take_atom(&mut self, input: InputRow) -> Result<Option<AtomRow>, StoreError> {
        Ok(self.take(input, Kind::Atoms)?.map(AtomRow))
    }

    /// The row of a new local symbol.
    pub(super) fn take_local(&mut self, input: InputRow) -> Result<Option<SymbolRow>, StoreError> {
        Ok(self.take(input, Kind::Locals)?.map(SymbolRow))
    }

    /// The row of a new mention of a global name.
    pub(super) fn take_global(&mut self, input: InputRow) -> Result<Option<u32>, StoreError> {
        self.take(input, Kind::Globals)
    }

    /// The row of a new frame description.
    pub(super) fn take_fde(&mut self, input: InputRow) -> Result<Option<FdeRow>, StoreError> {
        Ok(self.take(input, Kind::Fdes)?.map(FdeRow))
    }

    /// The row of a new COMDAT group.
    pub(super) fn take_group(&mut self, input: InputRow) -> Result<Option<u32>, StoreError> {
        self.take(input, Kind::Groups)
    }

    fn take(&mut self, input: InputRow, kind: Kind) -> Result<Option<u32>, StoreError> {
        let mut record = self.input_record(input)?;
        let (known, end) = (self.spans(&record, kind), self.end(kind));
        if known.0.range().end.max(known.1.range().end) > end {
            return Err(StoreError::Malformed(format!("rows of input {} are beyond the last one", input.0)));
        }
        let cursor = self.cursors.get(&(input.0, kind)).copied().unwrap_or(0);
        let rows = known.0.range().chain(known.1.range());
        for (at, row) in rows.enumerate().skip(cursor) {
            if self.is_vacant(kind, row)? {
                self.cursors.insert((input.0, kind), at + 1);
                return Ok(Some(row));
            }
        }
        let (first, grown) = match known.1 {
            Span { len: 0, .. } => (end, 0),
            second if second.start + second.len == end => (second.start, second.len),
            _ => return Ok(None),
        };
        let more = MORE_ROWS.max(known.0.len / 4);
        let ends = &mut self.plan.ends;
        let (span, end) = match kind {
            Kind::Atoms => (&mut record.more_atoms, &mut ends.atoms),
            Kind::Locals => (&mut record.more_locals, &mut ends.symbols),
            Kind::Globals => (&mut record.more_globals, &mut ends.globals),
            Kind::Fdes => (&mut record.more_fdes, &mut ends.fdes),
            Kind::Groups => (&mut record.more_groups, &mut ends.groups),
        };
        let row = *end;
        *span = Span::new(first, grown + more);
        *end += more;
        self.plan.input_records.insert(input.0, record);
        self.cursors.insert((input.0, kind), (known.0.len + grown) as usize + 1);
        Ok(Some(row))
    }

    fn spans(&self, record: &InputRecord, kind: Kind) -> (Span, Span) {
        match kind {
            Kind::Atoms => (record.atoms, record.more_atoms),
            Kind::Locals => (record.locals, record.more_locals),
            Kind::Globals => (record.globals, record.more_globals),
            Kind::Fdes => (record.fdes, record.more_fdes),
            Kind::Groups => (record.groups, record.more_groups),
        }
    }

    fn end(&self, kind: Kind) -> u32 {
        let ends = &self.plan.ends;
        match kind {
            Kind::Atoms => ends.atoms,
            Kind::Locals => ends.symbols,
            Kind::Globals => ends.globals,
            Kind::Fdes => ends.fdes,
            Kind::Groups => ends.groups,
        }
    }

    /// Whether a row was vacant before the frame, and still is. A row that the frame itself vacates waits for the next
    /// one: references that go away with it are still linked.
    fn is_vacant(&self, kind: Kind, row: u32) -> Result<bool, StoreError> {
        let (store, plan) = (self.store, &*self.plan);
        Ok(match kind {
            Kind::Atoms if row < store.atoms.len() => {
                !plan.atoms.contains_key(&row) && is_vacant_atom(&store.atoms.get(row)?)
            }
            Kind::Atoms => !plan.atoms.contains_key(&row),
            Kind::Locals if row < store.symbols.len() => {
                !plan.symbols.contains_key(&row) && store.symbols.get(row)?.atom == place::VACANT
            }
            Kind::Locals => !plan.symbols.contains_key(&row),
            Kind::Globals if row < store.globals.len() => {
                !plan.globals.contains_key(&row) && is_vacant_global(&store.globals.get(row)?)
            }
            Kind::Globals => !plan.globals.contains_key(&row),
            Kind::Fdes if row < store.fdes.len() => {
                !self.taken_fdes.contains(&row) && is_vacant_fde(&store.fdes.get(row)?)
            }
            Kind::Fdes => !self.taken_fdes.contains(&row),
            Kind::Groups if row < store.groups.len() => {
                !plan.groups.contains_key(&row) && is_vacant_group(&store.groups.get(row)?)
            }
            Kind::Groups => !plan.groups.contains_key(&row),
        })
    }
}

/// Whether an atom's row is unused.
pub(crate) fn is_vacant_atom(atom: &AtomRecord) -> bool {
    atom.flags & atom_flags::VACANT != 0
}

/// Whether a mention's row is unused.
pub(crate) fn is_vacant_global(global: &GlobalRecord) -> bool {
    global.symbol.some().is_none()
}

/// Whether a frame description's row is unused.
pub(crate) fn is_vacant_fde(fde: &FdeRecord) -> bool {
    fde.capacity == 0
}

/// Whether a group's row is unused.
pub(crate) fn is_vacant_group(group: &GroupRecord) -> bool {
    group.owner == VACANT_GROUP
}

const VACANT_GROUP: u32 = u32::MAX;

pub(crate) fn add_name(store: &Store, plan: &mut Plan, name: &[u8]) -> Span {
    let start = store.strings.len() + plan.names.len() as u32;
    plan.names.extend_from_slice(name);
    Span::new(start, name.len() as u32)
}

/// A row for a global name that the image does not know; `None` if the index of names is full.
pub(crate) fn add_global(store: &Store, plan: &mut Plan, name: &[u8]) -> Option<(SymbolRow, SymbolRecord)> {
    let entries = &mut plan.image.name_entries;
    *entries += 1;
    if u64::from(*entries) * 4 > u64::from(store.name_slots.len()) * 3 {
        return None;
    }
    let row = SymbolRow(plan.ends.symbols);
    plan.ends.symbols += 1;
    plan.new_names.insert(name.to_vec(), row);
    let name = add_name(store, plan, name);
    Some((row, SymbolRecord { name, flags: symbol_flags::GLOBAL, ..vacant_symbol() }))
}

/// The record of an unused row.
pub(crate) fn vacant_atom() -> AtomRecord {
    AtomRecord { flags: atom_flags::VACANT, ..Default::default() }
}

/// The record of an unused row.
pub(crate) fn vacant_symbol() -> SymbolRecord {
    SymbolRecord { atom: place::VACANT, ..Default::default() }
}

/// The record of an unused row.
pub(crate) fn vacant_group() -> GroupRecord {
    GroupRecord { owner: VACANT_GROUP, ..Default::default() }
}
