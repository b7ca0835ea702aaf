//! The whole-system tests: one binary, a module for each claim.

mod acceptance;
mod acceptance_ld;
#[cfg(feature = "group")]
mod group;
mod plumbing;
