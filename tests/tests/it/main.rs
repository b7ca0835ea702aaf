//! The whole-system tests: one binary, a module for each claim.

mod acceptance;
mod acceptance_ld;
mod claims;
mod determinism;
mod dynamic;
mod dynamic_incremental;
mod dynamic_libraries;
mod errors;
mod features;
mod gates;
mod got;
mod group;
mod hostile;
mod identity;
mod lua_incremental;
mod oracle;
mod output_kinds;
mod plumbing;
mod publication;
mod real_programs;
mod rust;
mod shifts;
mod simulator;
mod tidy;
