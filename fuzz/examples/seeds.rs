//! `seeds`: writes first inputs for the targets into `corpus/`, where cargo-fuzz looks for them.

use std::error::Error;
use std::path::Path;

use relink_fuzz::{archive, start, work};

fn main() -> Result<(), Box<dyn Error>> {
    let (start, work, edited, grown) = (start(), work(1, 0), work(2, 0), work(3, 200));
    let library = archive(&[("start.o", &start, "_start"), ("work.o", &work, "first")]);
    let script = b"/* GNU ld script */ OUTPUT_FORMAT(elf64-x86-64)\nGROUP ( /lib/libc.so.6 -lm AS_NEEDED ( \"a b.so\" ) )";
    let object = relink_formats::object_file::ObjectFile::parse(work.clone().into())?;
    let unwind = (0..object.sections.len()).find(|&index| object.section_name(index) == b".eh_frame");
    let unwind = object.section_bytes(unwind.ok_or("the object has unwind tables")?);
    let compiled = compiled().unwrap_or_default();
    for (target, seeds) in [
        ("object", vec![&start[..], &work, &compiled]),
        ("link", vec![&work[..], &edited, &grown]),
        ("archive", vec![&library[..]]),
        ("script", vec![&script[..], b"INPUT(libx.a, -l:y.a) SEARCH_DIR(/lib) ENTRY(_start)"]),
        ("eh_frame", vec![unwind]),
        ("state", vec![&[0; 1][..], &[0, 1, 2, 3, 4, 5, 6, 7], &[3, 80, 0, 0, 1, 0, 0, 0]]),
    ] {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
        std::fs::create_dir_all(&dir)?;
        for (number, seed) in seeds.into_iter().enumerate() {
            std::fs::write(dir.join(format!("seed-{number}")), seed)?;
        }
    }
    Ok(())
}

/// An object with debug information, if there is a C compiler.
fn compiled() -> Option<Vec<u8>> {
    let dir = std::env::temp_dir().join(format!("relink-seeds-{}", std::process::id()));
    std::fs::create_dir_all(&dir).ok()?;
    let (source, object) = (dir.join("a.c"), dir.join("a.o"));
    std::fs::write(&source, "extern int g; int f(int x) { return x * g; }\n").ok()?;
    let made =
        std::process::Command::new("gcc").args(["-g", "-c"]).arg(&source).arg("-o").arg(&object).status();
    let bytes = made.ok().filter(|status| status.success()).and_then(|_| std::fs::read(&object).ok());
    std::fs::remove_dir_all(&dir).ok()?;
    bytes
}
