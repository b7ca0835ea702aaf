//! Rows of an input that comes: those that another one has left, or new ones at the columns' ends.

use formats::eh_frame::{Record, records};
use formats::object_file::ObjectFile;
use relink_engine::column::StoreError;
use relink_engine::options::Strip;
use relink_engine::plan::Plan;
use relink_engine::records::{FileRecord, InputRecord};
use relink_engine::rows::{FileRow, InputRow, Span};
use relink_engine::store::Store;
use relink_formats as formats;

use super::bulk::local_symbols;
use super::classify::{Class, classify};
use super::offers::file_of;
use crate::commit::bulk::property_of;
use crate::diff::rows::add_name;

/// How many rows of each kind an object needs.
#[derive(Clone, Copy, Debug, Default)]
struct Needs {
    atoms: u32,
    locals: u32,
    globals: u32,
    fdes: u32,
    groups: u32,
}

impl Needs {
    fn of(parsed: &ObjectFile, strip: Strip) -> Needs {
        let mut needs = Needs {
            locals: local_symbols(parsed).count() as u32,
            globals: (parsed.symbols().len() as u32).saturating_sub(parsed.first_global),
            groups: parsed.groups.len() as u32,
            ..Needs::default()
        };
        for (index, section) in parsed.sections.iter().enumerate() {
            let class = classify(parsed, index, section, strip);
            needs.atoms += u32::from(class != Class::Ignore);
            if matches!(class, Class::EhFrame(_)) {
                let records = records(parsed.section_bytes(index)).unwrap_or_default();
                let fdes = records.iter().filter(|record| matches!(record, Record::Fde { .. }));
                needs.fdes += fdes.count() as u32;
            }
        }
        needs
    }

    fn fit(&self, record: &InputRecord) -> bool {
        let room = |first: Span, more: Span| first.len.saturating_add(more.len);
        self.atoms <= room(record.atoms, record.more_atoms)
            && self.locals <= room(record.locals, record.more_locals)
            && self.globals <= room(record.globals, record.more_globals)
            && self.fdes <= room(record.fdes, record.more_fdes)
            && self.groups <= room(record.groups, record.more_groups)
    }
}

/// Where an input that comes stands.
pub(super) enum Home {
    /// At a place of the command line, as a file of its own.
    Place(usize, FileRecord),
    /// In an archive, with this ordinal.
    Member(FileRow, u32),
}

/// Opens rows for an object: its input, and the record that Diff starts from, which has only rows that are in the store.
/// `None` if there is no room.
pub(super) fn open(
    store: &Store,
    plan: &mut Plan,
    parsed: &ObjectFile,
    strip: Strip,
    name: &str,
    home: Home,
) -> Result<Option<(InputRow, InputRecord)>, StoreError> {
    let needs = Needs::of(parsed, strip);
    let (file, row, known) = match &home {
        Home::Place(..) => match find_vacant(store, plan, &needs)? {
            Some(found) => found,
            None => {
                let found = (FileRow(plan.ends.files), InputRow(plan.ends.inputs), InputRecord::default());
                plan.ends.files += 1;
                plan.ends.inputs += 1;
                found
            }
        },
        Home::Member(file, _) => match find_vacant_member(store, plan, *file, &needs)? {
            Some((row, known)) => (*file, row, known),
            None => return Ok(None),
        },
    };
    let name = add_name(store, plan, name.as_bytes());
    let (feature_1_and, properties) = property_of(parsed);
    let member = if let Home::Member(_, ordinal) = home { ordinal } else { 0 };
    let known = InputRecord { name, file, member, feature_1_and, properties, ..known };
    let mut record = known;
    if !needs.fit(&record) {
        let ends = &mut plan.ends;
        for (span, end, len) in [
            (&mut record.atoms, &mut ends.atoms, needs.atoms),
            (&mut record.locals, &mut ends.symbols, needs.locals),
            (&mut record.globals, &mut ends.globals, needs.globals),
            (&mut record.fdes, &mut ends.fdes, needs.fdes),
            (&mut record.groups, &mut ends.groups, needs.groups),
        ] {
            *span = Span::new(*end, len);
            *end += len;
        }
    }
    plan.input_records.insert(row.0, record);
    if let Home::Place(place, record) = home {
        plan.files.insert(file.0, FileRecord { name, inputs: Span::new(row.0, 1), ..record });
        if let Some(at) = plan.order.as_mut().and_then(|order| order.get_mut(place)) {
            *at = file;
        }
    }
    Ok(Some((row, known)))
}

/// Rows of members that frames brought: more at once than are likely to come.
const MORE_MEMBERS: u32 = 16;

/// A row of an archive that no member has: best one with rows that suffice, else one that never had any.
fn find_vacant_member(
    store: &Store,
    plan: &mut Plan,
    file: FileRow,
    needs: &Needs,
) -> Result<Option<(InputRow, InputRecord)>, StoreError> {
    let mut known = file_of(store, plan, file)?;
    let mut found: Option<(InputRow, InputRecord)> = None;
    for row in known.inputs.and(known.more_inputs).filter(|row| !plan.input_records.contains_key(row)) {
        let record = if row < store.inputs.len() { store.inputs.get(row)? } else { InputRecord::default() };
        if record.file.some().is_some() {
            continue;
        }
        if needs.fit(&record) {
            return Ok(Some((InputRow(row), record)));
        }
        // Rows that don't suffice are given up.
        let unused = found.is_some_and(|(_, other)| other == InputRecord::default());
        if !unused {
            found = Some((InputRow(row), record));
        }
    }
    if found.is_none() && known.more_inputs.len == 0 {
        known.more_inputs = Span::new(plan.ends.inputs, MORE_MEMBERS.max(known.inputs.len / 4));
        plan.ends.inputs += known.more_inputs.len;
        plan.files.insert(file.0, known);
        found = Some((InputRow(known.more_inputs.start), InputRecord::default()));
    }
    Ok(found.map(|(row, _)| (row, InputRecord::default())))
}

/// Rows that an earlier frame left: of a file that has no place.
fn find_vacant(
    store: &Store,
    plan: &Plan,
    needs: &Needs,
) -> Result<Option<(FileRow, InputRow, InputRecord)>, StoreError> {
    if store.order.is_empty() {
        return Ok(None);
    }
    let mut taken = vec![false; store.files.len() as usize];
    for file in store.places()? {
        taken[file.index()] = true;
    }
    for &row in plan.files.keys() {
        // Also what goes with this frame: references to it are still linked.
        if let Some(taken) = taken.get_mut(row as usize) {
            *taken = true;
        }
    }
    for (row, _) in taken.iter().enumerate().filter(|(_, taken)| !**taken) {
        let file = store.files.get(row as u32)?;
        let input = InputRow(file.inputs.start);
        let record = store.inputs.get(input.0)?;
        if file.inputs.len == 1 && record.file.some().is_none() && needs.fit(&record) {
            return Ok(Some((FileRow(row as u32), input, record)));
        }
    }
    Ok(None)
}
