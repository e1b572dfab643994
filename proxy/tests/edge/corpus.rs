//! Requests that others labelled (tests/corpus), each over a connection of its own, through a whole edge.
//!
//! Severe: 400 and the end. Ambiguous: refused, or forwarded with unambiguous framing and closed after. Compliant and
//! Acceptable: forwarded. What an origin gets is always exactly one well-framed request. Exceptions are in [`WAIVERS`].

use serde_json::Value;

use crate::world::World;
use crate::world::origin::Origin;

const CORPUS: &str = include_str!("../corpus/http_desync_guardian.jsonl");

/// What is done in place of what the label asks for.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Waiver {
    /// It counts as acceptable, or is wrong, and is refused.
    Refuse,
    /// It counts as ambiguous, is not, and is forwarded on a connection that goes on.
    Keep,
}
use Waiver::{Keep, Refuse};

/// RFC 9112 section 2.2.
const GRAMMAR: &str = "When a server listening only for HTTP request messages [...] receives a sequence of octets that does \
    not match the HTTP-message grammar aside from the robustness exceptions listed above, the server SHOULD respond with a \
    400 (Bad Request) response and close the connection.";
/// RFC 9112 section 3.2.
const REQUEST_LINE: &str = "Recipients of an invalid request-line SHOULD respond with either a 400 (Bad Request) error or a \
    301 (Moved Permanently) redirect with the request-target properly encoded.";
/// RFC 9112 section 5.1.
const SPACE: &str = "A server MUST reject, with a response status code of 400 (Bad Request), any received request message \
    that contains whitespace between a header field name and colon.";
/// RFC 9110 section 5.5.
const CONTROL: &str = "Field values containing other CTL characters are also invalid; however, recipients MAY retain such \
    characters for the sake of robustness when they appear within a safe context";
/// RFC 9112 section 6.1.
const CODING: &str = "A server that receives a request message with a transfer coding it does not understand SHOULD respond \
    with 501 (Not Implemented).";
/// RFC 9112 section 7.1.
const PARAMETER: &str =
    "The chunked coding does not define any parameters. Their presence SHOULD be treated as an error.";
/// RFC 9112 section 6.
const BODY: &str = "The presence of a message body in a request is signaled by a Content-Length or Transfer-Encoding header \
    field. Request message framing is independent of method semantics.";
/// RFC 9110 section 2.5. There is no such version yet, and it is no must.
const VERSION: &str = "A recipient that receives a message with a major version number that it implements and a minor version \
    number higher than what it implements SHOULD process the message as if it was in the highest minor version within that \
    major version to which the recipient is conformant.";

/// File, number of the request in it, what is done instead, and the sentence that allows it.
const WAIVERS: &[(&str, usize, Waiver, &str)] = &[
    ("ambiguous", 13, Keep, BODY),
    ("ambiguous", 14, Keep, BODY),
    ("ambiguous", 15, Keep, BODY),
    ("ambiguous", 16, Keep, BODY),
    ("acceptable", 1, Refuse, SPACE),
    ("acceptable", 2, Refuse, SPACE),
    ("acceptable", 4, Refuse, SPACE),
    ("acceptable", 3, Refuse, GRAMMAR),
    ("acceptable", 7, Refuse, GRAMMAR),
    ("acceptable", 8, Refuse, GRAMMAR),
    ("acceptable", 9, Refuse, VERSION),
    ("rfc-compliant", 9, Refuse, CODING),
    ("rfc-compliant", 10, Refuse, CODING),
    ("rfc-compliant", 11, Refuse, PARAMETER),
    ("rfc-compliant", 12, Refuse, REQUEST_LINE),
    ("rfc-compliant", 13, Refuse, REQUEST_LINE),
    ("rfc-compliant", 14, Refuse, REQUEST_LINE),
    ("more-compliant-tests", 6, Refuse, CODING),
    ("more-compliant-tests", 8, Refuse, CODING),
    ("more-compliant-tests", 9, Refuse, CODING),
    ("more-compliant-tests", 10, Refuse, PARAMETER),
    ("bad-header-characters", 12, Refuse, GRAMMAR),
    ("bad-header-characters", 13, Refuse, GRAMMAR),
    ("bad-header-characters", 14, Refuse, CONTROL),
    ("bad-header-characters", 15, Refuse, CONTROL),
    ("uri-specific-test-cases", 2, Refuse, GRAMMAR),
    ("uri-specific-test-cases", 4, Refuse, REQUEST_LINE),
    ("real-life-test-cases", 1, Keep, BODY),
    ("real-life-test-cases", 2, Keep, BODY),
];

