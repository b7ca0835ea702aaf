//! A version script or dynamic list: see `relink_tests::fuzz`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| relink_tests::fuzz::judge("version_script")(data));
