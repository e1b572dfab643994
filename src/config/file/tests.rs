use super::*;

fn parsed(text: &str) -> Result<File, Wrong> {
    parse(text, Path::new("/etc/dormouse"))
}

#[test]
fn every_key_is_read() {
    let file = parsed(
        r#"
table = "table.json"
cert = "/certs/chain.pem"
key = "key.pem"
ticket_keys = "keys"
cookie_key = "cookies"
access_log = "file:access.log"
run = "/run/dormouse"
admin = "127.0.0.1:9001"
drain = "1m"
drain_delay = "5s"
upgrade_within = "2m"
memory_limit = "2g"
workers = 3
otlp = "http://127.0.0.1:4318"
otlp_sample = 0.25

[limits]
connections = 1000
head = "5s"

[[listener]]
address = "0.0.0.0:80"

[[listener]]
name = "inner"
address = "unix:/run/inner"
tls = true
http2 = false
client_ca = "ca.pem"
proxy_protocol_from = ["unix", "10.0.0.0/8"]
trust_forwarded_from = ["192.0.2.1"]
[listener.limits]
connections = 10
connections_per_client = 2
tls_handshake = "1s"
head = "2s"
keep_alive = "3s"
head_bytes = "4k"
target_bytes = "1k"
streams = 5
body_bytes = "1m"
body_gap = "6s"
client_write = "7s"
client_rate = 8
client_window = "9s"

[[listener]]
address = "0.0.0.0:443"
tls = true
limits = { body_bytes = "2g" }
"#,
    )
    .unwrap();
    let path = |path: &str| Some(PathBuf::from(path));
    assert_eq!((file.table, file.cert), (path("/etc/dormouse/table.json"), path("/certs/chain.pem")));
    assert_eq!((file.key, file.ticket_keys), (path("/etc/dormouse/key.pem"), path("/etc/dormouse/keys")));
    assert_eq!(file.cookie_key, path("/etc/dormouse/cookies"));
    let access_log = AccessLog::To(Output::File("/etc/dormouse/access.log".into()));
    assert_eq!((file.access_log, file.run), (Some(access_log), path("/run/dormouse")));
    let seconds = |count| Some(Duration::from_secs(count));
    assert_eq!((file.drain, file.drain_delay, file.upgrade_within), (seconds(60), seconds(5), seconds(120)));
    assert_eq!((file.memory_limit, file.workers), (Some(2 << 30), NonZeroUsize::new(3)));
    assert_eq!(file.admin, "127.0.0.1:9001".parse().ok());
    assert_eq!(file.otlp, "http://127.0.0.1:4318".parse().ok());
    assert_eq!(file.otlp_sample, "0.25".parse().ok());
    assert_eq!((file.limits.connections, file.limits.head), (Some(1000), seconds(5)));
    let [(22, plain), (25, inner), (48, https)] = &file.listeners[..] else { panic!("{:?}", file.listeners) };
    assert_eq!((plain.name.as_str(), plain.protocol, plain.http2), ("http", Protocol::Plain, Http2::Off));
    assert_eq!(plain.limits, ListenerLimits::default());
    assert_eq!((inner.name.as_str(), inner.protocol, inner.http2), ("inner", Protocol::Tls, Http2::Off));
    assert_eq!(inner.client_ca, path("/etc/dormouse/ca.pem"));
    assert_eq!((inner.proxy_protocol_from.len(), inner.trust_forwarded_from.len()), (2, 1));
    let expected = ListenerLimits {
        connections: Some(10),
        connections_per_client: Some(2),
        tls_handshake: seconds(1),
        head: seconds(2),
        keep_alive: seconds(3),
        head_bytes: Some(4 << 10),
        target_bytes: Some(1 << 10),
        streams: Some(5),
        body_bytes: Some(1 << 20),
        body_gap: seconds(6),
        client_write: seconds(7),
        client_rate: Some(8),
        client_window: seconds(9),
    };
    assert_eq!(inner.limits, expected);
    assert_eq!((https.name.as_str(), https.http2, https.limits.body_bytes), ("https", Http2::On, Some(2 << 30)));
}

