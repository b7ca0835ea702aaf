//! Ingest of a warm frame: which inputs changed, parsed.

use bevy_ecs::prelude::{Commands, Res, ResMut};
use formats::Bytes;
use formats::archive::Archive;
use formats::object_file::ObjectFile;
use formats::shared_object::SharedObject;
use hashbrown::HashSet;
use relink_engine::column::StoreError;
use relink_engine::components::{self, Fate};
use relink_engine::frame::{Frame, Request};
use relink_engine::input::Input;
use relink_engine::options::GateKind;
use relink_engine::plan::{Plan, RowEnds};
use relink_engine::program::Object;
use relink_engine::records::{FileRecord, InputRecord, file_flags};
use relink_engine::report::GateReason;
use relink_engine::rows::{FileRow, InputRow, NONE, Span};
use relink_engine::store::Store;
use relink_formats as formats;
use twox_hash::XxHash3_64;

use super::bulk::is_shared_object;
use super::pair::{Pairing, pair_inputs};
use super::read::member_bytes;
use super::recognize::{hash_doubtful_objects, is_proven};
use super::rows::{self, Home};
use crate::commit::bulk::{file_record, needed_hash};
use crate::diff::rows::add_name;

/// Compares the inputs with the store's and spawns an entity for each that differs.
pub(crate) fn load_changed_inputs(
    request: Res<'_, Request>,
    store: Option<Res<'_, Store>>,
    mut plan: ResMut<'_, Plan>,
    mut frame: ResMut<'_, Frame>,
    mut commands: Commands<'_, '_>,
) {
    let Some(store) = store.filter(|_| frame.warm()) else { return };
    *plan = Plan::default();
    let image = store.image_record();
    let Some(image) = frame.check(image) else { return };
    plan.image = image;
    plan.ends = RowEnds {
        files: store.files.len(),
        inputs: store.inputs.len(),
        atoms: store.atoms.len(),
        symbols: store.symbols.len(),
        globals: store.globals.len(),
        fdes: store.fdes.len(),
        groups: store.groups.len(),
    };
    let places = find_places(&request, &store, &mut frame);
    let Some(Some(places)) = frame.check(places) else { return };
    let hashes = hash_doubtful_objects(&request, &store, &places.compared);
    let Some(hashes) = frame.check(hashes) else { return };
    let mut changed = Vec::new();
    if !places.came.is_empty() || !places.gone.is_empty() {
        plan.order = Some(places.order);
        plan.image.places = request.inputs.len() as u32;
    }
    let known = places_of(&store, &plan);
    let Some(known) = frame.check(known) else { return };
    let mut loader =
        Loader { store: &store, places: &known, plan: &mut plan, frame: &mut frame, changed: &mut changed };
    // The last one first: a copy of a COMDAT group goes before its owner.
    for &file in places.gone.iter().rev() {
        let result = loader.drop_file(file);
        loader.frame.check(result);
    }
    for &row in request.beside.dropped.iter().rev() {
        let result = loader.drop_member(row);
        loader.frame.check(result);
    }
    for &(place, file) in &places.compared {
        let hash = hashes.get(&file).copied();
        let result = loader.compare_file(&request, file, &request.inputs[place], hash);
        loader.frame.check(result);
    }
    for &place in &places.came {
        loader.add_file(place, &request.inputs[place]);
    }
    for &(file, ordinal) in &request.beside.pulled {
        let result = loader.pull_member(&request, file, ordinal);
        loader.frame.check(result);
    }
    for &row in &request.beside.neighbours {
        let result = loader.load_neighbour(&request, row);
        loader.frame.check(result);
    }
    for one in changed {
        let result = spawn_input(&request, &store, &mut plan, &mut frame, &mut commands, one);
        if frame.check(result).is_none() {
            return;
        }
    }
}

/// An input that differs.
pub(super) struct Changed {
    /// Its row; none for one that comes.
    pub(super) row: InputRow,
    pub(super) fate: Fate,
    pub(super) name: String,
    /// None of one that goes.
    pub(super) bytes: Bytes,
    pub(super) hash: u64,
    /// Where it stands, if it comes.
    pub(super) home: Option<Home>,
}

