//! Maps a file into memory: the only unsafe line of the library.

#![expect(unsafe_code, reason = "a file mapping can't be made otherwise; the one call argues its case")]

use std::fs::File;
use std::io;

use memmap2::{Mmap, MmapOptions};
use relink_formats::Bytes;

/// The first `length` bytes of `file`, read only and private to this process.
pub(super) fn map_file(file: &File, length: usize) -> io::Result<Bytes> {
    if length == 0 {
        return Ok(Bytes::new()); // mmap refuses an empty range.
    }
    // SAFETY: the mapping is read only, so this process can't change the bytes behind a reference. Another one
    // could: writing into an input during a link is caught by comparing `fstat` before and after (`input.rs`), and
    // no parser of ours relies on reading the same byte twice for memory safety: all of them index checked slices.
    // Truncation by another process raises SIGBUS, which ends this process and touches no output (`publish.rs`
    // renames last). Files of the state folder are written once under a new name and never changed (`state.rs`).
    let map: Mmap = unsafe { MmapOptions::new().len(length).map(file)? };
    Ok(Bytes::from_owner(map))
}
