//! Which trace a request is part of (W3C Trace Context): its client's, or a new one where spans are collected. Where they are
//! not, nobody would know of a new one, and applications that follow their parent would record nothing of it.
//!
//! Pure. A trace that a client says is gone on with, whoever the client is: its id says nothing that anybody relies on, and a
//! trace may begin in a browser. What is no `traceparent` by the letter is none.

/// A trace, and the span of it that a request comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Trace {
    pub(crate) id: u128,
    /// Who asks: a client's span, or ours.
    pub(crate) parent: u64,
    flags: u8,
}

/// The field that says a trace, and where in it somebody asks.
pub(crate) const PARENT_FIELD: &str = "traceparent";
/// The field that says more of it; without the other one, it says nothing.
pub(crate) const STATE_FIELD: &str = "tracestate";

/// What a request is part of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// Of nothing that anybody knows.
    Nothing,
    /// Of its client's trace, which goes on as it came.
    Clients(Trace),
    /// Of its client's trace, with a span of ours; and whose span asked for that.
    Within(Trace, u64),
    /// Of a trace that begins here, and is recorded if it is sampled. Whoever is behind gets to know either: the head of a trace
    /// decides for all of it.
    New(Trace),
}

impl Part {
    pub(crate) fn trace(&self) -> Option<&Trace> {
        match self {
            Self::Nothing => None,
            Self::Clients(trace) | Self::Within(trace, _) | Self::New(trace) => Some(trace),
        }
    }

    /// The value of the field that an instance gets, where it is not the client's.
    pub(crate) fn said_here(&self) -> Option<[u8; BYTES]> {
        match self {
            Self::Nothing | Self::Clients(_) => None,
            Self::Within(trace, _) | Self::New(trace) => Some(trace.value()),
        }
    }

    /// Whether the client's field is passed on.
    pub(crate) fn keeps_parent(&self) -> bool {
        matches!(self, Self::Clients(_))
    }

    /// Whether what the client says beside is passed on.
    pub(crate) fn keeps_state(&self) -> bool {
        matches!(self, Self::Clients(_) | Self::Within(..))
    }
}

/// The only flag that is passed on.
const SAMPLED: u8 = 1;
/// Of a value of version 00.
pub(crate) const BYTES: usize = 55;

impl Trace {
    /// A new trace that somebody collects, with made-up numbers, which zero is not allowed to be.
    pub(crate) fn begin((high, low): (u64, u64), span: u64) -> Self {
        let id = (u128::from(high) << 64 | u128::from(low)).max(1);
        Self { id, parent: span.max(1), flags: SAMPLED }
    }

    /// Reads a field's value. Of a later version what is known of it counts (section 3.2.4 of the recommendation).
    pub(crate) fn parse(value: &[u8]) -> Option<Self> {
        let known = match value.get(..2)? {
            b"ff" => return None,
            b"00" => Some(value).filter(|value| value.len() == BYTES)?,
            _ => value.get(..BYTES).filter(|_| matches!(value.get(BYTES), None | Some(b'-')))?,
        };
        let dashes = [2, 35, 52].iter().all(|&at| known[at] == b'-');
        let (_, id, parent) = (hex(&known[..2])?, hex(&known[3..35])?, hex(&known[36..52])?);
        let flags = u8::try_from(hex(&known[53..])?).ok()?;
        let sound = dashes && id != 0 && parent != 0;
        sound.then_some(Self { id, parent: u64::try_from(parent).ok()?, flags: flags & SAMPLED })
    }

    /// The same trace, which nobody records.
    pub(crate) fn unsampled(self) -> Self {
        Self { flags: self.flags & !SAMPLED, ..self }
    }

    /// The same trace, from this span of it.
    pub(crate) fn at_span(self, span: u64) -> Self {
        Self { parent: span.max(1), ..self }
    }

    pub(crate) fn is_sampled(&self) -> bool {
        self.flags & SAMPLED != 0
    }

    /// The field's value; all of it is visible ASCII.
    pub(crate) fn value(&self) -> [u8; BYTES] {
        let mut value = *b"00-00000000000000000000000000000000-0000000000000000-00";
        write_hex(self.id.to_be_bytes(), &mut value[3..35]);
        write_hex(self.parent.to_be_bytes(), &mut value[36..52]);
        write_hex([self.flags], &mut value[53..]);
        value
    }

    /// The trace alone, as records have it.
    pub(crate) fn id_text(&self) -> String {
        let mut text = [0; 32];
        write_hex(self.id.to_be_bytes(), &mut text);
        String::from_utf8_lossy(&text).into_owned()
    }
}

/// Writes numbers in hexadecimal: each request needs some, and `fmt` would take a microsecond for them.
fn write_hex<const N: usize>(number: [u8; N], to: &mut [u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for (byte, pair) in number.iter().zip(to.chunks_exact_mut(2)) {
        pair[0] = DIGITS[usize::from(byte >> 4)];
        pair[1] = DIGITS[usize::from(byte & 15)];
    }
}

/// Lower-case digits only, as the recommendation has them.
fn hex(text: &[u8]) -> Option<u128> {
    text.iter().try_fold(0, |number: u128, byte| {
        let digit = match byte {
            b'0'..=b'9' => byte - b'0',
            b'a'..=b'f' => byte - b'a' + 10,
            _ => return None,
        };
        Some(number << 4 | u128::from(digit))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn of(value: &str) -> Option<String> {
        Trace::parse(value.as_bytes()).map(|trace| String::from_utf8_lossy(&trace.value()).into_owned())
    }

    #[test]
    fn a_trace_is_written_as_it_was_read() {
        assert_eq!(of(GOOD).as_deref(), Some(GOOD));
        assert_eq!(of(&GOOD.replace("-01", "-00")), Some(GOOD.replace("-01", "-00")));
        assert_eq!(of(&GOOD.replace("-01", "-ff")).as_deref(), Some(GOOD), "of the flags one is known");
    }

    #[test]
    fn a_later_version_is_read_as_far_as_it_is_known() {
        assert_eq!(of(&GOOD.replacen("00", "cc", 1)).as_deref(), Some(GOOD));
        assert_eq!(of(&format!("{}-more", GOOD.replacen("00", "01", 1))).as_deref(), Some(GOOD));
        assert_eq!(of(&format!("{}more", GOOD.replacen("00", "01", 1))), None);
    }

    #[test]
    fn what_is_no_traceparent_is_none() {
        let cases = [
            String::new(),
            "00".to_owned(),
            GOOD[..54].to_owned(),
            format!("{GOOD}-"),
            format!("{GOOD} "),
            GOOD.to_uppercase(),
            GOOD.replacen("00", "ff", 1),
            GOOD.replace('-', "_"),
            GOOD.replace('4', "g"),
            GOOD.replace("4bf92f3577b34da6a3ce929d0e0e4736", &"0".repeat(32)),
            GOOD.replace("00f067aa0ba902b7", &"0".repeat(16)),
            GOOD.replace("4bf9", "+bf9"),
            format!("{GOOD},{GOOD}"),
        ];
        for bad in cases {
            assert_eq!(of(&bad), None, "{bad:?}");
        }
    }

    #[test]
    fn a_new_trace_is_a_sound_one() {
        for number in [0, 7] {
            let trace = Trace::begin((number, number), number);
            assert_eq!(Trace::parse(&trace.value()), Some(trace));
            assert_eq!(trace.id_text(), format!("{:032x}", trace.id));
            assert!(trace.is_sampled() && !trace.unsampled().is_sampled());
            assert!(trace.unsampled().value().ends_with(b"-00"));
        }
    }
}
