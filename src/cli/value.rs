//! What the words of the command line mean: names, times, sizes, variables, outputs. Parsed before anything is asked of anyone.

use std::num::NonZeroUsize;
use std::str::FromStr;
use std::time::Duration;

use dormouse_link::{Host, LABEL_MAX_BYTES};
use dormouse_proxy::Output;

/// The most worker threads of an edge.
const WORKERS_MAX: usize = 1024;

/// The longest zone: `APP-ENVIRONMENT.ZONE` must be a name that DNS can hold (253 characters).
const ZONE_MAX_BYTES: usize = 253 - 2 * (LABEL_MAX_BYTES + 1);

/// The longest label of a domain (RFC 1035).
const DOMAIN_LABEL_MAX_BYTES: usize = 63;

/// The longest name of an edge, a region or a user, in bytes.
const NAME_MAX_BYTES: usize = 63;

/// The longest name of a variable, in bytes.
const VARIABLE_NAME_MAX_BYTES: usize = 200;

/// The longest time a setting may have: a year.
const DURATION_MAX: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// When an idle environment falls asleep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SleepAfter {
    /// It stays awake.
    Never,
    /// After that long without a request.
    Idle(Duration),
}

impl FromStr for SleepAfter {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "never" { Ok(Self::Never) } else { duration(text).map(Self::Idle) }
    }
}

/// Whether something is to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Switch {
    /// It is.
    On,
    /// It is not.
    Off,
}

impl FromStr for Switch {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "on" => Ok(Self::On),
            "off" => Ok(Self::Off),
            _ => Err("give on or off".to_owned()),
        }
    }
}

/// Who has a password: what a browser can send as a name.
pub(super) fn user(text: &str) -> Result<String, String> {
    let plain = |byte: u8| matches!(byte, b' '..=b'~') && !matches!(byte, b'"' | b'\\' | b':');
    if (1..=NAME_MAX_BYTES).contains(&text.len()) && text.bytes().all(plain) {
        return Ok(text.to_owned());
    }
    Err(format!("a user is 1 to {NAME_MAX_BYTES} printable characters, without \", \\ and colon"))
}

/// A variable and the value it is to have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Variable {
    /// Its name.
    pub name: String,
    /// Its value, exactly as it was given.
    pub value: String,
}

impl FromStr for Variable {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, value) = text.split_once('=').ok_or("a variable is given as KEY=VALUE")?;
        Ok(Self { name: variable_name(name)?, value: value.to_owned() })
    }
}

pub(super) fn variable_name(name: &str) -> Result<String, String> {
    let rest = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    if name.bytes().next().is_none_or(|first| first.is_ascii_digit()) || !name.bytes().all(rest) {
        return Err("a variable's name has letters, digits and _, and begins with no digit".to_owned());
    }
    if name.len() > VARIABLE_NAME_MAX_BYTES {
        return Err(format!("a variable's name has at most {VARIABLE_NAME_MAX_BYTES} characters"));
    }
    Ok(name.to_owned())
}

/// Where access records go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AccessLog {
    /// Nowhere.
    Off,
    /// There.
    To(Output),
}

impl AccessLog {
    /// Where that is, if they are kept.
    pub fn output(self) -> Option<Output> {
        match self {
            Self::Off => None,
            Self::To(output) => Some(output),
        }
    }
}

impl FromStr for AccessLog {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "off" => Ok(Self::Off),
            _ => {
                text.parse().map(Self::To).map_err(|_| "give file:PATH, stdout, syslog, syslog:ADDR or off".to_owned())
            }
        }
    }
}

/// Where the log goes; stdout is for results.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogOutput {
    /// To stderr.
    Stderr,
    /// There.
    To(Output),
}

impl FromStr for LogOutput {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.parse() {
            _ if text == "stderr" => Ok(Self::Stderr),
            Ok(output) if output != Output::Stdout => Ok(Self::To(output)),
            _ => Err("give stderr, file:PATH, syslog or syslog:ADDR".to_owned()),
        }
    }
}

/// What an edge or a region is called.
pub(crate) fn called(text: &str) -> Result<String, String> {
    let sound = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    let begins = text.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric());
    if begins && text.len() <= NAME_MAX_BYTES && text.bytes().all(sound) {
        return Ok(text.to_owned());
    }
    Err(format!("give letters, digits, -, _ and ., at most {NAME_MAX_BYTES} of them, a letter or digit first"))
}

/// A number of threads.
pub(crate) fn workers(text: &str) -> Result<NonZeroUsize, String> {
    let wrong = || format!("workers are a number from 1 to {WORKERS_MAX}");
    text.parse().ok().filter(|workers: &NonZeroUsize| workers.get() <= WORKERS_MAX).ok_or_else(wrong)
}

/// A domain below which names can stand: no address, no port.
pub(super) fn zone(text: &str) -> Result<Host, String> {
    let zone: Host = text.parse().map_err(|error: dormouse_link::HostError| error.to_string())?;
    let label = |label: &str| {
        let edges = label.starts_with('-') || label.ends_with('-');
        !label.is_empty() && label.len() <= DOMAIN_LABEL_MAX_BYTES && !edges
    };
    let number = zone.as_str().rsplit('.').next().is_some_and(|last| last.bytes().all(|byte| byte.is_ascii_digit()));
    if zone.as_str().len() > ZONE_MAX_BYTES || text.contains(':') || number || !zone.as_str().split('.').all(label) {
        return Err(format!(
            "a zone is a domain like apps.example.com: no port, no address, at most {ZONE_MAX_BYTES} characters"
        ));
    }
    Ok(zone)
}

