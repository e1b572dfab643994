//! Passwords and their hashes: made for whoever sets one, verified by `checks::basic`. No password is kept, shown or logged.

use argon2::{Argon2, PasswordHasher, PasswordVerifier};

/// Random bytes of a new hash.
const SALT_BYTES: usize = 16;

/// The longest password that bcrypt takes, in bytes.
const BCRYPT_MAX_BYTES: usize = 72;

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

/// Whether a hash is of this password. Takes tens of milliseconds, or hundreds: as long for any wrong one.
pub(crate) fn is_of(hash: &str, password: &[u8]) -> bool {
    if hash.starts_with("$2") {
        verify_bcrypt(hash, password) == Bcrypt::Right
    } else {
        Argon2::default().verify_password(password, hash).is_ok()
    }
}

/// What bcrypt says to a password.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Bcrypt {
    Right,
    /// Of what bcrypt looked at. Something else came behind that, so it is no password: it would be as good as any other with the
    /// same begin.
    Begin,
    Wrong,
}

/// bcrypt looks at so many bytes, and at none behind a NUL. What has more is verified all the same: an answer at once would tell
/// that there is such a user.
fn verify_bcrypt(hash: &str, password: &[u8]) -> Bcrypt {
    let looked_at = password.split(|&byte| byte == 0).next().unwrap_or_default();
    let looked_at = &looked_at[..looked_at.len().min(BCRYPT_MAX_BYTES)];
    let is_whole = looked_at.len() == password.len();
    match bcrypt::verify(looked_at, hash) {
        Ok(true) if is_whole => Bcrypt::Right,
        Ok(true) => Bcrypt::Begin,
        Ok(false) | Err(_) => Bcrypt::Wrong,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of `open sesame`, by `htpasswd -nbB -C 4` and `-nbB` of Apache 2.4.71 (apache2-utils), and glibc's crypt.
    const BCRYPT: [&str; 4] = [
        "$2y$04$B8enEERhXcqmf5HFVlroEOKEtljYhviXvSk5XletPFQKFbO4z6gqu",
        "$2y$05$.HTqP3KisWiZC1zBv4bxnOGr5k9HAiMDU8kmr4Z2Sifk.kpwUyviy",
        "$2b$04$abcdefghijklmnopqrstuu/LVz6MZlItEy42I2juLihZ66HnQx/cy",
        "$2a$04$abcdefghijklmnopqrstuu/LVz6MZlItEy42I2juLihZ66HnQx/cy",
    ];
    /// Of 72 and of 73 times `x`, by `htpasswd -nbB -C 4`.
    const OF_72: &str = "$2y$04$DXsjTeAAkmphtANHgus1Gu09qKB/EsQdC39rka/13AL1AGz8nzkyC";
    const OF_73: &str = "$2y$04$nDiazmhV7qXaaqkZb1sc0OHbYpM9uECs3ErChozJ0GyfRcAEWEU4q";

    #[test]
    fn a_hash_by_htpasswd_is_of_its_password_alone() {
        for hash in BCRYPT {
            assert!(is_of(hash, b"open sesame"), "{hash}");
            for wrong in [&b""[..], b"open sesam", b"open sesame ", b"open sesame\0", b"open sesame\0x", b"Open sesame"]
            {
                assert!(!is_of(hash, wrong), "{hash} {wrong:?}");
            }
        }
        for bad in ["$2", "$2y$04$", "$2y$04$\u{e9}", &BCRYPT[0][..59]] {
            assert!(!is_of(bad, b"open sesame"), "{bad}");
        }
    }

    #[test]
    fn a_password_that_bcrypt_would_cut_off_is_none() {
        let x = [b'x'; 100];
        assert!(is_of(OF_72, &x[..72]));
        for length in [71, 73, 100] {
            assert!(!is_of(OF_72, &x[..length]), "{length}");
        }
        assert!(!is_of(OF_73, &x[..73]), "nobody knows what was behind");
    }

    /// Only whoever asked bcrypt can tell these apart.
    #[test]
    fn a_password_that_is_too_long_or_has_a_nul_is_verified_like_any_other_before_it_is_refused() {
        let (x, y) = ([b'x'; 100], [b'y'; 100]);
        assert_eq!(verify_bcrypt(OF_72, &x[..72]), Bcrypt::Right);
        for length in [73, 100] {
            assert_eq!(verify_bcrypt(OF_72, &x[..length]), Bcrypt::Begin, "{length}");
            assert_eq!(verify_bcrypt(OF_72, &y[..length]), Bcrypt::Wrong, "{length}");
        }
        assert_eq!(verify_bcrypt(BCRYPT[0], b"open sesame\0"), Bcrypt::Begin);
        assert_eq!(verify_bcrypt(BCRYPT[0], b"open\0sesame"), Bcrypt::Wrong);
    }

    #[test]
    fn a_hash_is_of_its_password_alone_and_never_the_same() {
        let (one, other) = (hash("right").expect("randomness"), hash("right").expect("randomness"));
        assert_ne!(one, other);
        assert!(one.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{one}");
        assert!(is_of(&one, b"right") && is_of(&other, b"right"));
        assert!(!is_of(&one, b"wrong") && !is_of(&one, b"") && !is_of("", b""));
    }
}
