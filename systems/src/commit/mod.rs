//! Commit: the image and the store become those of this frame, or stay those of the last one.

pub(crate) mod bulk;
pub(crate) mod changed;
