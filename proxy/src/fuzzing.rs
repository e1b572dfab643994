//! The doors that are fuzzed: each takes any bytes and panics where a promise about them is broken. Nobody else calls them.

use std::ops::Range;

use crate::config::Limits;
use crate::front::fence::{Fence, Framing};
use crate::front::gate::{Look, Scan};
use crate::front::head::{Connection, Form, Head, Kind, Reader, Version};
use crate::front::proxy_protocol::{self, Look as Header};
use crate::front::websocket::{CLOSE, Way};
use crate::live::lasting::Moved;

/// Cuts that [`fence`], [`head`] and [`websocket`] take from the begin of their bytes, at most.
const CUTS_MAX: usize = 8;

/// A request head: it is found alike however its bytes are cut, and what is accepted says the same when it is written anew.
///
/// The first byte is a number of cuts, the next ones say where; the rest is what a client sends.
pub fn head(data: &[u8]) {
    let (cuts, bytes) = cuts(data);
    let limits = Limits::default();
    let whole = accepted(bytes, &[bytes.len()], &limits);
    let in_pieces = accepted(bytes, &cuts, &limits);
    assert_eq!(in_pieces.map(|(at, _)| at), whole.as_ref().map(|(at, _)| at.clone()), "a cut changes what is a head");
    let Some((_, head)) = whole else { return };
    let written = written(&head);
    let again = Head::parse(written.as_bytes(), usize::MAX);
    let again = again.unwrap_or_else(|reason| panic!("{written:?} is refused for {reason:?}"));
    assert_eq!(again.method, head.method);
    assert_eq!((again.version, again.form), (head.version, head.form));
    assert_eq!((&again.target, &again.host), (&head.target, &head.host));
    assert_eq!(again.name.as_str(), head.name.as_str());
    assert_eq!((again.framing, again.connection), (head.framing, head.connection));
    assert_eq!((again.kind, again.reader), (head.kind, head.reader));
}

/// A body: its bytes pass the fence alike however they are cut, and nothing passes once it is over or broken.
///
/// The first byte is a number of cuts, the next ones say where; then a byte for the framing, and the body.
pub fn fence(data: &[u8]) {
    let (_, rest) = cuts(data);
    let [framing, bytes @ ..] = rest else { return };
    let framing = match framing {
        0..=127 => Framing::Chunked,
        128 => Framing::Empty,
        length => Framing::Length(u64::from(length - 128)),
    };
    let mut whole = Fence::around(0, framing);
    let passed = whole.pass(bytes);
    assert!(passed <= bytes.len());
    let (mut fence, mut from, mut total) = (Fence::around(0, framing), 0, 0);
    for cut in cuts_in(data, bytes.len()) {
        total += fence.pass(&bytes[from..cut]);
        from = cut;
    }
    assert_eq!((total, fence), (passed, whole), "a cut changes what passes");
    if matches!(whole, Fence::Closed | Fence::Broken) {
        assert_eq!(whole.pass(b"0\r\n\r\n"), 0, "something passes after the end");
    }
}

/// One direction of a WebSocket: its frames end alike however its bytes are cut, so data is seen alike; and where it ends, a
/// Close is said between two frames, and not behind another.
///
/// The first byte is a number of cuts, the next ones say where; the rest is what one side sends.
pub fn websocket(data: &[u8]) {
    let (cuts, bytes) = cuts(data);
    let (mut whole, mut pieces) = (Way::default(), Way::default());
    let mut is_data = false;
    let mut from = 0;
    for cut in cuts {
        let part = &bytes[from..cut];
        let rest = pieces.rest(part);
        assert!(rest <= part.len() && (rest > 0 || part.is_empty() || pieces.is_between()));
        is_data |= pieces.pass(part) == Moved::Data;
        from = cut;
    }
    assert_eq!(whole.pass(bytes) == Moved::Data, is_data, "a cut changes what is data");
    assert_eq!(format!("{whole:?}"), format!("{pieces:?}"), "a cut changes where frames end");
    assert_eq!(whole.left(&CLOSE).is_empty(), whole.is_closed());
}

/// A PROXY protocol header is read alike in one piece and in two, and never taken to be longer than it is.
pub fn proxy_protocol(bytes: &[u8]) {
    let whole = proxy_protocol::look(bytes);
    if let Ok(Header::Whole { bytes: end, .. }) = whole {
        assert!(end <= bytes.len(), "the header ends beyond the bytes");
    }
    for count in 0..bytes.len().min(600) {
        match proxy_protocol::look(&bytes[..count]) {
            Ok(Header::Partial { missing }) => {
                assert!(missing > 0, "a partial header misses something");
                if let Ok(Header::Whole { bytes: end, .. }) = whole {
                    assert!(count + missing <= end, "more is asked for than belongs to the header");
                }
            }
            // Why it is refused may change with more bytes: too long, or badly ended.
            Err(_) => assert!(whole.is_err(), "more bytes made a header of what is none"),
            early => assert_eq!(early, whole, "more bytes changed what was seen"),
        }
    }
}

