//! Edits of a link's state: see `relink_tests::fuzz`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| relink_tests::fuzz::judge("state")(data));
