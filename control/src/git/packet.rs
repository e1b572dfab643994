//! Git's packets (pkt-lines): four hexadecimal digits of length, then the data; `0000` ends a message. On a side band the first
//! byte of the data tells the band: 1 for the program, 2 for people, 3 for the last words.

use std::io;

use bytes::{BufMut, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};

/// The longest line shown, in bytes; the rest of it is cut. With its frame it fits one packet (at most 65520 bytes).
pub(super) const LINE_MAX_BYTES: usize = 16 << 10;

/// Ends a message.
pub(super) const FLUSH: Bytes = Bytes::from_static(b"0000");

/// An empty packet on band 1, which a client reads and forgets.
pub(super) const KEEP_ALIVE: Bytes = Bytes::from_static(b"0005\x01");

/// A packet, as it came.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Packet {
    /// `0000`.
    Flush,
    /// Anything else, its length in front.
    Data(Bytes),
}

impl Packet {
    /// Whether the packet is on a side band. Only a program that was asked for side bands begins its data so; every other
    /// answer of `receive-pack` begins with a letter.
    pub(super) fn on_a_band(&self) -> bool {
        matches!(self, Self::Data(data) if matches!(data.get(4), Some(1..=3)))
    }
}

/// Whether a packet, its length in front, is on the band for people.
pub(super) fn for_people(packet: &[u8]) -> bool {
    packet.get(4) == Some(&2)
}

/// The next packet, or `None` at the end.
pub(super) async fn read(from: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<Packet>> {
    let mut digits = [0; 4];
    if from.read(&mut digits[..1]).await? == 0 {
        return Ok(None);
    }
    from.read_exact(&mut digits[1..]).await?;
    let length = length(&digits).ok_or(io::ErrorKind::InvalidData)?;
    if length == 0 {
        return Ok(Some(Packet::Flush));
    }
    let mut data = BytesMut::with_capacity(length);
    data.put_slice(&digits);
    data.resize(length, 0);
    from.read_exact(&mut data[4..]).await?;
    Ok(Some(Packet::Data(data.freeze())))
}

/// How long a packet is, its four digits included; 0 for an end. `0001` and `0002` end parts of a message, and have no data.
pub(super) fn length(digits: &[u8]) -> Option<usize> {
    let text = std::str::from_utf8(digits).ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_hexdigit()))?;
    match usize::from_str_radix(text, 16).ok()? {
        0 => Some(0),
        3 => None,
        length => Some(length.max(4)),
    }
}

/// Writes a packet of at most 65516 bytes of data.
pub(super) fn put(to: &mut BytesMut, data: &[u8]) {
    to.put_slice(format!("{:04x}", data.len() + 4).as_bytes());
    to.put_slice(data);
}

/// A packet that makes the client show a line.
pub(super) fn line(text: &str) -> Bytes {
    let text = printable(text);
    let length = 4 + 1 + text.len() + 1;
    let mut packet = BytesMut::with_capacity(length);
    packet.put_slice(format!("{length:04x}\x02").as_bytes());
    packet.put_slice(text.as_bytes());
    packet.put_u8(b'\n');
    packet.freeze()
}

/// The text without what a terminal would obey: control characters and escape sequences. It comes from builds and containers.
fn printable(text: &str) -> String {
    let mut out = String::with_capacity(text.len().min(LINE_MAX_BYTES));
    let mut rest = text.chars().peekable();
    while let Some(character) = rest.next() {
        if character == '\x1b' && rest.next_if_eq(&'[').is_some() {
            // Parameters up to the letter that ends a sequence such as `ESC [ 1 ; 32 m`.
            while rest.next_if(|next| (' '..='?').contains(next)).is_some() {}
            rest.next_if(|next| ('@'..='~').contains(next));
        } else if character == '\t' || !character.is_control() {
            if out.len() + character.len_utf8() > LINE_MAX_BYTES {
                break;
            }
            out.push(character);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    async fn all(bytes: &[u8]) -> io::Result<Vec<Packet>> {
        let mut from = bytes;
        let mut packets = Vec::new();
        while let Some(packet) = read(&mut from).await? {
            packets.push(packet);
        }
        Ok(packets)
    }

    #[tokio::test]
    async fn packets_come_out_as_they_went_in() {
        let packets = all(b"0006\x01a00000004" as &[u8]).await.expect("three packets");
        assert_eq!(packets[0], Packet::Data(Bytes::from_static(b"0006\x01a")));
        assert_eq!(packets[1], Packet::Flush);
        assert_eq!(packets[2], Packet::Data(Bytes::from_static(b"0004")));
        assert!(packets[0].on_a_band() && !packets[2].on_a_band());
        assert!(!Packet::Data(Bytes::from_static(b"000eunpack ok\n")).on_a_band());
    }

    #[tokio::test]
    async fn what_is_no_packet_is_an_error() {
        for bad in ["0003", "00", "000gx", "+005a", "0009abc", "\n"] {
            assert!(all(bad.as_bytes()).await.is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_line_shows_no_control_character() {
        assert_eq!(&line("a\tb")[..], b"0009\x02a\tb\n");
        assert_eq!(&line("\x1b[1;32mok\x1b[0m\r\x07\x1b]0;x\x1b[")[..], b"000c\x02ok]0;x\n");
        assert_eq!(&line("é\n")[..], "0008\x02é\n".as_bytes());
    }

    proptest! {
        #[test]
        fn every_line_is_one_packet(text in any::<String>(), times in 1usize..3000) {
            let packet = line(&text.repeat(times));
            let length = usize::from_str_radix(std::str::from_utf8(&packet[..4]).unwrap(), 16).unwrap();
            prop_assert_eq!(length, packet.len());
            prop_assert!(length <= 65520);
            let shown = std::str::from_utf8(&packet[5..length - 1]).unwrap();
            prop_assert!(shown.chars().all(|character| character == '\t' || !character.is_control()));
        }
    }
}
