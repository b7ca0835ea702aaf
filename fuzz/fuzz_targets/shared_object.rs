//! A shared library: see `relink_tests::fuzz`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| relink_tests::fuzz::judge("shared_object")(data));