struct Case {
    place: (String, usize),
    tier: String,
    shown: String,
    bytes: Vec<u8>,
    body: Vec<u8>,
}

/// The labelled requests, for our host and with the body that they announce.
fn cases() -> Vec<Case> {
    let mut place = (String::new(), 0);
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    let case = |line: &str| {
        let case: Value = serde_json::from_str(line).expect("JSON");
        let file = text(&case["file"]);
        place = if file == place.0 { (file, place.1 + 1) } else { (file, 1) };
        let fields: Vec<(String, String)> =
            case["fields"].as_array().expect("fields").iter().map(|pair| (text(&pair[0]), text(&pair[1]))).collect();
        let mut head = format!(
            "{} {} {}\r\nHost: a.example\r\n",
            text(&case["method"]),
            text(&case["target"]),
            text(&case["version"])
        );
        for (name, value) in fields.iter().filter(|(name, _)| name != "Host") {
            head += &format!("{name}: {value}\r\n");
        }
        let values = |wanted: &'static str| -> Vec<&str> {
            fields.iter().filter(|(name, _)| name.eq_ignore_ascii_case(wanted)).map(|(_, value)| value.trim()).collect()
        };
        let (announced, body) = match (&values("content-length")[..], &values("transfer-encoding")[..]) {
            ([length], []) if length.parse::<usize>().is_ok() => {
                let body = vec![b'x'; length.parse().expect("a length")];
                (body.clone(), body)
            }
            ([], ["chunked"]) => (b"5\r\nhello\r\n0\r\n\r\n".to_vec(), b"hello".to_vec()),
            _ => (Vec::new(), Vec::new()),
        };
        Case {
            place: place.clone(),
            tier: text(&case["tier"]),
            shown: format!("{place:?} {line:.300}"),
            bytes: [head.as_bytes(), b"\r\n", &announced].concat(),
            body,
        }
    };
    CORPUS.lines().map(case).collect()
}

#[tokio::test]
async fn every_labelled_request_is_dealt_with_as_its_label_asks() {
    let (mut world, origin) = (World::start().await, Origin::start("one").await);
    world.serve("a.example", &[&origin]).await;
    let mut used: Vec<&(&str, usize, Waiver, &str)> = Vec::new();
    let mut wrong: Vec<String> = Vec::new();
    for case in cases() {
        let seen = origin.requests().len();
        let mut client = world.client().await;
        client.send(case.bytes).await;
        client.send("GET /next HTTP/1.1\r\nHost: a.example\r\n\r\n").await;
        let method = if case.shown.contains("\"HEAD\"") { "HEAD" } else { "GET" };
        let answer = client.response_to(method).await;
        let got = if answer.status == 200 {
            assert_eq!(client.response().await.text(), "one", "{}", case.shown);
            "forwarded"
        } else {
            // To whoever refuses a head it is no HEAD: there may be a body.
            assert!(method == "HEAD" || client.closed().await, "{}", case.shown);
            assert_eq!(answer.field("connection").as_deref(), Some("close"), "{}", case.shown);
            assert_eq!(answer.status, 400, "{}", case.shown);
            "refused"
        };
        let requests = origin.requests().split_off(seen);
        if got == "forwarded" {
            assert_eq!(requests.len(), 2, "{}", case.shown);
            assert!(requests[0].is_well_framed() && requests[0].body == case.body, "{}", case.shown);
            assert_eq!(requests[1].path(), "/next", "{}", case.shown);
        } else {
            assert!(requests.is_empty(), "{}", case.shown);
        }
        let waiver =
            WAIVERS.iter().find(|(file, number, ..)| (*file, *number) == (case.place.0.as_str(), case.place.1));
        let wanted = match (case.tier.as_str(), waiver.map(|waiver| waiver.2)) {
            ("Severe" | "Ambiguous", None) | ("Compliant" | "Acceptable", Some(Refuse)) => "refused",
            ("Compliant" | "Acceptable", None) | ("Ambiguous", Some(Keep)) => "forwarded",
            (tier, waiver) => panic!("{waiver:?} makes no sense for {tier}: {}", case.shown),
        };
        used.extend(waiver);
        if got != wanted {
            wrong.push(format!("{got}: {}", case.shown));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(used.len(), WAIVERS.len(), "each waiver is needed");
    assert!(used.iter().all(|(.., sentence)| !sentence.is_empty()));
    world.stop().await;
    assert_eq!(origin.junk(), b"");
}

#[test]
fn the_corpus_is_whole() {
    assert_eq!(cases().len(), 159);
}