/// The file at each place, as it will be; none for what comes.
fn places_of(store: &Store, plan: &Plan) -> Result<Vec<FileRow>, StoreError> {
    plan.order.clone().map_or_else(|| store.places(), Ok)
}

fn spawn_input(
    request: &Request,
    store: &Store,
    plan: &mut Plan,
    frame: &mut Frame,
    commands: &mut Commands<'_, '_>,
    one: Changed,
) -> Result<(), StoreError> {
    let Changed { row, fate, name, bytes, hash, home } = one;
    if !request.beside.neighbours.contains(&row) {
        frame.changed_inputs.push(name.clone());
    }
    let parsed = match &request.shared {
        _ if fate == Fate::Goes => Ok((ObjectFile::empty(), true)),
        Some(shared) => shared.parse(bytes),
        None => ObjectFile::parse(bytes).map(|parsed| (parsed, false)),
    };
    frame.counters.inputs_parsed += u64::from(!matches!(parsed, Ok((_, true))));
    let Ok((parsed, _)) = parsed else {
        // The full link that follows says what is wrong with it.
        frame.refuse(GateReason::InputSetChanged { input: name });
        return Ok(());
    };
    let (row, record) = match home {
        Some(home) => match rows::open(store, plan, &parsed, request.options.strip, &name, home)? {
            Some(opened) => opened,
            None => {
                frame.refuse(GateReason::LayoutExhausted { what: format!("rows of inputs, for {name}") });
                return Ok(());
            }
        },
        None => (row, store.inputs.get(row.0)?),
    };
    if fate == Fate::Goes {
        plan.input_records
            .insert(row.0, InputRecord { name: Span::default(), file: FileRow::default(), ..record });
    }
    plan.input_hashes.push((row.0, hash));
    let object = Object {
        targets: Vec::new(),
        uses: Vec::new(),
        name,
        file: record.file,
        member_offset: 0,
        source: NONE,
        atoms: record.atoms,
        locals: record.locals,
        merges: Vec::new(),
        fdes: Vec::new(),
        owns: vec![true; parsed.groups.len()],
        dynamic_relocs: 0,
        symbolic_relocs: 0,
        strtab: 0,
        symtab: 0,
        parsed,
    };
    let entity = commands.spawn(components::Input { row, fate, record, object, fde_rows: Vec::new() }).id();
    plan.inputs.push(entity);
    Ok(())
}

/// What the command line has become.
#[derive(Default)]
struct Places {
    /// Places that may have changed, and their files.
    compared: Vec<(usize, FileRow)>,
    /// Places of inputs that come.
    came: Vec<usize>,
    /// Files that go.
    gone: Vec<FileRow>,
    /// The file at each place, none for what comes; empty if nothing comes or goes.
    order: Vec<FileRow>,
}

/// Pairs inputs with files. `None` if they can't be paired, with the reason noted.
fn find_places(request: &Request, store: &Store, frame: &mut Frame) -> Result<Option<Places>, StoreError> {
    let as_many = request.inputs.len() as u32 == store.image_record()?.places;
    let gate = request.options.incremental.as_ref().map(|options| options.gate_kind);
    let wide = gate == Some(GateKind::Wide);
    if !as_many && !wide {
        let input = request.inputs.last().map(|input| input.name.clone()).unwrap_or_default();
        frame.refuse(GateReason::InputSetChanged { input });
        return Ok(None);
    }
    let mut found = Places::default();
    if as_many && !(wide && (request.reshaped || roles_changed(request, store)?)) {
        if let Some(input) = order_changed(request, store)? {
            frame.refuse(GateReason::InputOrderChanged { input });
            return Ok(None);
        }
        for &place in request.changed.iter().filter(|place| (**place as usize) < request.inputs.len()) {
            found.compared.push((place as usize, store.file_at(place)?));
        }
        return Ok(Some(found));
    }
    let (known, gone) = match pair_inputs(store, &store.places()?, &request.inputs)? {
        Pairing::Found { known, gone } => (known, gone),
        Pairing::Reordered(input) => {
            frame.refuse(GateReason::InputOrderChanged { input });
            return Ok(None);
        }
    };
    let changed: HashSet<usize> = request.changed.iter().map(|&place| place as usize).collect();
    for (place, file) in known.iter().enumerate() {
        match file {
            Some(file) if changed.contains(&place) => found.compared.push((place, *file)),
            Some(_) => {}
            None => found.came.push(place),
        }
    }
    found.gone = gone;
    found.order = known.into_iter().map(Option::unwrap_or_default).collect();
    Ok(Some(found))
}

