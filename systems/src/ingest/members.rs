//! Members of archives: which loaded one each member of a changed archive is, by name, then by what it defines; what the
//! archive offers from now on; members that a frame pulls and drops.

use formats::Bytes;
use formats::archive::{Archive, Member};
use hashbrown::{HashMap, HashSet};
use relink_engine::column::StoreError;
use relink_engine::components::Fate;
use relink_engine::frame::Request;
use relink_engine::input::Input;
use relink_engine::plan::OpenedArchive;
use relink_engine::records::{FileRecord, InputRecord, SymbolRecord, file_flags, place, symbol_flags};
use relink_engine::report::GateReason;
use relink_engine::rows::{FileRow, InputRow};
use relink_engine::store::hash_name;
use relink_formats as formats;
use twox_hash::XxHash3_64;

use super::changed::{Changed, Loader, role, same_role};
use super::offers::{file_of, is_searched, open_archive, read_offers};
use super::read::member_bytes;
use super::rows::Home;
use crate::commit::bulk::archive_shape;
use crate::diff::rows::{add_global, add_name, is_vacant_global, vacant_symbol};

/// A loaded member: its row, as it was.
type Loaded = (InputRow, InputRecord);

impl Loader<'_> {
    /// Compares an archive's members with those that are loaded, and what it offers with what is known. Returns how many
    /// members it has, and a hash of its index.
    pub(super) fn compare_archive(
        &mut self,
        request: &Request,
        file: FileRow,
        input: &Input,
        bytes: Bytes,
    ) -> Result<(u32, u64), StoreError> {
        let known = self.store.files.get(file.0)?;
        let reason = GateReason::ArchiveChanged { archive: input.name.clone() };
        let parsed = Archive::parse(bytes).and_then(|archive| Ok((archive.members()?, archive)));
        let Ok((members, archive)) = parsed else {
            self.frame.refuse(reason);
            return Ok((0, 0));
        };
        let shape = archive_shape(&archive);
        let differs = shape != (known.members, known.index_hash);
        let mut loaded = self.loaded_members(&known)?;
        loaded.retain(|(row, _)| !request.beside.dropped.contains(row));
        // Without an index, what members define that are not loaded is not known.
        let lists = is_searched(&known);
        let unlisted = shape.1 == XxHash3_64::oneshot(&[]) && !members.is_empty();
        let offers = match lists && differs {
            true => read_offers(archive.clone(), members.clone()),
            false => None,
        };
        if lists && (unlisted || differs && offers.is_none()) {
            self.frame.refuse(reason);
            return Ok(shape);
        }
        let pairs = self.pair_members(&loaded, &members, offers.as_ref(), lists)?;
        let in_order = pairs.iter().flatten().is_sorted();
        let mut same = !differs && in_order;
        let mut taken = HashSet::new();
        for (&(row, record), pair) in loaded.iter().zip(&pairs) {
            let Some(member) = pair.and_then(|ordinal| members.get(ordinal as usize)) else {
                same = false;
                self.drop_member(row)?;
                continue;
            };
            let ordinal = pair.unwrap_or_default();
            taken.insert(ordinal);
            let name = member_name(input, member);
            let renamed = !same_role(&name, &self.store.text(record.name));
            if renamed || ordinal != record.member {
                same = false;
                let name =
                    if renamed { add_name(self.store, self.plan, name.as_bytes()) } else { record.name };
                self.plan.input_records.insert(row.0, InputRecord { name, member: ordinal, ..record });
            }
            let Ok(content) = member_bytes(input, &archive, member) else {
                self.frame.refuse(reason);
                return Ok(shape);
            };
            self.compare_object(row, name, content)?;
        }
        if known.flags & file_flags::WHOLE != 0 {
            for ordinal in (0..members.len() as u32).filter(|ordinal| !taken.contains(ordinal)) {
                self.add_member(input, file, &archive, &members, ordinal);
            }
        }
        if let Some(offers) = offers {
            taken.extend(
                request.beside.pulled.iter().filter(|(of, _)| *of == file).map(|(_, member)| *member),
            );
            let explained = self.note_offers(file, &offers, &loaded, &pairs, &taken)?;
            self.plan.archives.insert(file.0, offers);
            if !explained {
                self.frame.refuse(reason.clone());
            }
        }
        match (in_order, same) {
            (false, _) => self.frame.refuse(reason),
            (true, false) => self.frame.differ(reason),
            (true, true) => {}
        }
        Ok(shape)
    }

    fn loaded_members(&self, file: &FileRecord) -> Result<Vec<Loaded>, StoreError> {
        let mut loaded = Vec::new();
        for row in file.inputs.and(file.more_inputs) {
            let record = self.store.inputs.get(row)?;
            if record.file.some().is_some() {
                loaded.push((InputRow(row), record));
            }
        }
        loaded.sort_unstable_by_key(|(_, record)| record.member);
        Ok(loaded)
    }

    /// The ordinal of each loaded member: of the only one of its role; then of one that offers a name that it defines.
    fn pair_members(
        &self,
        loaded: &[Loaded],
        members: &[Member],
        offers: Option<&OpenedArchive>,
        searched: bool,
    ) -> Result<Vec<Option<u32>>, StoreError> {
        // Loaded ones and members of a role: one of each, and whether there are more.
        let mut roles: HashMap<String, (Option<usize>, Option<u32>, bool)> = HashMap::new();
        let mut names = Vec::with_capacity(loaded.len());
        for (_, record) in loaded {
            names.push(self.store.text(record.name));
        }
        for (at, name) in names.iter().enumerate() {
            let (first, _, several) = roles.entry(member_role(name)).or_default();
            *several |= first.replace(at).is_some();
        }
        for (ordinal, member) in (0..).zip(members) {
            if let Some((_, first, several)) = roles.get_mut(&member_role(&format!("({})", member.name))) {
                *several |= first.replace(ordinal).is_some();
            }
        }
        let mut pairs = vec![None; loaded.len()];
        let mut taken = HashSet::new();
        for (old, new, several) in roles.into_values() {
            if let (Some(old), Some(new), false) = (old, new, several) {
                pairs[old] = Some(new);
                taken.insert(new);
            }
        }
        for ((_, record), pair) in loaded.iter().zip(&mut pairs).filter(|(_, pair)| pair.is_none()) {
            // With the same index, or with all members loaded and as many as before, each is where it was.
            let found = match offers {
                Some(offers) => self.find_by_names(record, offers, &taken)?,
                None if searched || loaded.len() == members.len() => {
                    Some(record.member).filter(|ordinal| !taken.contains(ordinal))
                }
                None => None,
            };
            if let Some(ordinal) = found {
                *pair = Some(ordinal);
                taken.insert(ordinal);
            }
        }
        Ok(pairs)
    }

    /// The first free member that offers a name which an object defined.
    fn find_by_names(
        &self,
        record: &InputRecord,
        offers: &OpenedArchive,
        taken: &HashSet<u32>,
    ) -> Result<Option<u32>, StoreError> {
        for row in record.globals.and(record.more_globals) {
            let global = self.store.globals.get(row)?;
            let defined = !is_vacant_global(&global) && global.state != 0;
            if let Some(ordinal) = offers.offers.get(&global.name_hash).filter(|_| defined)
                && !taken.contains(ordinal)
            {
                return Ok(Some(*ordinal));
            }
        }
        Ok(None)
    }

    /// Notes names that an archive offers by members that are not loaded; `false` if one of them may mean something else by it.
    ///
    /// `taken`: members that are loaded from now on.
    fn note_offers(
        &mut self,
        file: FileRow,
        archive: &OpenedArchive,
        loaded: &[Loaded],
        pairs: &[Option<u32>],
        taken: &HashSet<u32>,
    ) -> Result<bool, StoreError> {
        let ordinals: HashMap<InputRow, Option<u32>> =
            loaded.iter().zip(pairs).map(|((row, _), pair)| (*row, *pair)).collect();
        let gone = self.changed.iter().filter(|one| one.fate == Fate::Goes).map(|one| one.row);
        let gone: HashSet<InputRow> = gone.collect();
        let Ok(Some(index)) = archive.archive.symbols() else { return Ok(false) };
        let entries = index.iter().filter_map(|(name, offset)| {
            let ordinal = archive.members.binary_search_by_key(offset, |member| member.offset).ok()?;
            Some((archive.archive.bytes.get(name.clone())?, ordinal as u32))
        });
        let mut own: HashSet<(u64, u32)> = HashSet::new();
        for (name, ordinal) in entries.clone().filter(|(_, ordinal)| taken.contains(ordinal)) {
            own.insert((hash_name(name), ordinal));
        }
        for (name, ordinal) in entries {
            let hash = hash_name(name);
            // What a loaded member offers first, Diff compares.
            if taken.contains(&ordinal) || archive.offers.get(&hash) != Some(&ordinal) {
                continue;
            }
            let still_defines = |input: InputRow| match ordinals.get(&input) {
                Some(Some(ordinal)) => Some(own.contains(&(hash, *ordinal))),
                // What takes over what it defined, Diff finds out.
                _ => gone.contains(&input).then_some(false),
            };
            if !self.note_offer(file, name, still_defines)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Notes a name that an archive offers by a member that is not loaded.
    ///
    /// `still_defines`: of a definer that goes, or is of the same archive, whether it still is one.
    fn note_offer(
        &mut self,
        file: FileRow,
        name: &[u8],
        still_defines: impl Fn(InputRow) -> Option<bool>,
    ) -> Result<bool, StoreError> {
        let flags = symbol_flags::GLOBAL | symbol_flags::OFFERED;
        let lazy = SymbolRecord { flags, atom: place::LAZY, input: InputRow(file.0), ..vacant_symbol() };
        let known = match self.plan.new_names.get(name) {
            Some(&row) => Some(row),
            None => self.store.global(name)?,
        };
        let Some(row) = known else {
            let Some((row, known)) = add_global(self.store, self.plan, name) else { return Ok(false) };
            self.plan.symbols.insert(row.0, SymbolRecord { name: known.name, ..lazy });
            return Ok(true);
        };
        let record = match self.plan.symbols.get(&row.0) {
            Some(record) => *record,
            None => self.store.symbols.get(row.0)?,
        };
        let (offered, contested) =
            (record.flags & symbol_flags::OFFERED != 0, record.flags & symbol_flags::CONTESTED != 0);
        match record.atom {
            place::VACANT => {
                self.plan.symbols.insert(row.0, SymbolRecord { name: record.name, ..lazy });
                Ok(true)
            }
            place::LAZY => {
                // None in front of the first that offers it does.
                let first = record.input.some().map(|input| FileRow(input.0));
                if first.is_some_and(|first| self.place_of(file) < self.place_of(first)) {
                    self.plan.symbols.insert(row.0, SymbolRecord { input: InputRow(file.0), ..record });
                }
                Ok(true)
            }
            place::UNDEFINED | place::SHARED => Ok(contested && record.atom == place::SHARED),
            _ if record.input.some().is_none() => Ok(offered),
            _ => {
                if let Some(still) = still_defines(record.input) {
                    return Ok(!still || offered && contested);
                }
                let definer = self.store.inputs.get(record.input.0)?.file;
                // Names that nothing wanted before the definition came are not wanted by what an archive offers now.
                let searched =
                    definer.0 < self.store.files.len() && is_searched(&self.store.files.get(definer.0)?);
                let behind = self.place_of(file) > self.place_of(definer);
                Ok(offered && (behind || contested && searched))
            }
        }
    }

    /// The place of a file on the command line.
    fn place_of(&self, file: FileRow) -> usize {
        self.places.iter().position(|known| *known == file).unwrap_or(usize::MAX)
    }

    /// A loaded member that is gone, or that nothing wants any more.
    pub(super) fn drop_member(&mut self, row: InputRow) -> Result<(), StoreError> {
        let name = self.store.text(self.store.inputs.get(row.0)?.name);
        self.changed.push(Changed { row, fate: Fate::Goes, name, bytes: Bytes::new(), hash: 0, home: None });
        Ok(())
    }

    /// A member that something wants.
    pub(super) fn pull_member(
        &mut self,
        request: &Request,
        file: FileRow,
        ordinal: u32,
    ) -> Result<(), StoreError> {
        let reason = |loader: &Self| -> Result<GateReason, StoreError> {
            let archive = loader.store.text(file_of(loader.store, loader.plan, file)?.name);
            Ok(GateReason::ArchiveChanged { archive })
        };
        let known = file_of(self.store, self.plan, file)?;
        let stays = |row: &InputRow| self.changed.iter().all(|one| one.row != *row || one.fate != Fate::Goes);
        let loaded = self.loaded_members(&known)?;
        if loaded.iter().any(|(row, record)| {
            let now = self.plan.input_records.get(&row.0).unwrap_or(record);
            now.member == ordinal && stays(row)
        }) {
            // Another round paired it with another one.
            let reason = reason(self)?;
            self.frame.refuse(reason);
            return Ok(());
        }
        let input = super::libraries::input_of(request, self.store, self.plan, file.0)?;
        let opened = open_archive(request, self.store, self.plan, file)?;
        let found =
            input.zip(opened).map(|(input, opened)| (input, opened.archive.clone(), opened.members.clone()));
        let Some((input, archive, members)) = found else {
            let reason = reason(self)?;
            self.frame.refuse(reason);
            return Ok(());
        };
        self.add_member(input, file, &archive, &members, ordinal);
        Ok(())
    }

    fn add_member(
        &mut self,
        input: &Input,
        file: FileRow,
        archive: &Archive,
        members: &[Member],
        ordinal: u32,
    ) {
        let member = members.get(ordinal as usize);
        let content = member.and_then(|member| Some((member, member_bytes(input, archive, member).ok()?)));
        let Some((member, bytes)) = content else {
            return self.frame.refuse(GateReason::ArchiveChanged { archive: input.name.clone() });
        };
        let (row, name, home) =
            (InputRow::default(), member_name(input, member), Some(Home::Member(file, ordinal)));
        let hash = XxHash3_64::oneshot(&bytes);
        self.changed.push(Changed { row, fate: Fate::Comes, name, bytes, hash, home });
    }
}

/// What messages call a member.
fn member_name(input: &Input, member: &Member) -> String {
    let short = input.name.rsplit('/').next().unwrap_or(&input.name);
    format!("{short}({})", member.name)
}

/// What is the same of a member's name in each run of rustc; the archive may have another one.
fn member_role(name: &str) -> String {
    let member = name.split_once('(').map_or(name, |(_, member)| member);
    let (stem, end) = role(member);
    format!("{stem}{end}")
}