/// A whole number and its unit.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || "a time is a number and its unit: 500ms, 2s, 15m, 1h, 7d".to_owned();
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| wrong())?;
    let unit_ms = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err(wrong()),
    };
    let duration = Duration::from_millis(number.saturating_mul(unit_ms));
    if duration.is_zero() || duration > DURATION_MAX {
        return Err("a time is more than nothing and at most 365d".to_owned());
    }
    Ok(duration)
}

/// A whole number and its unit, in bytes.
pub(super) fn size(text: &str) -> Result<u64, String> {
    let wrong = || "a size is a number and its unit: 256m, 1g".to_owned();
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let unit: u64 = match unit {
        "k" => 1 << 10,
        "m" => 1 << 20,
        "g" => 1 << 30,
        _ => return Err(wrong()),
    };
    number.parse().ok().and_then(|number: u64| number.checked_mul(unit)).ok_or_else(wrong)
}

/// The same, but for nothing at all.
pub(crate) fn memory(text: &str) -> Result<u64, String> {
    size(text)?.checked_sub(1).map(|less| less + 1).ok_or_else(|| "a size is more than nothing".to_owned())
}

/// A number with up to three decimals, in thousandths.
pub(super) fn thousandths(text: &str) -> Result<u64, String> {
    let wrong = || "processors are a number with up to three decimals: 0.5, 2".to_owned();
    let (whole, part) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(whole) || !digits(part) || part.len() > 3 {
        return Err(wrong());
    }
    let part: u64 = format!("{part:0<3}").parse().map_err(|_| wrong())?;
    let whole: u64 = whole.parse().map_err(|_| wrong())?;
    whole.checked_mul(1000).and_then(|whole| whole.checked_add(part)).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_has_a_number_and_a_unit() {
        for (text, milliseconds) in [("500ms", 500), ("2s", 2_000), ("15m", 900_000), ("1h", 3_600_000)] {
            assert_eq!(duration(text), Ok(Duration::from_millis(milliseconds)), "{text}");
        }
        assert_eq!("7d".parse(), Ok(SleepAfter::Idle(Duration::from_secs(7 * 86_400))));
        assert_eq!("never".parse(), Ok(SleepAfter::Never));
        for bad in ["", "5", "s", "-1s", "1.5h", "1 h", "1w", "0s", "366d", "99999999999999999999s", "Never", "é"] {
            assert!(bad.parse::<SleepAfter>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_limit_is_a_plain_number_with_its_unit() {
        for (text, bytes) in [("16m", 16 << 20), ("1g", 1 << 30), ("1024k", 1 << 20)] {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        for bad in ["", "5", "m", "-1m", "1.5g", "1 g", "1M", "1mb", "99999999999g", "99999999999999999999g", "é"] {
            assert!(size(bad).is_err(), "{bad:?}");
        }
        for (text, milli) in [("2", 2000), ("0.5", 500), ("0.25", 250), ("1.125", 1125), ("0", 0), ("10.0", 10_000)] {
            assert_eq!(thousandths(text), Ok(milli), "{text}");
        }
        for bad in ["", ".", ".5", "1.", "-1", "+1", "0.1234", "1e3", "half", "1,5", "99999999999999999999", "é"] {
            assert!(thousandths(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_user_is_what_a_browser_can_send() {
        for good in ["ann", "Ann B.", "a@example.com", "-rf"] {
            assert_eq!(user(good).as_deref(), Ok(good));
        }
        for bad in ["", "a:b", "a\"", "a\\", "a\n", "é", &"x".repeat(64)] {
            assert!(user(bad).is_err(), "{bad:?}");
        }
        assert_eq!(("on".parse(), "off".parse()), (Ok(Switch::On), Ok(Switch::Off)));
        for bad in ["", "On", "yes", "1"] {
            assert!(bad.parse::<Switch>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_zone_is_a_domain_below_which_names_can_stand() {
        for good in ["localhost", "apps.example.com", "Example.Org.", &format!("{0}.{0}", "x".repeat(63))] {
            assert!(zone(good).is_ok(), "{good}");
        }
        let long = vec!["x".repeat(63); 3].join(".");
        for bad in ["", ".", "a:80", "127.0.0.1", "[::1]", "a..b", "-a", "a.b-", "a b", "é", &"x".repeat(64), &long] {
            assert!(zone(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn workers_are_some_but_not_countless() {
        assert_eq!((workers("1").map(NonZeroUsize::get), workers("1024").map(NonZeroUsize::get)), (Ok(1), Ok(1024)));
        for bad in ["", "0", "-1", "1025", "99999999999999999999", "many", "1.5"] {
            assert!(workers(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_variable_keeps_its_value_as_it_is() {
        let variable = |name: &str, value: &str| Variable { name: name.to_owned(), value: value.to_owned() };
        assert_eq!("A=b=c ".parse(), Ok(variable("A", "b=c ")));
        assert_eq!("_a1=".parse(), Ok(variable("_a1", "")));
        for bad in ["A", "=b", "1A=b", "A-B=c", "A B=c", "é=c"] {
            assert!(bad.parse::<Variable>().is_err(), "{bad:?}");
        }
    }
}
