//! The least that a linker must do for an edit: read what changed, look at each input once, write the pages that
//! change. A program that does that and nothing else is measured beside the linkers.

use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rustix::fs as kernel;

const PAGE_BYTES: usize = 4096;

/// What is to be done.
#[derive(Clone, Debug, Default)]
pub struct Floor {
    /// Files to look at.
    pub inputs: Vec<PathBuf>,
    /// Files to read.
    pub changed: Vec<PathBuf>,
    /// Pages to write.
    pub pages: Vec<u64>,
}

impl Floor {
    /// The pages in which two images of one length differ.
    ///
    /// # Errors
    /// Those of reading.
    pub fn pages_between(old: &[u8], new: &Path) -> io::Result<Vec<u64>> {
        let new = fs::read(new)?;
        let pages = old.chunks(PAGE_BYTES).zip(new.chunks(PAGE_BYTES)).zip(0..);
        Ok(pages.filter(|((old, new), _)| old != new).map(|(_, page)| page).collect())
    }

    /// Writes a list that [`Floor::work`] takes.
    ///
    /// # Errors
    /// Those of writing.
    pub fn write(&self, list: &Path) -> io::Result<()> {
        let mut file = io::BufWriter::new(fs::File::create(list)?);
        for path in &self.inputs {
            writeln!(file, "i{}", path.display())?;
        }
        for path in &self.changed {
            writeln!(file, "c{}", path.display())?;
        }
        for page in &self.pages {
            writeln!(file, "p{page}")?;
        }
        file.flush()
    }

    /// Does what a list says; pages are those of `image`.
    ///
    /// # Errors
    /// Those of the files.
    pub fn work(list: &Path, image: &Path) -> io::Result<()> {
        let list = fs::read_to_string(list)?;
        let mut output = None;
        let mut contents = Vec::new();
        let page = [0x5a; PAGE_BYTES];
        for line in list.lines() {
            match line.split_at_checked(1) {
                Some(("i", path)) => {
                    kernel::stat(path)?;
                }
                Some(("c", path)) => {
                    contents.clear();
                    fs::File::open(path)?.read_to_end(&mut contents)?;
                    std::hint::black_box(&contents);
                }
                Some(("p", number)) => {
                    let number: u64 = number.parse().map_err(io::Error::other)?;
                    if output.is_none() {
                        output = Some(fs::File::options().write(true).open(image)?);
                    }
                    if let Some(output) = &output {
                        output.write_all_at(&page, number * PAGE_BYTES as u64)?;
                    }
                }
                _ => return Err(io::Error::other("no list of a floor")),
            }
        }
        Ok(())
    }
}
