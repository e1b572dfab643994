//! Single values of the file, read as the command line reads them.

use std::num::NonZeroUsize;
use std::str::FromStr;
use std::time::Duration;

use dormouse_proxy::{Address, Network};
use serde::Deserialize;

use super::{NAME_MAX_BYTES, STREAMS_MAX};
use crate::otlp::Sample;
use crate::{cli, plain};

/// `10s`.
#[derive(Deserialize)]
#[serde(try_from = "String")]
pub(super) struct Time(pub(super) Duration);

/// `64k`: bytes.
#[derive(Deserialize)]
#[serde(try_from = "String")]
pub(super) struct Size(pub(super) u64);

/// A number of threads.
#[derive(Deserialize)]
#[serde(try_from = "i64")]
pub(super) struct Workers(pub(super) NonZeroUsize);

/// Streams of a connection.
#[derive(Deserialize)]
#[serde(try_from = "i64")]
pub(super) struct Streams(pub(super) u32);

/// A listener's name.
#[derive(Deserialize)]
#[serde(try_from = "String")]
pub(super) struct Name(pub(super) String);

/// A listener's address.
#[derive(Deserialize)]
#[serde(try_from = "String")]
pub(super) struct At(pub(super) Address);

/// What an edge or a region is called.
#[derive(Deserialize)]
#[serde(try_from = "String")]
pub(super) struct Called(pub(super) String);

/// What the argument of that name would take.
#[derive(Deserialize)]
#[serde(try_from = "String", bound = "T: FromStr<Err = String>")]
pub(super) struct Said<T>(pub(super) T);

/// A share of traces, as a number.
#[derive(Deserialize)]
#[serde(try_from = "f64")]
pub(super) struct Ratio(pub(super) Sample);

/// A network of proxies.
#[derive(Deserialize)]
#[serde(try_from = "String")]
pub(super) struct Proxies(pub(super) Network);

/// What was given, and why it is not taken.
fn told(text: &str, why: impl std::fmt::Display) -> String {
    format!("\"{}\": {why}", plain::value(text))
}

impl TryFrom<f64> for Ratio {
    type Error = String;

    fn try_from(ratio: f64) -> Result<Self, String> {
        Sample::try_from(ratio).map(Self).map_err(|why| told(&ratio.to_string(), why))
    }
}

impl TryFrom<String> for Time {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        cli::duration(&text).map(Self).map_err(|why| told(&text, why))
    }
}

impl TryFrom<String> for Size {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        cli::memory(&text).map(Self).map_err(|why| told(&text, why))
    }
}

impl TryFrom<i64> for Workers {
    type Error = String;

    fn try_from(number: i64) -> Result<Self, String> {
        cli::workers(&number.to_string()).map(Self).map_err(|why| told(&number.to_string(), why))
    }
}

impl TryFrom<i64> for Streams {
    type Error = String;

    fn try_from(number: i64) -> Result<Self, String> {
        let some = u32::try_from(number).ok().filter(|streams| (1..=STREAMS_MAX).contains(streams));
        some.map(Self).ok_or_else(|| format!("{number}: streams are a number from 1 to {STREAMS_MAX}"))
    }
}

impl TryFrom<String> for Name {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let rest = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        let is_name = text.as_bytes().first().is_some_and(u8::is_ascii_lowercase) && text.bytes().all(rest);
        if !is_name || text.len() > NAME_MAX_BYTES || text == "admin" {
            let why = format!(
                "a listener's name has a-z, 0-9 and -, begins with a letter, has at most {NAME_MAX_BYTES}, and is not admin"
            );
            return Err(told(&text, why));
        }
        Ok(Self(text))
    }
}

impl TryFrom<String> for At {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse().map(Self).map_err(|why| told(&text, why))
    }
}

impl TryFrom<String> for Called {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        cli::called(&text).map(Self).map_err(|why| told(&text, why))
    }
}

impl<T: FromStr<Err = String>> TryFrom<String> for Said<T> {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse().map(Self).map_err(|why: String| told(&text, why))
    }
}

impl TryFrom<String> for Proxies {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse().map(Self).map_err(|why| told(&text, why))
    }
}
