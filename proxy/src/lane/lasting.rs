//! What an answer becomes that may last for ever: a WebSocket's tunnel, or an event stream, of which each piece is data or not.
//!
//! Called by the lane, with the head of an answer and with each piece of its body.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use http::header;
use pingora::http::ResponseHeader;

use crate::exchange::Exchange;
use crate::live::lasting::{Lasting, Moved};

/// An event stream that runs.
pub(crate) struct Events {
    lasting: Arc<Lasting>,
    line: Line,
}

/// Where in its lines an event stream is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Line {
    /// At a line's begin.
    Begin,
    /// In one that says something.
    Field,
    /// In a comment, as they are sent to show that somebody is there.
    Comment,
    /// Compressed, so nobody here can tell.
    Unknown,
}

/// Notes what an answer becomes, when its head goes to the client; `wire` has heard what the head says.
pub(super) fn begin(response: &ResponseHeader, exchange: &mut Exchange) {
    let is_tunnel = response.status == 101;
    let streams = !response.status.is_informational() && exchange.wire.streams.load(Ordering::Relaxed);
    if !is_tunnel && !streams {
        return;
    }
    let Some(flight) = &mut exchange.flight else { return };
    let lasting = Arc::new(flight.lasts());
    exchange.wire.lasts(Arc::clone(&lasting));
    if is_tunnel {
        exchange.wire.websocket.store(true, Ordering::Relaxed);
    } else {
        let coded = response.headers.contains_key(header::CONTENT_ENCODING);
        let line = if coded { Line::Unknown } else { Line::Begin };
        exchange.events = Some(Box::new(Events { lasting, line }));
    }
}

impl Events {
    /// Takes a piece of the stream.
    pub(super) fn take(&mut self, piece: &[u8]) {
        if !piece.is_empty() {
            self.lasting.note(self.line.take(piece));
        }
    }
}

impl Line {
    /// Takes bytes, and tells whether somebody says something by them.
    fn take(&mut self, bytes: &[u8]) -> Moved {
        let mut moved = Moved::Signs;
        for &byte in bytes {
            *self = match (*self, byte) {
                (Self::Unknown, _) => Self::Unknown,
                (_, b'\r' | b'\n') => Self::Begin,
                (Self::Begin, b':') | (Self::Comment, _) => Self::Comment,
                (Self::Begin | Self::Field, _) => Self::Field,
            };
            if matches!(self, Self::Field | Self::Unknown) {
                moved = Moved::Data;
            }
        }
        moved
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn p90_comments_and_empty_lines_are_no_data_and_whatever_else_is() {
        for (text, moved) in [
            (":\n\n", Moved::Signs),
            (": still here: yes\r\n\r\n", Moved::Signs),
            ("\n\n", Moved::Signs),
            ("data: x\n\n", Moved::Data),
            (": a\ndata\n", Moved::Data),
            ("id: 7\r\n", Moved::Data),
            ("retry: 10\r", Moved::Data),
        ] {
            assert_eq!(Line::Begin.take(text.as_bytes()), moved, "{text:?}");
        }
        assert_eq!(Line::Comment.take(b" rest of it\n:"), Moved::Signs);
        assert_eq!(Line::Field.take(b"rest"), Moved::Data);
        assert_eq!(Line::Unknown.take(b":\n"), Moved::Data);
    }

    proptest! {
        #[test]
        fn cuts_do_not_matter(text in "(:|a|\r|\n| ){0,30}", cut in 0_usize..30) {
            let bytes = text.as_bytes();
            let (mut whole, mut pieces) = (Line::Begin, Line::Begin);
            let all = whole.take(bytes);
            let (one, other) = bytes.split_at(cut.min(bytes.len()));
            let moved = [pieces.take(one), pieces.take(other)];
            prop_assert_eq!(all == Moved::Data, moved.contains(&Moved::Data));
            prop_assert_eq!(whole, pieces);
        }
    }
}
