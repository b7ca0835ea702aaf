//! The data of the linker: columns, store, components, frame, policies, reports. The work is in `relink-systems`.
//!
//! The store is the truth: frozen columns that describe a whole link, opened without being rebuilt. The world
//! holds only what a frame touches. A cold frame works on a [`program::Program`], whose rows the store freezes.

pub mod blocks;
pub mod column;
pub mod components;
pub mod diagnostic;
pub mod frame;
pub mod image;
pub mod input;
pub mod options;
pub mod plan;
pub mod policy;
pub mod program;
pub mod records;
pub mod report;
pub mod rows;
pub mod sound;
pub mod store;
pub mod texts;
