//! What must hold for any bytes: a judge for each kind of input, which panics if it does not.
//!
//! The fuzz targets (`fuzz/`) call them with what libFuzzer makes up; `it::fuzzed` calls them with the inputs that are
//! kept of those runs (`fuzz/kept`), so that what was found once stays found.

pub mod tiny;

mod archive;
mod eh_frame;
mod link;
mod memory_io;
mod object;
mod options;
mod rows;
mod script;
mod shared_object;
mod state;
mod version_script;

pub use memory_io::MemoryIo;
pub use options::{links, words_of_help};
pub use rows::outcomes;

/// Takes an input; returns if all is well.
pub type Judge = fn(&[u8]);

/// Every target and its judge.
pub const TARGETS: [(&str, Judge); 10] = [
    ("archive", archive::judge),
    ("eh_frame", eh_frame::judge),
    ("link", link::judge),
    ("object", object::judge),
    ("options", options::judge),
    ("rows", rows::judge),
    ("script", script::judge),
    ("shared_object", shared_object::judge),
    ("state", state::judge),
    ("version_script", version_script::judge),
];

/// The judge of a target.
///
/// # Panics
/// If there is no such target.
pub fn judge(target: &str) -> Judge {
    let found = TARGETS.iter().find(|(name, _)| *name == target);
    found.unwrap_or_else(|| panic!("no fuzz target {target}")).1
}

/// An image is what another reader takes for an ELF file, with every section inside.
#[track_caller]
fn assert_readable(image: &[u8]) {
    use ::object::{Object, ObjectSection};
    let file =
        ::object::File::parse(image).unwrap_or_else(|error| panic!("the image can't be read: {error}"));
    for section in file.sections() {
        section.data().unwrap_or_else(|error| panic!("a section reaches out of the image: {error}"));
    }
}
