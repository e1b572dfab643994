//! See `dormouse_proxy::fuzzing::websocket`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| dormouse_proxy::fuzzing::websocket(data));
