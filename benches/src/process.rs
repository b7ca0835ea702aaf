//! Whole processes: what a link started by a build tool costs, from start to exit, beside other linkers and beside the
//! least that any program must do for it. The bin `process` prints it.

pub mod corpus;
pub mod floor;
pub mod measure;
pub mod table;
