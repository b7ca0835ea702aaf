//! Objects as they are read, several at once: parsed, and their global names hashed. Names are then interned one after the
//! other, since the order of the command line decides which of two definitions is the first.

use formats::Bytes;
use formats::archive::{Archive, Member};
use formats::object_file::ObjectFile;
use rayon::prelude::*;
use relink_engine::frame::Request;
use relink_engine::input::Input;
use relink_engine::store::hash_name;
use relink_formats as formats;

/// An object and what is asked of its global names.
pub(super) struct ReadObject {
    pub(super) parsed: ObjectFile,
    /// From the first global symbol on.
    pub(super) globals: Vec<GlobalName>,
}

/// A global symbol's name.
#[derive(Clone, Copy)]
pub(super) struct GlobalName {
    pub(super) hash: u64,
    /// It says a version: `name@VERSION`.
    pub(super) has_version: bool,
}

impl GlobalName {
    pub(super) fn of(name: &[u8]) -> GlobalName {
        GlobalName { hash: hash_name(name), has_version: name.contains(&b'@') }
    }
}

impl ReadObject {
    pub(super) fn read(bytes: Bytes) -> Result<ReadObject, String> {
        let parsed = ObjectFile::parse(bytes).map_err(|error| error.to_string())?;
        let first = parsed.first_global as usize;
        let globals = (first..parsed.symbols().len()).map(|index| GlobalName::of(parsed.symbol_name(index)));
        Ok(ReadObject { globals: globals.collect(), parsed })
    }
}

/// A member's bytes; those of a thin archive's are in a file of their own.
pub(super) fn member_bytes(input: &Input, archive: &Archive, member: &Member) -> Result<Bytes, String> {
    if let Some(path) = &member.thin_path {
        return input.source.member(path).map_err(|error| format!("cannot read its member {path}: {error}"));
    }
    let start = usize::try_from(member.data.start).unwrap_or(usize::MAX);
    let end = usize::try_from(member.data.end).unwrap_or(usize::MAX);
    if start <= end && end <= archive.bytes.len() {
        Ok(archive.bytes.slice(start..end))
    } else {
        Err(format!("its member {} is beyond its end", member.name))
    }
}

/// Reads members of archives: `(archive, its file row, the member)` each.
pub(super) fn read_members(
    request: &Request,
    members: &[(&Archive, u32, Member)],
) -> Vec<Result<ReadObject, String>> {
    let read = |&(archive, file, ref member): &(&Archive, u32, Member)| {
        member_bytes(&request.inputs[file as usize], archive, member).and_then(ReadObject::read)
    };
    members.par_iter().map(read).collect()
}