/// The head that is read when the bytes come in pieces up to `cuts`, and where it is.
fn accepted(bytes: &[u8], cuts: &[usize], limits: &Limits) -> Option<(Range<usize>, Head)> {
    let mut scan = Scan::default();
    let look = cuts.iter().map(|&cut| scan.look(&bytes[..cut], limits)).find(|look| *look != Ok(Look::Partial))?;
    let Ok(Look::Whole(begin, end)) = look else { return None };
    Head::parse(&bytes[begin..end], limits.target_bytes).ok().map(|head| (begin..end, head))
}

/// Where to cut, in order and with the end, and what is left to be cut.
fn cuts(data: &[u8]) -> (Vec<usize>, &[u8]) {
    let count = data.first().map_or(0, |&first| usize::from(first) % (CUTS_MAX + 1)).min(data.len().saturating_sub(1));
    let bytes = data.get(1 + count..).unwrap_or_default();
    (cuts_in(data, bytes.len()), bytes)
}

fn cuts_in(data: &[u8], len: usize) -> Vec<usize> {
    let count = data.first().map_or(0, |&first| usize::from(first) % (CUTS_MAX + 1));
    let mut cuts: Vec<_> = data.iter().skip(1).take(count).map(|&cut| usize::from(cut).min(len)).collect();
    cuts.push(len);
    cuts.sort_unstable();
    cuts
}

/// What was understood of a head, as a head.
fn written(head: &Head) -> String {
    let version = if head.version == Version::Http10 { "HTTP/1.0" } else { "HTTP/1.1" };
    let target = match (head.form, head.target.as_str()) {
        (Form::Origin, target) => target.to_owned(),
        (Form::Absolute, "*") => format!("http://{}", head.host),
        (Form::Absolute, target) => format!("http://{}{target}", head.host),
    };
    let mut text = format!("{} {target} {version}\r\n", head.method);
    let mut field = |name: &str, value: &str| text.push_str(&format!("{name}: {value}\r\n"));
    if !head.host.is_empty() {
        field("Host", &head.host);
    }
    match head.framing {
        Framing::Empty => {}
        Framing::Length(length) => field("Content-Length", &length.to_string()),
        Framing::Chunked => field("Transfer-Encoding", "chunked"),
    }
    if head.connection == Connection::Close {
        field("Connection", "close");
    }
    if head.kind == Kind::WebSocket {
        field("Upgrade", "websocket");
    }
    if head.kind == Kind::Grpc {
        field("Content-Type", "application/grpc");
    }
    let stream = if head.kind == Kind::EventStream { "text/event-stream" } else { "*/*" };
    let html = if head.reader == Reader::Program { "" } else { ", text/html" };
    field("Accept", &format!("{stream}{html}"));
    if head.reader == Reader::Html {
        field("Sec-Fetch-Dest", "iframe");
    }
    text + "\r\n"
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use proptest::prelude::*;

    use super::*;

    /// The seeds of a target, as a short run of the fuzzer begins with them.
    fn seeds(target: &str) -> Vec<Vec<u8>> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/seeds").join(target);
        let entries = std::fs::read_dir(folder).expect("the seeds");
        entries.map(|entry| std::fs::read(entry.expect("a seed").path()).expect("a seed")).collect()
    }

    #[test]
    fn every_seed_keeps_its_promises_and_cut_short_too() {
        for (target, door) in [
            ("head", head as fn(&[u8])),
            ("fence", fence),
            ("proxy_protocol", proxy_protocol),
            ("websocket", websocket),
        ] {
            let seeds = seeds(target);
            assert!(seeds.len() >= 10, "{target}");
            for seed in seeds {
                for end in 0..=seed.len() {
                    door(&seed[..end]);
                }
            }
        }
    }

    proptest! {
        #[test]
        fn any_bytes_keep_their_promises(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            head(&bytes);
            fence(&bytes);
            proxy_protocol(&bytes);
            websocket(&bytes);
        }

        #[test]
        fn bytes_that_look_like_a_head_keep_their_promises(
            cuts in proptest::collection::vec(any::<u8>(), 8),
            line in "(GET|HEAD|POST|OPTIONS) (\\*|/|http://a|http://a/)[!-~]{0,4} HTTP/1\\.[01]\r\n",
            fields in "(Host: a\r\n)?((Content-Length|Transfer-Encoding|Connection|Upgrade|Expect|Accept|Host|X): \
                       ?(chunked|close|websocket|100-continue|text/html|text/event-stream|[0-9]{1,3}|a)\r\n){0,3}\r\n",
        ) {
            head(&[&[8], &cuts[..], line.as_bytes(), fields.as_bytes()].concat());
        }
    }
}
