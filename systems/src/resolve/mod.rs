//! Resolve: names to definitions, over the whole program.

pub(crate) mod assign;
pub(crate) mod bind;
pub(crate) mod comdat;
pub(crate) mod definitions;
pub(crate) mod dynamic;
pub(crate) mod imports;
mod lacking;
pub(crate) mod liveness;
pub(crate) mod merge;
pub(crate) mod scan;
pub(crate) mod undefined;
pub(crate) mod unwind;
