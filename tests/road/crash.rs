//! `kill -9` at every point, and at any moment: what is left is a state to go on from, and within a short time all is in order.

mod git;
mod order;
mod random;
#[cfg(feature = "crash-points")]
mod walk;

/// How often: as a variable says, for the long form, or as usual.
#[expect(clippy::disallowed_methods, reason = "how long a test takes is not the program's configuration")]
pub(crate) fn times(variable: &str, usual: u32) -> u32 {
    std::env::var(variable).ok().map_or(usual, |text| text.parse().expect("a number"))
}
