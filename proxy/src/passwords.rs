//! Passwords and their hashes: made for whoever sets one, verified by `checks::basic`. No password is kept, shown or logged.

use argon2::{Argon2, PasswordHasher, PasswordVerifier};

/// Random bytes of a new hash.
const SALT_BYTES: usize = 16;

/// The operating system has no random bytes.
#[derive(Debug, thiserror::Error)]
#[error("the operating system gives no random bytes")]
pub struct NoRandomness;

/// A new hash of a password: Argon2id as text, at a cost that an edge bears (19 MiB, 2 passes).
pub fn hash(password: &str) -> Result<String, NoRandomness> {
    let mut salt = [0; SALT_BYTES];
    aws_lc_rs::rand::fill(&mut salt).map_err(|_| NoRandomness)?;
    let hash = Argon2::default().hash_password_with_salt(password.as_bytes(), &salt);
    Ok(hash.expect("passwords and this salt are not too long").to_string())
}

/// Whether a hash is of this password. Takes tens of milliseconds.
pub(crate) fn is_of(hash: &str, password: &[u8]) -> bool {
    Argon2::default().verify_password(password, hash).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_is_of_its_password_alone_and_never_the_same() {
        let (one, other) = (hash("right").expect("randomness"), hash("right").expect("randomness"));
        assert_ne!(one, other);
        assert!(one.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{one}");
        assert!(is_of(&one, b"right") && is_of(&other, b"right"));
        assert!(!is_of(&one, b"wrong") && !is_of(&one, b"") && !is_of("", b""));
    }
}
