//! Everything that can be wrong with input bytes, one variant per cause.

/// Why bytes could not be read (or a table could not be written).
///
/// Closed: a caller may match on the cause. Each variant says what was being read and where. Offsets count
/// in bytes from the start of what the parser was given: the file for objects, archives and scripts, the
/// section for section parsers.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    /// The bytes end before the thing does.
    #[error("{what} at offset {offset:#x} needs {need} bytes, but only {have} are there")]
    Truncated {
        /// What was being read.
        what: &'static str,
        /// Where it begins.
        offset: u64,
        /// Its size in bytes.
        need: u64,
        /// Bytes left from `offset` on.
        have: u64,
    },
    /// The file is of another kind altogether.
    #[error("{what} expected at offset {offset:#x}, but the bytes there are {found:02x?}")]
    BadMagic {
        /// What was expected.
        what: &'static str,
        /// Where it was expected.
        offset: u64,
        /// The first four bytes found, zero where the file is shorter.
        found: [u8; 4],
    },
    /// Legal input that relink has no support for.
    #[error("unsupported: {what} (at offset {offset:#x})")]
    Unsupported {
        /// The construct, and the way round it if there is one.
        what: String,
        /// Where it is.
        offset: u64,
    },
    /// An index or an offset into a table, past its end.
    #[error("{what} {index} at offset {offset:#x} is out of range: there are {limit}")]
    BadIndex {
        /// What the index counts.
        what: &'static str,
        /// The index found.
        index: u64,
        /// How many there are.
        limit: u64,
        /// Where the index stands.
        offset: u64,
    },
    /// A field with a value that it must not have.
    #[error("bad {what} {value:#x} at offset {offset:#x}")]
    BadValue {
        /// The field.
        what: &'static str,
        /// Its value.
        value: u64,
        /// Where it stands.
        offset: u64,
    },
    /// A string without its NUL.
    #[error("{what} at offset {offset:#x} has no terminating zero")]
    Unterminated {
        /// What was being read.
        what: &'static str,
        /// Where it begins.
        offset: u64,
    },
    /// The archive reader of the `object` crate refused.
    #[error("malformed archive at offset {offset:#x}: {what}")]
    Archive {
        /// The reason, in the reader's words.
        what: String,
        /// The header that was being read.
        offset: u64,
    },
    /// A linker script that doesn't follow the grammar.
    #[error("linker script line {line} (offset {offset:#x}): {what}")]
    Syntax {
        /// What was expected or found.
        what: String,
        /// From 1.
        line: u32,
        /// Where the token begins.
        offset: u64,
    },
    /// What is to be written doesn't fit its reserved place.
    #[error("{what} at offset {offset:#x} needs {need} bytes, but {have} are reserved")]
    NoRoom {
        /// What was being written.
        what: &'static str,
        /// Where it was to begin.
        offset: u64,
        /// Its size in bytes.
        need: u64,
        /// Bytes reserved.
        have: u64,
    },
}

impl FormatError {
    /// The same error with its offset counted from `base` bytes earlier: from section to file offsets.
    pub fn rebased(mut self, base: u64) -> FormatError {
        let (FormatError::Truncated { offset, .. }
        | FormatError::BadMagic { offset, .. }
        | FormatError::Unsupported { offset, .. }
        | FormatError::BadIndex { offset, .. }
        | FormatError::BadValue { offset, .. }
        | FormatError::Unterminated { offset, .. }
        | FormatError::Archive { offset, .. }
        | FormatError::Syntax { offset, .. }
        | FormatError::NoRoom { offset, .. }) = &mut self;
        *offset = offset.saturating_add(base);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rebased_moves_the_offset_and_display_shows_it() {
        let error = FormatError::BadValue { what: "alignment", value: 3, offset: 8 }.rebased(0x40);
        assert_eq!(error.to_string(), "bad alignment 0x3 at offset 0x48");
    }
}
