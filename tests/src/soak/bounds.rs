//! What may grow from frame to frame, and how far.

use std::fmt;
use std::path::Path;

use object::{Object, ObjectSection, ObjectSymbol, SymbolKind};

use super::Subject;
use crate::elf::Elf;
use crate::state::{self, Column, Layout};

/// How much there is of everything that grows.
#[derive(Clone, Copy, Debug, Default)]
pub struct Extent {
    /// Bytes of the image.
    pub image: u64,
    /// Jumps at old entries.
    pub islands: u64,
    /// Bytes of code slots that nothing lives in, without the reserve's rest.
    pub dead: u64,
    /// Bytes of the state without its log.
    pub state: u64,
    /// Bytes of the state's log.
    pub log: u64,
    /// Bytes of the whole state folder.
    pub folder: u64,
}

impl Extent {
    /// Each the greater of two.
    pub fn raise(&mut self, other: &Extent) {
        self.image = self.image.max(other.image);
        self.islands = self.islands.max(other.islands);
        self.dead = self.dead.max(other.dead);
        self.state = self.state.max(other.state);
        self.log = self.log.max(other.log);
        self.folder = self.folder.max(other.folder);
    }
}

impl fmt::Display for Extent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Extent { image, islands, dead, state, log, folder } = self;
        write!(
            f,
            "{islands} islands, {dead} dead bytes, image {image}, state {state} + log {log}, folder {folder} bytes"
        )
    }
}

/// Dead bytes that a patch may leave: `debris-limit`, a tenth of the code but at least 64 KiB.
fn dead_max(code: u64) -> u64 {
    (code / 100 * 10).max(64 << 10)
}

/// Entries that `.symtab` has for islands: 64, and one for 16 atoms of code.
fn islands_max(functions: u64) -> u64 {
    64 + functions / 16
}

/// The log of a state: a quarter of what it belongs to, between 64 KiB and 64 MiB.
fn log_max(state: u64) -> u64 {
    (state / 4).clamp(64 << 10, 64 << 20)
}

/// State with its log and one that takes its place, two images and one that is being copied, patches, history of 1 MiB.
fn folder_max(extent: &Extent) -> u64 {
    3 * extent.image + 2 * (extent.state + log_max(extent.state)) + (2 << 20)
}

/// Files of the folder: a lock, log, list of inputs, and two of marker, command line, state, image and patch.
const FILES_MAX: usize = 13;

/// Measures an output and its state folder, and panics where a bound is passed. After a patch, `before` is what there
/// was: the image keeps its length.
pub(super) fn measure(subject: &dyn Subject, before: Option<&Extent>) -> Extent {
    let out = subject.out();
    let image = crate::read(&out);
    let name = out.file_name().expect("an output has a name");
    let folder = out.with_file_name(".relink").join(name);
    let elf = Elf::parse(&image);
    let code = elf.section(".text");
    let text = elf.file.section_by_name(".text").expect("there is code");
    let memory = text.address()..text.address() + text.size();
    let names = || elf.file.symbols().filter_map(|symbol| symbol.name().ok());
    let functions = elf.file.symbols().filter(|symbol| symbol.kind() == SymbolKind::Text).count() as u64;
    let (files, bytes, state) = contents(&folder);
    let layout = Layout::of(&state);
    let log: u64 = layout.log.iter().map(|record| record.len() as u64 + 16).sum();
    let extent = Extent {
        image: image.len() as u64,
        islands: names().filter(|name| name.ends_with(".island")).count() as u64,
        dead: dead_bytes(&state, &memory),
        state: state.len() as u64 - log,
        log,
        folder: bytes,
    };
    if let Some(before) = before {
        assert_eq!(extent.image, before.image, "a patch keeps the length of the image");
    }
    let code = code.end - code.start;
    for (what, found, most) in [
        ("islands", extent.islands, islands_max(functions)),
        ("dead bytes", extent.dead, dead_max(code)),
        ("bytes of the log", extent.log, log_max(extent.state)),
        ("bytes of the folder", extent.folder, folder_max(&extent)),
        ("files of the folder", files as u64, FILES_MAX as u64),
    ] {
        assert!(found <= most, "{found} {what}, at most {most} are allowed");
    }
    extent
}

/// How many files a state folder has, their bytes, and those of the latest state.
fn contents(folder: &Path) -> (usize, u64, Vec<u8>) {
    let (mut files, mut bytes, mut latest) = (0, 0, None);
    for entry in std::fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display())) {
        let entry = entry.expect("an entry of the folder");
        files += 1;
        bytes += entry.metadata().expect("a file of the folder").len();
        let name = entry.file_name().to_string_lossy().into_owned();
        let generation = name.strip_prefix("state-").and_then(|number| number.parse::<u64>().ok());
        latest = latest.max(generation);
    }
    let latest = latest.expect("an incremental link leaves state");
    (files, bytes, crate::read(folder.join(format!("state-{latest}"))))
}

/// Free ranges of the code but the largest, which is the rest of the reserve.
fn dead_bytes(state: &[u8], code: &std::ops::Range<u64>) -> u64 {
    let word = |row: &[u8], at: usize| u64::from_le_bytes(row[at..at + 8].try_into().expect("eight bytes"));
    let rows = [Column::FreeSlots, Column::FreeBlocks].map(|column| state::rows(state, column)).concat();
    let lengths = rows.iter().filter(|row| code.contains(&word(row, 8))).map(|row| word(row, 16));
    let (sum, most) = lengths.fold((0, 0), |(sum, most), length| (sum + length, length.max(most)));
    sum - most
}
