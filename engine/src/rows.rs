//! Typed row numbers of the store's columns. A row lives as long as the store; an `Entity` only for one frame.

#![expect(missing_debug_implementations, reason = "zerocopy's derive makes helper types without Debug")]

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// What stands in a row number's place when there is none.
pub const NONE: u32 = u32::MAX;

macro_rules! rows {
    ($($(#[$doc:meta])* $name:ident)*) => {$(
        $(#[$doc])*
        #[derive(
            Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash,
            FromBytes, IntoBytes, Immutable, KnownLayout,
        )]
        #[repr(transparent)]
        pub struct $name(pub u32);

        impl $name {
            /// As an index into a slice of this row's kind.
            #[inline]
            pub const fn index(self) -> usize {
                self.0 as usize
            }

            /// `None` for [`NONE`].
            #[inline]
            pub const fn some(self) -> Option<$name> {
                if self.0 == NONE { None } else { Some(self) }
            }
        }

        impl Default for $name {
            fn default() -> Self {
                $name(NONE)
            }
        }
    )*};
}

rows! {
    /// A file of the command line.
    FileRow
    /// A loaded object: a file or an archive's member.
    InputRow
    /// A section of an object, a pool of merged pieces, or a table that the linker makes.
    AtomRow
    /// A global name or a local label.
    SymbolRow
    /// A relocation of a placed atom.
    RelocRow
    /// A section of the image.
    SectionRow
    /// A frame description entry.
    FdeRow
    /// A common information entry.
    CieRow
    /// A jump left at an old slot.
    IslandRow
    /// A pool of merged strings or constants.
    PoolRow
}

/// What a relocation refers to: a symbol, or an atom by its section symbol. The top bit tells which.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(transparent)]
pub struct Target(pub u32);

/// [`Target`] taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TargetKind {
    /// Nothing that has an address.
    None,
    /// A symbol's value.
    Symbol(SymbolRow),
    /// The start of an atom; the offset is in the addend.
    Atom(AtomRow),
}

impl Target {
    const ATOM: u32 = 1 << 31;
    /// Refers to nothing.
    pub const NONE: Target = Target(NONE);

    /// Refers to a symbol.
    #[inline]
    pub const fn symbol(row: SymbolRow) -> Target {
        Target(row.0)
    }

    /// Refers to an atom.
    #[inline]
    pub const fn atom(row: AtomRow) -> Target {
        Target(row.0 | Target::ATOM)
    }

    /// Which of the two.
    #[inline]
    pub const fn kind(self) -> TargetKind {
        if self.0 == NONE {
            TargetKind::None
        } else if self.0 & Target::ATOM != 0 {
            TargetKind::Atom(AtomRow(self.0 & !Target::ATOM))
        } else {
            TargetKind::Symbol(SymbolRow(self.0))
        }
    }
}

impl Default for Target {
    fn default() -> Self {
        Target::NONE
    }
}

/// A run of rows: `start .. start + len`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Span {
    /// First row.
    pub start: u32,
    /// Number of rows.
    pub len: u32,
}

impl Span {
    /// A run of `len` rows from `start`.
    pub const fn new(start: u32, len: u32) -> Span {
        Span { start, len }
    }

    /// The rows.
    pub const fn range(self) -> std::ops::Range<u32> {
        self.start..self.start.saturating_add(self.len)
    }

    /// The rows of this run and of another one.
    pub fn and(self, more: Span) -> impl Iterator<Item = u32> + Clone {
        self.range().chain(more.range())
    }

    /// The rows as slice indexes.
    pub const fn indexes(self) -> std::ops::Range<usize> {
        self.start as usize..self.start as usize + self.len as usize
    }
}
