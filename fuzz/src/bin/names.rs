//! Hosts and names out of any bytes: what is taken has one spelling, and reads as itself.

#![no_main]

use dormouse_link::{HOST_MAX_BYTES, Host, LABEL_MAX_BYTES, Label, normalise_authority};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let mut buffer = [0; HOST_MAX_BYTES];
    if let Ok(host) = normalise_authority(bytes, &mut buffer) {
        assert!(!host.is_empty() && host.len() <= bytes.len());
        assert!(!host.bytes().any(|byte| byte.is_ascii_uppercase() || byte.is_ascii_whitespace() || byte == b'/'));
        let parsed: Host = host.parse().expect("a host reads as a host");
        assert_eq!(parsed.as_str(), host, "it has one spelling");
        let with_port = format!("{}:80", host.to_ascii_uppercase());
        if with_port.len() <= HOST_MAX_BYTES {
            assert_eq!(with_port.parse(), Ok(parsed), "neither case nor port matter");
        }
    }
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(label) = text.parse::<Label>() {
        assert_eq!(label.as_str(), text);
        assert!(text.len() <= LABEL_MAX_BYTES);
        let host: Host = format!("{label}.localhost").parse().expect("a label can stand in a host");
        assert_eq!(host.as_str(), format!("{label}.localhost"), "and is its own spelling there");
    }
});
