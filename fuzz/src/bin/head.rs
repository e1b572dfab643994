//! See `dormouse_proxy::fuzzing::head`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| dormouse_proxy::fuzzing::head(data));
