//! Whether a text is certificates, as far as that can be told by its form: PEM, base64, and the skeleton of X.509 in DER. Edges read
//! what is in them. Used by `policy.access`.
//!
//! A text that was cut, or pasted in part, is found here, before anybody relies on it.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
const END: &str = "-----END CERTIFICATE-----";

/// Tags of DER.
const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;
const SEQUENCE: u8 = 0x30;
/// Of the version, which the oldest certificates have not.
const VERSION: u8 = 0xa0;

/// At least one certificate, each whole. What is beside them is for people.
pub(super) fn are_certificates(text: &str) -> bool {
    let mut lines = text.lines().map(str::trim_end);
    let mut any = false;
    while let Some(line) = lines.next() {
        if line == BEGIN {
            let body = until_end(&mut lines);
            if body.and_then(|body| is_certificate(&STANDARD.decode(body).ok()?)).is_none() {
                return false;
            }
            any = true;
        }
    }
    any
}

fn until_end<'t>(lines: &mut impl Iterator<Item = &'t str>) -> Option<String> {
    let mut body = String::new();
    loop {
        match lines.next()? {
            END => return Some(body),
            line => body.push_str(line),
        }
    }
}

/// `Certificate` of RFC 5280, section 4.1: what is to be signed, how, and the signature; of the first its parts up to the key.
fn is_certificate(der: &[u8]) -> Option<()> {
    let whole = only(der, SEQUENCE)?;
    let (signed, rest) = next(whole, SEQUENCE)?;
    let (_, rest) = next(rest, SEQUENCE)?;
    only(rest, BIT_STRING)?;
    let rest = next(signed, VERSION).map_or(signed, |(_, rest)| rest);
    let (_serial, mut rest) = next(rest, INTEGER)?;
    // The algorithm, the issuer, the time, the subject and the key.
    for _ in 0..5 {
        rest = next(rest, SEQUENCE)?.1;
    }
    Some(())
}

/// The content of a value of this kind, with nothing behind it.
fn only(der: &[u8], tag: u8) -> Option<&[u8]> {
    let (content, rest) = next(der, tag)?;
    rest.is_empty().then_some(content)
}

/// The content of a value of this kind, and what follows it.
fn next(der: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let [first, short, rest @ ..] = der else { return None };
    let (length, rest) = match (*short, rest) {
        (0..=0x7f, rest) => (usize::from(*short), rest),
        (0x81, [length, rest @ ..]) => (usize::from(*length), rest),
        (0x82, [high, low, rest @ ..]) => (usize::from(u16::from_be_bytes([*high, *low])), rest),
        _ => return None,
    };
    if *first == tag { rest.split_at_checked(length) } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By `openssl req -x509`.
    const CA: &str = include_str!("ca.pem");

    #[test]
    fn certificates_are_taken_one_or_several_and_with_words_beside_them() {
        for good in [
            CA.to_owned(),
            CA.repeat(3),
            CA.replace('\n', "\r\n"),
            CA.trim_end().to_owned(),
            format!("Subject: CN=a\n{CA}\n# the end\n"),
        ] {
            assert!(are_certificates(&good), "{good}");
        }
    }

    #[test]
    fn what_is_cut_or_changed_is_no_certificate() {
        let body: Vec<&str> = CA.lines().filter(|line| !line.starts_with('-')).collect();
        let of = |lines: &[&str]| format!("{BEGIN}\n{}\n{END}\n", lines.join("\n"));
        assert!(are_certificates(&of(&body)));
        for bad in [
            String::new(),
            "ca.pem".to_owned(),
            BEGIN.to_owned(),
            format!("{BEGIN}\n"),
            of(&[]),
            of(&["AAAA"]),
            of(&["MAMCAQA="]),
            CA.replace(END, ""),
            CA.replace(BEGIN, ""),
            CA.replace("CERTIFICATE", "PRIVATE KEY"),
            CA.replace('M', "_"),
            CA.replace('\n', ""),
            CA.replace('\n', "\\n"),
            format!("{CA}{BEGIN}\n"),
            format!("{}{CA}", of(&body[1..])),
            of(&[&body[..], &["AAAA"]].concat()),
        ] {
            assert!(!are_certificates(&bad), "{bad}");
        }
        for cut in 0..body.len() {
            assert!(!are_certificates(&of(&body[..cut])) && !are_certificates(&of(&body[cut + 1..])), "{cut}");
        }
    }

    #[test]
    fn no_beginning_of_a_certificate_is_one() {
        let body: String = CA.lines().filter(|line| !line.starts_with('-')).collect();
        let der = STANDARD.decode(body).expect("base64");
        assert_eq!(is_certificate(&der), Some(()));
        for end in 0..der.len() {
            assert_eq!(is_certificate(&der[..end]), None, "{end}");
        }
    }
}
