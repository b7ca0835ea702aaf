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
use crate::commit::bulk::property_of;

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

/// Opens rows for an object: its input, and the record that Diff starts from, which has only rows that are in the store.
pub(super) fn open(
    store: &Store,
    plan: &mut Plan,
    parsed: &ObjectFile,
    strip: Strip,
    name: &str,
    place: usize,
    file: FileRecord,
) -> Result<(InputRow, InputRecord), StoreError> {
    let needs = Needs::of(parsed, strip);
    let (file_row, row, known) = match find_vacant(store, plan, &needs)? {
        Some(found) => found,
        None => {
            let found = (FileRow(plan.ends.files), InputRow(plan.ends.inputs), InputRecord::default());
            plan.ends.files += 1;
            plan.ends.inputs += 1;
            found
        }
    };
    let start = store.strings.len() + plan.names.len() as u32;
    plan.names.extend_from_slice(name.as_bytes());
    let name = Span::new(start, name.len() as u32);
    let (feature_1_and, properties) = property_of(parsed);
    let known = InputRecord { name, file: file_row, member: 0, feature_1_and, properties, ..known };
    let mut record = known;
    if row.0 >= store.inputs.len() {
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
    plan.files.push((file_row.0, FileRecord { name, inputs: Span::new(row.0, 1), ..file }));
    if let Some(order) = &mut plan.order
        && let Some(at) = order.get_mut(place)
    {
        *at = file_row;
    }
    Ok((row, known))
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
    for &(row, _) in &plan.files {
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
