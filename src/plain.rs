//! Text that came from elsewhere, made harmless for a terminal: everything the program tells goes through here.

/// How much of one value of the command line is said back.
const VALUE_MAX_CHARS: usize = 200;

/// How much of a message is told: a path may have thousands of letters.
const MESSAGE_MAX_CHARS: usize = 1000;

/// A message of the program's own, with what it says of others made harmless, and cut where it is too long.
pub(crate) fn message(text: &str) -> String {
    match text.char_indices().nth(MESSAGE_MAX_CHARS) {
        Some((end, _)) => plain(&text[..end]) + "…",
        None => plain(text),
    }
}

/// A text that cannot do anything to a terminal; its lines stay lines.
pub(crate) fn plain(text: &str) -> String {
    text.chars().map(|letter| if is_harmless(letter) || letter == '\n' { letter } else { ' ' }).collect()
}

/// JSON that cannot do anything to a terminal, and is the same value: such letters are inside of its texts only, and are written as JSON's
/// numbers there.
pub(crate) fn json(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for letter in text.chars() {
        if is_harmless(letter) || letter == '\n' {
            shown.push(letter);
        } else {
            shown.extend(letter.encode_utf16(&mut [0; 2]).iter().map(|unit| format!("\\u{unit:04x}")));
        }
    }
    shown
}

/// A value as one line, not too long, with numbers for what would not be seen as it is.
pub(crate) fn value(text: &str) -> String {
    let mut shown = String::new();
    for (at, letter) in text.chars().enumerate() {
        if at == VALUE_MAX_CHARS {
            return shown + "…";
        }
        if is_harmless(letter) {
            shown.push(letter);
        } else {
            shown.extend(letter.escape_unicode());
        }
    }
    shown
}

/// Whether a letter is only itself: it moves no cursor, and turns no direction of writing.
fn is_harmless(letter: char) -> bool {
    let turns =
        matches!(letter, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    !letter.is_control() && !turns && !matches!(letter, '\u{2028}' | '\u{2029}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_from_elsewhere_cannot_move_the_cursor() {
        assert_eq!(plain("a\x1b[2Jb\rc\u{9b}d\u{202e}e\nf"), "a [2Jb c d e\nf");
    }

    #[test]
    fn a_value_is_one_line_that_is_not_too_long() {
        assert_eq!(value("a\x1b[2J\nhint: é"), "a\\u{1b}[2J\\u{a}hint: é");
        assert_eq!(value(&"x".repeat(1_000_000)), "x".repeat(VALUE_MAX_CHARS) + "…");
        assert_eq!(message(&"é".repeat(1_000_000)), "é".repeat(MESSAGE_MAX_CHARS) + "…");
    }
}
