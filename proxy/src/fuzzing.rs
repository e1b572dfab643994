//! For fuzzing, behind the feature of that name: what reads bytes from outside, one function for each target.
//!
//! Each takes any bytes, and panics only if a promise is broken.

use crate::front::proxy_protocol::{Look, look};

/// A PROXY protocol header is read alike in one piece and in two, and never taken to be longer than it is.
pub fn proxy_protocol(bytes: &[u8]) {
    let whole = look(bytes);
    if let Ok(Look::Whole { bytes: end, .. }) = whole {
        assert!(end <= bytes.len(), "the header ends beyond the bytes");
    }
    for count in 0..bytes.len().min(600) {
        match look(&bytes[..count]) {
            Ok(Look::Partial { missing }) => {
                assert!(missing > 0, "a partial header misses something");
                if let Ok(Look::Whole { bytes: end, .. }) = whole {
                    assert!(count + missing <= end, "more is asked for than belongs to the header");
                }
            }
            early => assert_eq!(early, whole, "more bytes changed what was seen"),
        }
    }
}
