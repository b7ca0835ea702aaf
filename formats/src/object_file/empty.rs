//! What is left of an object that is gone.

use super::{Bytes, ObjectFile, Property, StackNote};

impl ObjectFile {
    /// An object with nothing in it.
    pub fn empty() -> ObjectFile {
        ObjectFile {
            bytes: Bytes::new(),
            sections: Vec::new(),
            groups: Vec::new(),
            first_global: 0,
            property: Property::default(),
            stack: StackNote::NonExecutable,
            symbols: 0..0,
            strings: 0..0,
            extended: 0..0,
            inflated: Vec::new(),
        }
    }
}
