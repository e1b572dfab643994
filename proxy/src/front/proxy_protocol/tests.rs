use std::pin::pin;
use std::task::{Context, Poll, Waker};

use proptest::prelude::*;
use tokio::io::AsyncWriteExt;

use super::*;

fn client(address: &str, port: u16) -> Source {
    Source::Client { address: address.parse().expect("an address"), port }
}

fn v2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
    let length = u16::try_from(rest.len()).expect("short").to_be_bytes();
    [V2_BEGIN, &[command, family], &length, rest].concat()
}

fn v4(tail: &[u8]) -> Vec<u8> {
    v2(0x21, 0x11, &[&[192, 0, 2, 7, 10, 0, 0, 1, 0x30, 0x39, 0x01, 0xbb], tail].concat())
}

fn v6(family: u8) -> Vec<u8> {
    let mut rest = [0; 36];
    rest[..4].copy_from_slice(&[0x20, 0x01, 0x0d, 0xb8]);
    rest[15] = 9;
    rest[34..].copy_from_slice(&443u16.to_be_bytes());
    v2(0x21, family, &rest)
}

/// Every kind of header that is taken.
fn whole() -> Vec<(Vec<u8>, Source)> {
    let longest = format!("PROXY UNKNOWN {}\r\n", "f".repeat(V1_MAX_BYTES - 16));
    vec![
        (b"PROXY TCP4 192.0.2.7 10.0.0.1 12345 443\r\n".to_vec(), client("192.0.2.7", 443)),
        (b"PROXY TCP4 1.1.1.1 1.1.1.1 0 1\r\n".to_vec(), client("1.1.1.1", 1)),
        (b"PROXY TCP6 2001:db8::9 ::1 65535 443\r\n".to_vec(), client("2001:db8::9", 443)),
        (b"PROXY TCP6 ::ffff:192.0.2.7 ::1 1 80\r\n".to_vec(), client("192.0.2.7", 80)),
        (b"PROXY UNKNOWN\r\n".to_vec(), Source::Socket),
        (longest.into_bytes(), Source::Socket),
        (v4(&[]), client("192.0.2.7", 443)),
        (v4(&[0x04, 0, 3, 1, 2, 3]), client("192.0.2.7", 443)),
        (v4(&[0xff; 508]), client("192.0.2.7", 443)),
        (v6(0x21), client("2001:db8::9", 443)),
        (v6(0x22), client("2001:db8::9", 443)),
        (v2(0x21, 0x31, &[b'/'; 216]), Source::Nameless),
        (v2(0x20, 0x00, &[]), Source::Socket),
        (v2(0x20, 0x11, &[1; 3]), Source::Socket),
        (v2(0x21, 0x00, &[7; 20]), Source::Socket),
    ]
}

#[test]
fn a_header_is_whole_with_its_last_byte_and_not_before() {
    for (header, source) in whole() {
        let followed = [&header[..], b"\x16\x03\r\nPROXY GET / HTTP/1.1\r\n"].concat();
        assert_eq!(look(&followed), Ok(Look::Whole { bytes: header.len(), source }), "{header:?}");
        for split in 0..header.len() {
            let Ok(Look::Partial { missing }) = look(&header[..split]) else { panic!("{header:?} at {split}") };
            assert!(missing > 0 && split + missing <= header.len(), "{header:?} at {split}: {missing}");
        }
    }
}

#[tokio::test]
async fn a_header_split_at_every_byte_is_read_and_nothing_after_it() {
    for (header, source) in whole() {
        for split in 0..=header.len() {
            let (mut ours, mut theirs) = tokio::io::duplex(2048);
            let after = async {
                let mut reading = pin!(read(&mut ours));
                theirs.write_all(&header[..split]).await.expect("room");
                let early = reading.as_mut().poll(&mut Context::from_waker(Waker::noop()));
                assert_eq!(early.is_ready(), split == header.len(), "{header:?} at {split}");
                theirs.write_all(&header[split..]).await.expect("room");
                theirs.write_all(b"next").await.expect("room");
                let read = if let Poll::Ready(read) = early { read } else { reading.await };
                assert_eq!(read, Ok(source), "{header:?} at {split}");
            };
            after.await;
            drop(theirs);
            let mut rest = String::new();
            ours.read_to_string(&mut rest).await.expect("text");
            assert_eq!(rest, "next", "{header:?} at {split}");
        }
    }
}

