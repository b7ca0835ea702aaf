//! Tables that the dynamic loader reads, from plain values to bytes.
//!
//! Sizes follow from counts alone, so that addresses can be handed out before a byte is encoded; but for
//! [`relr`], where they depend on the addresses. Names are offsets into `.dynstr`: whoever builds the string
//! table owns them.

pub mod hash;
pub mod plt;
pub mod relr;
pub mod versions;
