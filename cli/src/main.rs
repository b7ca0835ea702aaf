//! relink.
fn main() {}