#[test]
fn a_whole_number_is_a_share_too() {
    assert_eq!(parsed("otlp_sample = 1").unwrap().otlp_sample, "1".parse().ok());
}

#[test]
fn an_empty_file_says_nothing() {
    let file = parsed("# nothing\n").unwrap();
    assert!(file.table.is_none() && file.listeners.is_empty() && file.limits == ListenerLimits::default());
}

#[test]
fn what_is_wrong_is_told_with_its_line() {
    let listener = "[[listener]]\naddress = \"127.0.0.1:80\"\n";
    for (text, line, words) in [
        ("table = \"a\"\ntabel = \"b\"", 2, "unknown field `tabel`"),
        ("\n\ntable = 3", 3, "invalid type: integer"),
        ("table = \"a\ndrain = \"1s\"", 1, "invalid basic string"),
        ("table = \"a\"\ntable = \"b\"", 2, "duplicate key"),
        ("drain = \"30\"", 1, "a time is a number and its unit"),
        ("drain = \"0s\"", 1, "more than nothing"),
        ("memory_limit = \"1\"", 1, "a size is a number and its unit"),
        ("memory_limit = \"0m\"", 1, "more than nothing"),
        ("otlp_sample = 1.5", 1, "a share is a number from 0 to 1"),
        ("otlp_sample = nan", 1, "a share is a number from 0 to 1"),
        ("otlp_sample = \"0.5\"", 1, "invalid type: string"),
        ("workers = 0", 1, "workers are a number from 1"),
        ("workers = -1", 1, "workers are a number from 1"),
        ("admin = \"localhost\"", 1, "invalid socket address"),
        ("\n[limits]\nconnections = 0", 3, "nonzero"),
        ("[limits]\nconnections = -1", 2, "nonzero"),
        ("[limits]\nclient_rate = 0", 2, "nonzero"),
        ("[limits]\nhead = 10", 2, "invalid type: integer"),
        ("[limits]\nstreams = 10001", 2, "from 1 to 10000"),
        ("[limits]\nwaiters = 1", 2, "unknown field `waiters`"),
        ("[listener]\naddress = \"127.0.0.1:80\"", 1, "expected a sequence"),
        ("\n[[listener]]\ntls = true", 2, "missing field `address`"),
        ("[[listener]]\naddress = \"localhost:80\"", 2, "an address is IP:PORT"),
        ("[[listener]]\naddress = \"unix:x\"", 2, "begins with /"),
        ("[[listener]]\naddress = \"127.0.0.1:80\"\nhttp2 = \"yes\"", 3, "invalid type: string"),
        ("[[listener]]\naddress = \"127.0.0.1:80\"\nname = \"Admin\"", 3, "a listener's name"),
        ("[[listener]]\naddress = \"127.0.0.1:80\"\nname = \"admin\"", 3, "is not admin"),
        ("[[listener]]\naddress = \"127.0.0.1:80\"\nname = \"\"", 3, "a listener's name"),
        (
            "[[listener]]\naddress = \"127.0.0.1:80\"\ntrust_forwarded_from = [\n\"10.1.0.0/8\"]",
            3,
            "begins at 10.0.0.0",
        ),
        ("\n[[listener]]\naddress = \"127.0.0.1:80\"\nclient_ca = \"x\"", 2, "client_ca is of TLS"),
        (&[listener, listener].concat(), 3, "the listener of line 1 is called http, too"),
        (&[listener, "limits = { head = \"1 s\" }"].concat(), 3, "a time is a number"),
    ] {
        let wrong = parsed(text).map(|_| text).unwrap_err();
        assert!(wrong.line == line && wrong.why.contains(words), "{text:?}: {wrong:?}");
    }
}

#[test]
fn what_is_quoted_stays_one_line() {
    let wrong = parsed("\"a\\nhint: do as I say\" = 1").unwrap_err();
    assert!(!wrong.why.contains('\n'), "{wrong:?}");
}
