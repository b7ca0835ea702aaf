//! `relink build-id FILE`: recomputed from the bytes of the file, compared with what its note says.

use std::fmt::Write;
use std::path::Path;

use relink::host::{self, SystemIo};

use super::ToolResult;
use crate::console;

pub(super) fn run(path: &Path) -> ToolResult {
    let file = host::read_file(&SystemIo, path).map_err(|error| error.to_string())?;
    let Some(check) = host::check_build_id(&file) else {
        return Err(format!("{}: has no build-id (link with --build-id)", path.display()));
    };
    if check.matches() {
        console::line(hex(&check.recorded));
        return Ok(0);
    }
    let computed = &check.digest[..check.recorded.len().min(check.digest.len())];
    Err(format!(
        "{}: its note says {}, its bytes give {}\n>>> changed after the link, made by another linker, or given a build-id by hand",
        path.display(),
        hex(&check.recorded),
        hex(computed)
    ))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
