//! `relink` and `ld.relink`; everything is in the library.

fn main() {
    std::process::exit(relink_cli::run());
}
