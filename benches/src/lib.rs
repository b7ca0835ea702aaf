//! relink.
