//! The present placement as a warm frame sees it: the plan on top of the store.

use std::cell::{Cell, RefCell};

use formats::elf;
use relink_engine::column::StoreError;
use relink_engine::plan::Plan;
use relink_engine::records::{AtomRecord, InputRecord, SectionRecord, SymbolRecord, image_flags, place};
use relink_engine::rows::{AtomRow, PoolRow, SectionRow, Span, SymbolRow};
use relink_engine::store::Store;
use relink_formats as formats;

use crate::diff::rows::is_vacant_atom;
use crate::kernel::{Bases, Places, SymbolView};

/// Store and plan, read as one. Damage is remembered and makes the frame fall back.
pub(crate) struct View<'a> {
    pub store: &'a Store,
    pub plan: &'a Plan,
    damage: RefCell<Option<StoreError>>,
}

impl<'a> View<'a> {
    pub(crate) fn new(store: &'a Store, plan: &'a Plan) -> View<'a> {
        View { store, plan, damage: RefCell::new(None) }
    }

    /// The first damage that was met.
    pub(crate) fn damage(&self) -> Result<(), StoreError> {
        self.damage.borrow_mut().take().map_or(Ok(()), Err)
    }

    fn keep<T: Default>(&self, result: Result<T, StoreError>) -> T {
        result.unwrap_or_else(|error| {
            self.damage.borrow_mut().get_or_insert(error);
            T::default()
        })
    }

    pub(crate) fn atom_record(&self, row: AtomRow) -> AtomRecord {
        match self.plan.atoms.get(&row.0) {
            Some(record) => *record,
            None => self.keep(self.store.atoms.get(row.0)),
        }
    }

    pub(crate) fn symbol_record(&self, row: SymbolRow) -> SymbolRecord {
        match self.plan.symbols.get(&row.0) {
            Some(record) => *record,
            None => self.keep(self.store.symbols.get(row.0)),
        }
    }

    pub(crate) fn section_record(&self, row: SectionRow) -> SectionRecord {
        match self.plan.sections.get(&row.0) {
            Some(record) => *record,
            None => self.keep(self.store.sections.get(row.0)),
        }
    }

    /// The file offset of an atom with that record.
    pub(crate) fn file_offset(&self, atom: &AtomRecord) -> u64 {
        self.keep(self.section_record(atom.output).file_offset(atom.address))
    }

    /// The address of a symbol with that record: its PLT entry if it has one.
    pub(crate) fn address_of(&self, symbol: &SymbolRecord) -> u64 {
        self.address_beside(symbol, |atom| self.atom_record(atom).address)
    }

    /// The same, of whoever knows where atoms are.
    fn address_beside(&self, symbol: &SymbolRecord, atom_address: impl Fn(AtomRow) -> u64) -> u64 {
        if symbol.plt != 0 {
            self.plan.image.plt_address.wrapping_add(16 * u64::from(symbol.plt - 1))
        } else if place::is_atom(symbol.atom) {
            atom_address(symbol.atom).wrapping_add(symbol.value)
        } else if symbol.atom == place::ABSOLUTE {
            symbol.value
        } else {
            0
        }
    }
}

/// Entries of a memo: rows that differ by less have entries of their own.
const MEMO_ENTRIES: usize = 64;

/// A view that remembers what it was asked last. Relocations of debug information ask for the same few sections again
/// and again: the 82,124 of a unit of 6.8 MB refer to 218 symbols.
pub(crate) struct Memo<'v, 'a> {
    view: &'v View<'a>,
    bases: Bases,
    symbols: [Entry<SymbolRow, SymbolView>; MEMO_ENTRIES],
    /// Address and flags.
    atoms: [Entry<AtomRow, (u64, u32)>; MEMO_ENTRIES],
    pool: Entry<u32, Option<AtomRow>>,
}

/// What was asked, and the answer.
type Entry<K, T> = Cell<Option<(K, T)>>;

impl<'v, 'a> Memo<'v, 'a> {
    pub(crate) fn new(view: &'v View<'a>) -> Memo<'v, 'a> {
        let (symbols, atoms) = ([const { Cell::new(None) }; _], [const { Cell::new(None) }; _]);
        Memo { view, bases: view.bases(), symbols, atoms, pool: Cell::new(None) }
    }
}

fn remembered<K: Copy + PartialEq, T: Copy>(cell: &Entry<K, T>, key: K, ask: impl Fn() -> T) -> T {
    match cell.get() {
        Some((known, value)) if known == key => value,
        _ => {
            let value = ask();
            cell.set(Some((key, value)));
            value
        }
    }
}

