//! Maps a file into memory, and asks who else has it open: the only unsafe lines of the library.

#![expect(unsafe_code, reason = "no safe wrapper has these calls; each argues its case")]

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::AsRawFd;

use memmap2::{Advice, Mmap, MmapMut, MmapOptions};
use relink_engine::image::ImageMemory;
use relink_formats::Bytes;

/// `fcntl`'s number on Linux; the crate has it for other systems only.
const F_SETSIG: libc::c_int = 10;

/// The first `length` bytes of `file`, read only and private to this process.
pub(super) fn map_file(file: &File, length: usize) -> io::Result<Bytes> {
    if length == 0 {
        return Ok(Bytes::new()); // mmap refuses an empty range.
    }
    // Another process that writes into an input during a link is caught by comparing `fstat` before and after
    // (`input.rs`); one that truncates it raises SIGBUS, which ends this process and touches no output (`publish.rs`
    // renames last). Of the state folder, a state grows behind what is mapped; a kept image is written to by this
    // thread while it is mapped, but only where the session has laid bytes over it (`turns.rs`).
    // SAFETY: the mapping is read only, and what this process writes to its file it writes at a time when there is no
    // reference into it. No parser of ours relies on reading the same byte twice for memory safety: all of them index
    // checked slices.
    let map: Mmap = unsafe { MmapOptions::new().len(length).map(file)? };
    Ok(Bytes::from_owner(map))
}

/// A new file of `length` bytes as memory. Its room is taken first: a page of a mapping without room on the disk would be
/// a signal instead of an error.
pub(super) fn map_new(file: &File, length: usize) -> io::Result<Box<dyn ImageMemory>> {
    let bytes = u64::try_from(length).map_err(|_| io::ErrorKind::FileTooLarge)?;
    rustix::fs::fallocate(file, rustix::fs::FallocateFlags::empty(), 0, bytes)?;
    // SAFETY: this process made the file under a name that nobody else uses (`O_EXCL`, `publish.rs`), and reads and
    // writes it through this mapping alone until that is dropped, which is before the file gets its place. Who
    // truncates it all the same raises SIGBUS, which ends this process and touches no output.
    let map = unsafe { MmapOptions::new().len(length).map_mut(file)? };
    Ok(Box::new(MappedImage(map)))
}

#[derive(Debug)]
struct MappedImage(MmapMut);

impl ImageMemory for MappedImage {
    fn bytes(&self) -> &[u8] {
        &self.0
    }
    fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }
    fn prepare(&self, range: Range<usize>) {
        // A hint: kernels before 5.14 don't know it, and then each page is made when it is written.
        let _ = self.0.advise_range(Advice::PopulateWrite, range.start, range.len());
    }
}

/// Whether nobody but `file` itself, which must be open to write, has its file open or mapped; also true if the file
/// system can't tell. Names don't count.
pub(super) fn is_alone(file: &File) -> io::Result<bool> {
    let control = |command: libc::c_int, argument: libc::c_int| {
        // SAFETY: the descriptor is open as long as `file` is; these commands take an int and touch no memory.
        match unsafe { libc::fcntl(file.as_raw_fd(), command, argument) } {
            -1 => Err(io::Error::last_os_error()),
            _ => Ok(()),
        }
    };
    // The kernel gives a lease to write only to the one user of a file. It is given back at once; who opens the file
    // in between waits for that, and the signal that tells us is one that does nothing by default.
    control(F_SETSIG, libc::SIGURG)?;
    match control(libc::F_SETLEASE, libc::F_WRLCK) {
        Ok(()) => control(libc::F_SETLEASE, libc::F_UNLCK).map(|()| true),
        Err(error) if error.raw_os_error() == Some(libc::EAGAIN) => Ok(false),
        Err(_) => Ok(true),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_to_memory_of_a_new_file_is_in_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let file = File::options().read(true).write(true).create_new(true).open(&path).unwrap();
        let mut memory = map_new(&file, 9000).unwrap();
        memory.prepare(0..9000);
        assert!(memory.bytes().len() == 9000 && memory.bytes().iter().all(|&byte| byte == 0));
        memory.bytes_mut()[8999] = 7;
        drop(memory);
        let bytes = std::fs::read(&path).unwrap();
        assert_eq!((bytes.len(), bytes[8998], bytes[8999]), (9000, 0, 7));
        // More than there is anywhere: an error, no signal.
        assert!(map_new(&file, 1 << 60).is_err());
    }

    #[test]
    fn whoever_has_a_file_open_or_mapped_is_seen() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        std::fs::write(&path, b"bytes").unwrap();
        let ours = File::options().read(true).write(true).open(&path).unwrap();
        assert!(is_alone(&ours).unwrap());
        let reader = File::open(&path).unwrap();
        assert!(!is_alone(&ours).unwrap());
        let map = map_file(&reader, 5).unwrap();
        drop(reader);
        assert!(!is_alone(&ours).unwrap());
        drop(map);
        assert!(is_alone(&ours).unwrap());
        let writer = File::options().write(true).open(&path).unwrap();
        assert!(!is_alone(&ours).unwrap());
        drop(writer);
        assert!(is_alone(&ours).unwrap());
    }
}
