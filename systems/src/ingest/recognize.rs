//! Objects that something was done to, but that may have the bytes that they had: rustc's get a name and lose one whenever
//! the compiler runs, which changes the one time that nobody can set. Only their contents can tell.

use std::sync::atomic::{AtomicUsize, Ordering};

use hashbrown::HashMap;
use relink_engine::column::StoreError;
use relink_engine::frame::Request;
use relink_engine::input::Input;
use relink_engine::records::{FileRecord, file_flags};
use relink_engine::store::Store;

use crate::commit::bulk::file_record;

/// A thread takes 50 µs to start and end, in which 5 objects of rustc's (100 KB each) are read and hashed.
const OBJECTS_PER_THREAD: usize = 32;

/// Whether the identities of a file, then and now, prove that its bytes are the same.
pub(super) fn is_proven(known: &FileRecord, new: &FileRecord) -> bool {
    let identity =
        |record: &FileRecord| (record.device, record.inode, record.size, record.mtime_ns, record.changed_ns);
    known.flags & new.flags & file_flags::IDENTITY != 0 && identity(known) == identity(new)
}

/// Hashes of objects that are not proven to be as they were, by the row of their file; none for what can't be read. One
/// alone is rather read at once.
pub(super) fn hash_doubtful_objects(
    request: &Request,
    store: &Store,
) -> Result<HashMap<u32, u64>, StoreError> {
    let mut doubtful: Vec<(u32, &Input)> = Vec::new();
    for &row in &request.changed {
        let Some(input) = request.inputs.get(row as usize).filter(|input| !input.unchanged) else { continue };
        let (known, new) = (store.files.get(row)?, file_record(input));
        let object = known.flags & (file_flags::ARCHIVE | file_flags::SHARED) == 0 && known.inputs.len > 0;
        let sized = known.flags & new.flags & file_flags::IDENTITY != 0;
        let same_size = !sized || known.size == new.size;
        if object && same_size && !is_proven(&known, &new) {
            doubtful.push((row, input));
        }
    }
    if doubtful.len() < 2 {
        return Ok(HashMap::new());
    }
    let next = AtomicUsize::new(0);
    let work = || {
        let (mut hashes, mut scratch) = (Vec::new(), Vec::new());
        while let Some(&(row, input)) = doubtful.get(next.fetch_add(1, Ordering::Relaxed)) {
            hashes.extend(input.source.content_hash(&mut scratch).ok().map(|hash| (row, hash)));
        }
        hashes
    };
    let threads = doubtful.len().div_ceil(OBJECTS_PER_THREAD).min(threads(request.options.threads));
    let hashes = std::thread::scope(|scope| {
        // Threads that can't be had are none that are needed.
        let helpers = (1..threads).map_while(|_| std::thread::Builder::new().spawn_scoped(scope, work).ok());
        let helpers: Vec<_> = helpers.collect();
        let mut hashes = work();
        hashes.extend(helpers.into_iter().filter_map(|helper| helper.join().ok()).flatten());
        hashes
    });
    Ok(hashes.into_iter().collect())
}

fn threads(wanted: usize) -> usize {
    match wanted {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        wanted => wanted,
    }
}
