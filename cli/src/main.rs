//! `relink` and `ld.relink`; everything is in the library.

use relink_cli::arena::Arena;

#[global_allocator]
static ARENA: Arena = Arena::closed();

fn main() {
    ARENA.open();
    std::process::exit(relink_cli::run());
}
