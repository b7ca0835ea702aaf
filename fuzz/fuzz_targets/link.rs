//! An object as an edit of a program: see `relink_tests::fuzz`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| relink_tests::fuzz::judge("link")(data));
