//! Numbers nobody can guess cheaply, for request ids and for choosing among endpoints; not for secrets.

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};

const DIGITS: &[u8; 16] = b"0123456789abcdef";
/// Of a request id: two to a byte.
const ID_DIGITS: usize = 2 * size_of::<u128>();

/// A keyed hash over a counter; each worker has its own.
#[derive(Debug, Default)]
pub(crate) struct Dice {
    key: RandomState,
    rolled: AtomicU64,
}

impl Dice {
    /// The next number.
    pub(crate) fn roll(&self) -> u64 {
        self.key.hash_one(self.rolled.fetch_add(1, Ordering::Relaxed))
    }

    /// A new request id.
    pub(crate) fn request_id(&self) -> String {
        let number = u128::from(self.roll()) << 64 | u128::from(self.roll());
        let mut digits = [0; ID_DIGITS];
        for (pair, byte) in digits.as_chunks_mut().0.iter_mut().zip(number.to_be_bytes()) {
            *pair = [byte >> 4, byte & 0xf].map(|digit| DIGITS[usize::from(digit)]);
        }
        std::str::from_utf8(&digits).unwrap_or_default().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn request_ids_differ() {
        let dice = Dice::default();
        let (first, second) = (dice.request_id(), dice.request_id());
        assert_ne!(first, second);
        assert_eq!(first.len(), ID_DIGITS);
        let digits: std::collections::HashSet<_> = (0..100).flat_map(|_| dice.request_id().into_bytes()).collect();
        assert_eq!(digits, DIGITS.iter().copied().collect());
    }
}