impl Places for Memo<'_, '_> {
    fn symbol(&self, row: SymbolRow) -> SymbolView {
        remembered(&self.symbols[row.index() % MEMO_ENTRIES], row, || {
            let record = self.view.symbol_record(row);
            SymbolView::of(&record, self.view.address_beside(&record, |atom| self.atom(atom).0))
        })
    }
    fn atom(&self, row: AtomRow) -> (u64, u32) {
        remembered(&self.atoms[row.index() % MEMO_ENTRIES], row, || self.view.atom(row))
    }
    fn pool(&self, pool: u32) -> Option<AtomRow> {
        remembered(&self.pool, pool, || self.view.pool(pool))
    }
    fn bases(&self) -> Bases {
        self.bases
    }
}

/// A name of the store, or one that the frame brings.
pub(crate) fn name_of<'a>(store: &'a Store, plan: &'a Plan, span: Span) -> Result<&'a [u8], StoreError> {
    match span.start.checked_sub(store.strings.len()) {
        Some(start) if !plan.names.is_empty() && span.len > 0 => {
            let name = plan.names.get(Span::new(start, span.len).indexes());
            name.ok_or_else(|| StoreError::Malformed("a name of the plan is beyond its end".to_owned()))
        }
        _ => store.strings.bytes(span),
    }
}

/// The same as text, for messages.
pub(crate) fn text_of(store: &Store, plan: &Plan, span: Span) -> String {
    name_of(store, plan, span).map(|name| String::from_utf8_lossy(name).into_owned()).unwrap_or_default()
}

/// An input's atoms in the order of its sections: the order that ordinals of equal names count in.
pub(crate) fn atoms_of(store: &Store, input: &InputRecord) -> Result<Vec<(AtomRow, AtomRecord)>, StoreError> {
    let mut atoms = Vec::new();
    for row in input.atoms.and(input.more_atoms) {
        let record = store.atoms.get(row)?;
        if !is_vacant_atom(&record) {
            atoms.push((AtomRow(row), record));
        }
    }
    if !atoms.is_sorted_by_key(|(_, record)| record.section) {
        atoms.sort_by_key(|(_, record)| record.section);
    }
    Ok(atoms)
}

/// An input's local symbols that are there.
pub(crate) fn locals_of(
    store: &Store,
    input: &InputRecord,
) -> Result<Vec<(SymbolRow, SymbolRecord)>, StoreError> {
    let mut locals = Vec::new();
    for row in input.locals.and(input.more_locals) {
        let record = store.symbols.get(row)?;
        if record.atom != place::VACANT {
            locals.push((SymbolRow(row), record));
        }
    }
    Ok(locals)
}

/// Where the byte at an address is in the file.
pub(crate) fn offset_of_address(store: &Store, address: u64) -> Result<u64, StoreError> {
    for row in 0..store.sections.len() {
        let section = store.sections.get(row)?;
        // Thread-local zeros share their addresses with what follows.
        let held = section.address != 0 && section.kind != elf::SHT_NOBITS;
        if held && address >= section.address && address < section.address + section.size {
            return Ok(section.offset + (address - section.address));
        }
    }
    Err(StoreError::Malformed(format!("no section holds the address {address:#x}")))
}

impl Places for View<'_> {
    fn symbol(&self, row: SymbolRow) -> SymbolView {
        let record = self.symbol_record(row);
        SymbolView::of(&record, self.address_of(&record))
    }

    fn atom(&self, row: AtomRow) -> (u64, u32) {
        let record = self.atom_record(row);
        (record.address, record.flags)
    }

    fn pool(&self, pool: u32) -> Option<AtomRow> {
        Some(self.keep(self.store.pools.get(PoolRow(pool).0)).atom)
    }

    fn bases(&self) -> Bases {
        let image = &self.plan.image;
        Bases {
            position_independent: image.flags & image_flags::POSITION_INDEPENDENT != 0,
            shared: image.flags & image_flags::SHARED != 0,
            dynamic: image.flags & image_flags::DYNAMIC != 0,
            undefined_allowed: image.flags & image_flags::UNDEFINED_ALLOWED != 0,
            text_relocations: image.flags & image_flags::TEXT_RELOCATIONS != 0,
            tp: image.tp,
            tls_start: image.tls_start,
            got_base: image.got_base,
            got_address: image.got_address,
            tls_pairs: image.tls_pairs,
            tls_descriptors: image.tls_descriptors,
            tls_module: image.tls_module,
        }
    }
}