#[test]
fn what_is_no_header_is_refused_as_soon_as_it_shows() {
    use HeaderError::{Absent, Malformed, TooLong};
    let mut cases: Vec<(Vec<u8>, HeaderError)> = vec![
        (b"G".to_vec(), Absent),
        (b"PROXX".to_vec(), Absent),
        (b"proxy TCP4 ".to_vec(), Absent),
        (b"\r\n\r\n\0\r\nQUIX".to_vec(), Absent),
        (b"\r\nG".to_vec(), Absent),
        (format!("PROXY UNKNOWN {}", "f".repeat(V1_MAX_BYTES - 15)).into_bytes(), TooLong),
        (format!("PROXY UNKNOWN {}\r", "f".repeat(V1_MAX_BYTES - 15)).into_bytes(), TooLong),
        (v4(&[0; 509]), TooLong),
        (v2(0x20, 0x00, &[0; 521]), TooLong),
        (v2(0x21, 0x11, &[0; 11]), Malformed),
        (v2(0x21, 0x21, &[0; 35]), Malformed),
        (v2(0x21, 0x31, &[0; 215]), Malformed),
    ];
    for (command, family) in [(0x22, 0x11), (0x11, 0x11), (0x2f, 0x11), (0x21, 0x13), (0x21, 0x41), (0x21, 0xff)] {
        cases.push((v2(command, family, &[0; 216]), Malformed));
    }
    for line in [
        "TCP4 1.1.1.1 1.1.1.1 1 1\n",
        "TCP4 1.1.1.1 1.1.1.1 1 1\rX",
        "TCP4 1.1.1.1 1.1.1.1 1\r\n",
        "TCP4 1.1.1.1 1.1.1.1 1 1 1\r\n",
        "TCP4 1.1.1.1  1.1.1.1 1 1\r\n",
        "TCP4\t1.1.1.1 1.1.1.1 1 1\r\n",
        "TCP4 01.1.1.1 1.1.1.1 1 1\r\n",
        "TCP4 1.1.1 1.1.1.1 1 1\r\n",
        "TCP4 ::1 ::1 1 1\r\n",
        "TCP6 1.1.1.1 1.1.1.1 1 1\r\n",
        "TCP4 1.1.1.1 1.1.1.1 65536 1\r\n",
        "TCP4 1.1.1.1 1.1.1.1 1 65536\r\n",
        "TCP4 1.1.1.1 1.1.1.1 01 1\r\n",
        "TCP4 1.1.1.1 1.1.1.1 +1 1\r\n",
        "TCP4 1.1.1.1 1.1.1.1 1 \r\n",
        "TCP5 1.1.1.1 1.1.1.1 1 1\r\n",
        "UNKNOWNX\r\n",
        "\r\n",
        "TCP4 1.1.1.1 1.1.1.\u{661} 1 1\r\n",
    ] {
        cases.push((format!("PROXY {line}").into_bytes(), Malformed));
    }
    for (bytes, error) in cases {
        assert_eq!(look(&bytes), Err(error), "{:?}", String::from_utf8_lossy(&bytes));
    }
}

/// Bytes that are like headers.
fn bytes() -> impl Strategy<Value = Vec<u8>> {
    let rest = || proptest::collection::vec(any::<u8>(), 0..600);
    let word = "(TCP4|TCP6|UNKNOWN|1\\.2\\.3\\.4|::1|[0-9]{1,6}| |\r|\n|\r\n)";
    let line =
        proptest::collection::vec(word, 0..14).prop_map(|words| format!("PROXY {}", words.concat()).into_bytes());
    let binary = (any::<[u8; 4]>(), rest()).prop_map(|(fixed, rest)| [V2_BEGIN, &fixed, &rest].concat());
    prop_oneof![rest(), line, binary]
}

proptest! {
    /// What is seen of a longer piece is never taken back, and a partial header never asks for a byte beyond its end.
    #[test]
    fn looking_again_with_more_bytes_agrees(bytes in bytes()) {
        let all = look(&bytes);
        for count in 0..bytes.len() {
            match look(&bytes[..count]) {
                Ok(Look::Partial { missing }) => {
                    prop_assert!(missing > 0);
                    if let Ok(Look::Whole { bytes: end, .. }) = all {
                        prop_assert!(count + missing <= end);
                    }
                }
                found => prop_assert_eq!(found, all),
            }
        }
        if let Ok(Look::Whole { bytes: end, .. }) = all {
            prop_assert!(end <= bytes.len() && end <= V2_MAX_BYTES);
        }
    }
}
