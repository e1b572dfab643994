//! Errors in words: an error and what caused it, as one line.

/// `failed to …: because …: because …`.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut words = format!("failed to {error}");
    let mut cause = error.source();
    while let Some(error) = cause {
        words.push_str(": ");
        words.push_str(&error.to_string());
        cause = error.source();
    }
    words
}
