//! A linker script that names inputs.
#![no_main]

use libfuzzer_sys::fuzz_target;
use relink_formats::script;

fuzz_target!(|data: &[u8]| {
    script::looks_like_script(data);
    let _ = script::parse(data);
});