/// Whether another input may stand where one stood.
fn roles_changed(request: &Request, store: &Store) -> Result<bool, StoreError> {
    for &place in &request.changed {
        let Some(input) = request.inputs.get(place as usize) else { continue };
        let known = store.strings.bytes(store.files.get(store.file_at(place)?.0)?.name)?;
        if known != input.name.as_bytes() && !same_role(&String::from_utf8_lossy(known), &input.name) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Whether the same names stand in another order; the first that has another place. Other names are no matter: the
/// contents decide.
fn order_changed(request: &Request, store: &Store) -> Result<Option<String>, StoreError> {
    let mut differs = None;
    for &place in &request.changed {
        let Some(input) = request.inputs.get(place as usize) else { continue };
        if store.strings.bytes(store.files.get(store.file_at(place)?.0)?.name)? != input.name.as_bytes() {
            differs = Some(input.name.clone());
            break;
        }
    }
    let Some(first) = differs else { return Ok(None) };
    let mut known = Vec::with_capacity(request.inputs.len());
    for file in store.places()? {
        known.push(store.strings.bytes(store.files.get(file.0)?.name)?);
    }
    let mut names: Vec<&[u8]> = request.inputs.iter().map(|input| input.name.as_bytes()).collect();
    // Names of another session of rustc are no other order.
    if known.len() != names.len() || !known.contains(&first.as_bytes()) {
        return Ok(None);
    }
    known.sort_unstable();
    names.sort_unstable();
    Ok((known == names).then_some(first))
}

/// Whether two names, of files or of members, are of one role in two runs of rustc. It puts some parts anew each time:
/// in `crate-HASH.UNIT.SESSION.rcgu.o` the session, in `rustcXXXXXX/symbols.o` the directory.
///
/// What stands where the other stood and plays the same role is only compared with it: what is in it decides.
pub(crate) fn same_role(a: &str, b: &str) -> bool {
    a == b || role(a) == role(b)
}

/// Whether a file is in a directory that rustc made for one run, or where its inputs are kept for the verifier.
fn in_passing_dir(name: &str) -> bool {
    let mut parents = name.rsplit('/').skip(1);
    let dir = parents.next().unwrap_or_default();
    let random = dir.strip_prefix("rustc").unwrap_or_default();
    random.len() == 6 && random.bytes().all(|byte| byte.is_ascii_alphanumeric())
        || dir == "inputs" && parents.nth(1) == Some(".relink")
}

pub(super) fn role(name: &str) -> (&str, &str) {
    let file = name.rsplit('/').next().unwrap_or(name);
    let (object, close) = match file.strip_suffix(')') {
        Some(member) => (member, ")"),
        None => (file, ""),
    };
    match object.strip_suffix(".rcgu.o").and_then(|stem| stem.rsplit_once('.')) {
        Some((unit, _)) => (unit, close),
        None if in_passing_dir(name) => (file, ""),
        None => (name, ""),
    }
}

pub(super) struct Loader<'a> {
    pub(super) store: &'a Store,
    /// The file at each place, none for what comes.
    pub(super) places: &'a [FileRow],
    pub(super) plan: &'a mut Plan,
    pub(super) frame: &'a mut Frame,
    pub(super) changed: &'a mut Vec<Changed>,
}

impl Loader<'_> {
    /// An input that has no file in the store. Libraries and archives change what names mean: a full link finds out.
    fn add_file(&mut self, place: usize, input: &Input) {
        let reason = GateReason::InputSetChanged { input: input.name.clone() };
        // What nobody has looked at yet can't be as it was.
        let bytes = if input.unchanged { None } else { input.source.bytes().ok() };
        let object = bytes.filter(|bytes| !Archive::is_archive(bytes) && !is_shared_object(bytes));
        let Some(bytes) = object else { return self.frame.refuse(reason) };
        self.frame.differ(reason);
        let hash = XxHash3_64::oneshot(&bytes);
        let home = Some(Home::Place(place, file_record(input)));
        let (row, name) = (InputRow::default(), input.name.clone());
        self.changed.push(Changed { row, fate: Fate::Comes, name, bytes, hash, home });
    }

    /// A file that has no input any more.
    fn drop_file(&mut self, file: FileRow) -> Result<(), StoreError> {
        let known = self.store.files.get(file.0)?;
        let name = self.store.text(known.name);
        let reason = GateReason::InputSetChanged { input: name.clone() };
        if known.flags & (file_flags::ARCHIVE | file_flags::SHARED) != 0 || known.inputs.len != 1 {
            self.frame.refuse(reason);
            return Ok(());
        }
        self.frame.differ(reason);
        let vacant = FileRecord { flags: file_flags::VACANT, inputs: known.inputs, ..Default::default() };
        self.plan.files.insert(file.0, vacant);
        let (row, bytes) = (InputRow(known.inputs.start), Bytes::new());
        self.changed.push(Changed { row, fate: Fate::Goes, name, bytes, hash: 0, home: None });
        Ok(())
    }

    /// Compares a file with its row; `hash` is that of its contents, if it is known.
    fn compare_file(
        &mut self,
        request: &Request,
        row: FileRow,
        input: &Input,
        hash: Option<u64>,
    ) -> Result<(), StoreError> {
        let known = self.store.files.get(row.0)?;
        let new = file_record(input);
        let differs = |flag: u32| known.flags & flag != new.flags & flag;
        if differs(file_flags::WHOLE) || differs(file_flags::AS_NEEDED) {
            self.frame.refuse(GateReason::InputSetChanged { input: input.name.clone() });
            return Ok(());
        }
        if known.needed_hash != 0 && known.needed_hash != needed_hash(input) {
            // The same file, perhaps, but the output names it as the command line does.
            self.frame.refuse(GateReason::InputSetChanged { input: input.name.clone() });
            return Ok(());
        }
        if input.unchanged && self.store.strings.bytes(known.name)? == input.name.as_bytes() {
            return Ok(());
        }
        if is_proven(&known, &new) {
            return Ok(());
        }
        if let Some(hash) = hash
            && self.store.inputs.get(known.inputs.start)?.bytes_hash == hash
        {
            // What is known of it stays true. An identity that proves nothing is none to be kept.
            if new.flags & file_flags::IDENTITY != 0 {
                self.plan.files.insert(row.0, FileRecord { name: known.name, inputs: known.inputs, ..new });
            }
            return Ok(());
        }
        let Ok(bytes) = input.source.bytes() else {
            self.frame.refuse(GateReason::InputSetChanged { input: input.name.clone() });
            return Ok(());
        };
        let archive = Archive::is_archive(&bytes);
        let shared = is_shared_object(&bytes);
        let was = |flag: u32| known.flags & flag != 0;
        if archive != was(file_flags::ARCHIVE) || shared && !was(file_flags::SHARED) {
            self.frame.refuse(GateReason::InputSetChanged { input: input.name.clone() });
            return Ok(());
        }
        let (name, inputs, more_inputs) = (known.name, known.inputs, known.more_inputs);
        let mut record = FileRecord { name, inputs, more_inputs, ..new };
        if archive {
            record.flags |= file_flags::ARCHIVE;
            (record.members, record.index_hash) = self.compare_archive(request, row, input, bytes)?;
        } else if was(file_flags::SHARED) {
            // Its code may be another; what counts is what it offers.
            record.flags |= file_flags::SHARED;
            record.index_hash = known.index_hash;
            record.needed_hash = known.needed_hash;
            let hash = SharedObject::parse(bytes).map(|library| library.interface_hash() as u64).ok();
            if hash != Some(known.index_hash) {
                self.frame.refuse(GateReason::SharedLibraryChanged { library: input.name.clone() });
                return Ok(());
            }
        } else if known.inputs.len == 0 {
            // A library that stood twice on the command line, and still does.
            self.frame.refuse(GateReason::InputSetChanged { input: input.name.clone() });
            return Ok(());
        } else {
            let object = InputRow(known.inputs.start);
            self.compare_object(object, input.name.clone(), bytes)?;
            if !same_role(&self.store.text(known.name), &input.name) {
                // The next command line is compared with what it is called now.
                record.name = add_name(self.store, self.plan, input.name.as_bytes());
                let renamed = InputRecord { name: record.name, ..self.store.inputs.get(object.0)? };
                self.plan.input_records.insert(object.0, renamed);
            }
        }
        if record != known {
            self.plan.files.insert(row.0, record);
        }
        Ok(())
    }

    pub(super) fn compare_object(
        &mut self,
        row: InputRow,
        name: String,
        bytes: Bytes,
    ) -> Result<(), StoreError> {
        let known = self.store.inputs.get(row.0)?;
        let hash = XxHash3_64::oneshot(&bytes);
        if known.bytes_hash != hash {
            self.changed.push(Changed { row, fate: Fate::Stays, name, bytes, hash, home: None });
        }
        Ok(())
    }

    /// Reads an input that did not change.
    fn load_neighbour(&mut self, request: &Request, row: InputRow) -> Result<(), StoreError> {
        if self.changed.iter().any(|one| one.row == row) {
            return Ok(());
        }
        let known = self.store.inputs.get(row.0)?;
        let name = self.store.text(known.name);
        let file = self.store.files.get(known.file.0)?;
        let place = self.places.iter().position(|file| *file == known.file).unwrap_or(usize::MAX);
        let content = request.inputs.get(place).and_then(|input| {
            let bytes = input.source.bytes().ok()?;
            if file.flags & file_flags::ARCHIVE == 0 {
                return Some(bytes);
            }
            let archive = Archive::parse(bytes).ok()?;
            let members = archive.members().ok()?;
            member_bytes(input, &archive, members.get(known.member as usize)?).ok()
        });
        match content.filter(|bytes| known.bytes_hash == XxHash3_64::oneshot(bytes)) {
            Some(bytes) => {
                let hash = known.bytes_hash;
                self.changed.push(Changed { row, fate: Fate::Stays, name, bytes, hash, home: None });
            }
            None => self.frame.refuse(GateReason::InputSetChanged { input: name }),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::same_role;

    #[test]
    fn inputs_keep_their_role_across_sessions_of_rustc() {
        let member = "libutil-04.rlib(util-04.03akcq1gcrbuqhq10rnj2z6z7.14zydhd.rcgu.o)";
        assert!(same_role(member, &member.replace("14zydhd", "0abcdef")));
        assert!(!same_role(member, &member.replace("03ak", "03al")));
        assert!(same_role(
            "/t/deps/app-04.03ak.14zydhd.rcgu.o",
            "/t/.relink/app-04/app-04.03ak.0abcdef.rcgu.o"
        ));
        assert!(same_role("/t/rustcAbCdEf/symbols.o", "/t/rustcGhIjKl/symbols.o"));
        assert!(same_role("/t/rustcAbCdEf/rmeta.o", "/t/.relink/app-04/inputs/rmeta.o"));
        assert!(!same_role("lib.a(a.o)", "lib.a(b.o)"));
        assert!(!same_role("a/x.o", "b/x.o"));
    }
}
