//! Tables that the dynamic loader reads, from plain values to bytes.
//!
//! Each table has a size that follows from counts alone, so that addresses can be handed out before a byte is
//! encoded. Names are offsets into `.dynstr` by then: whoever builds the string table owns them.

pub mod hash;
pub mod plt;
pub mod versions;
