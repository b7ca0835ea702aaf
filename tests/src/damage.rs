//! The oracle on trial: an image with one wrong byte, and what is said of it.

use object::{Object, ObjectSection};
use relink::LinkOptions;

use crate::program::{Inputs, Program};

/// Invariant 8 compares digests of the whole file; it would hide that a part is not looked at.
const DIGEST: u8 = 8;

/// An image that is right, and the state that goes with it.
#[derive(Debug)]
pub struct Trial {
    options: LinkOptions,
    inputs: Inputs,
    columns: Vec<u8>,
    /// The image.
    pub image: Vec<u8>,
}

impl Trial {
    /// Links a program and patches it; nothing is wrong with the result.
    #[track_caller]
    pub fn new(options: LinkOptions, before: &Inputs, after: Inputs) -> Trial {
        let mut linked = Program::linked(options.clone(), before);
        linked.verify();
        let outcome = linked.edit(&after);
        linked.assert_patched(outcome);
        linked.verify();
        let mut columns = Vec::new();
        linked.session.serialize_columns(&mut columns).expect("memory can be written to");
        Trial { options, inputs: after, columns, image: linked.image() }
    }

    /// Where a section is in the file, and its length.
    #[track_caller]
    pub fn section(&self, name: &str) -> (u64, u64) {
        let elf = object::File::parse(&*self.image).expect("an image");
        let section = elf.section_by_name(name).unwrap_or_else(|| panic!("no {name}"));
        section.file_range().unwrap_or_else(|| panic!("no bytes of {name}"))
    }

    /// Panics unless a wrong byte is found by what it is, not by the digest of the whole.
    #[track_caller]
    pub fn assert_found(&self, what: &str, offset: u64) {
        let mut wrong = self.image.clone();
        wrong[offset as usize] ^= 0x10;
        let mut program = Program::new(self.options.clone(), &self.inputs);
        program.session.set_prior_parts(self.columns.clone().into(), wrong.into());
        let violations = program.session.verify().expect("the inputs link");
        let found = violations.iter().any(|violation| violation.invariant != DIGEST);
        assert!(found, "{what} at {offset:#x}: {violations:?}");
    }
}
