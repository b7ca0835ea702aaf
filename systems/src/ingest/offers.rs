//! What archives offer: which member a full link would pull for a name. Asked of the archives themselves, and only by frames
//! that need to know.

use formats::archive::{Archive, Member};
use hashbrown::HashMap;
use relink_engine::column::StoreError;
use relink_engine::frame::Request;
use relink_engine::plan::{OpenedArchive, Plan};
use relink_engine::records::{FileRecord, file_flags};
use relink_engine::rows::FileRow;
use relink_engine::store::{Store, hash_name};
use relink_formats as formats;

use super::libraries::input_of;
use crate::commit::bulk::archive_shape;

/// What is known of who offers a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Offer {
    /// An archive can't be asked.
    Unknown,
    /// No archive does.
    Nobody,
    /// The first archive of the command line that does, and the ordinal of its member.
    Member(FileRow, u32),
}

/// An archive with what it offers; `None` if it has members, but no index.
pub(super) fn read_offers(archive: Archive, members: Vec<Member>) -> Option<OpenedArchive> {
    let mut offers = HashMap::new();
    let index = archive.symbols().ok()?;
    for (name, offset) in index.or_else(|| members.is_empty().then(Vec::new))? {
        let name = archive.bytes.get(name).unwrap_or_default();
        let ordinal = members.binary_search_by_key(&offset, |member| member.offset).ok()?;
        offers.entry(hash_name(name)).or_insert(ordinal as u32);
    }
    Some(OpenedArchive { archive, members, offers })
}

/// Looks into an archive of the command line, once in a frame; `None` if it is not the one that the store knows, or has no
/// index.
pub(crate) fn open_archive<'p>(
    request: &Request,
    store: &Store,
    plan: &'p mut Plan,
    file: FileRow,
) -> Result<Option<&'p OpenedArchive>, StoreError> {
    if !plan.archives.contains_key(&file.0) {
        let known = file_of(store, plan, file)?;
        let Some(input) = input_of(request, store, plan, file.0)? else { return Ok(None) };
        let archive = input.source.bytes().ok().and_then(|bytes| Archive::parse(bytes).ok());
        let same = |archive: &Archive| archive_shape(archive) == (known.members, known.index_hash);
        let Some(archive) = archive.filter(same) else { return Ok(None) };
        let opened = archive.members().ok().and_then(|members| read_offers(archive, members));
        let Some(opened) = opened else { return Ok(None) };
        plan.archives.insert(file.0, opened);
    }
    Ok(plan.archives.get(&file.0))
}

/// Who offers a name. `hint` is the archive that did when it was asked last: none in front of it does.
pub(crate) fn find_offer(
    request: &Request,
    store: &Store,
    plan: &mut Plan,
    name: &[u8],
    hint: Option<FileRow>,
) -> Result<Offer, StoreError> {
    let hash = hash_name(name);
    let places = match &plan.order {
        Some(order) => order.clone(),
        None => store.places()?,
    };
    for file in hint.into_iter().chain(places) {
        // What comes with this frame is no archive.
        if file.0 >= store.files.len() || !is_searched(&file_of(store, plan, file)?) {
            continue;
        }
        let Some(archive) = open_archive(request, store, plan, file)? else { return Ok(Offer::Unknown) };
        if let Some(&ordinal) = archive.offers.get(&hash) {
            return Ok(Offer::Member(file, ordinal));
        }
    }
    Ok(Offer::Nobody)
}

/// Whether a file is an archive whose members are loaded when a name wants them.
pub(crate) fn is_searched(file: &FileRecord) -> bool {
    file.flags & (file_flags::ARCHIVE | file_flags::WHOLE) == file_flags::ARCHIVE
}

/// A file, as it will be.
pub(super) fn file_of(store: &Store, plan: &Plan, file: FileRow) -> Result<FileRecord, StoreError> {
    match plan.files.get(&file.0) {
        Some(record) => Ok(*record),
        None => store.files.get(file.0),
    }
}
