use std::error::Error;

use proptest::prelude::*;

use super::*;
use crate::ObjectId;

fn file(text: &str) -> TableFile {
    TableFile::parse(text).expect(text)
}

fn refused(text: &str) -> String {
    let error = TableFile::parse(text).expect_err(text);
    let cause = error.source().map(|cause| format!(": {cause}")).unwrap_or_default();
    format!("{error}{cause}")
}

fn environment(table: &Table, id: &str) -> (Generation, Environment) {
    let object = &table.objects[&ObjectId::Environment(EnvironmentId::new(id))];
    match &object.body {
        Body::Environment(environment) => (object.version, (**environment).clone()),
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_smallest_file_is_a_table_that_an_edge_serves() {
    let file = file(r#"{"routes": [{"host": "A.example.com", "path": "/", "endpoints": ["127.0.0.1:9001"]}]}"#);
    let table = file.table(&Table::default(), Vec::new());
    let mut served = Table::default();
    assert_eq!(served.apply(table.snapshot()), Ok(Vec::new()));
    assert_eq!(served, table);
    let (_, environment) = environment(&table, "a.example.com/");
    assert_eq!((environment.state, environment.app.as_str()), (State::Ready, "a-example-com"));
    assert_eq!(environment.endpoints[0].address.to_string(), "127.0.0.1:9001");
}

#[test]
fn what_is_wrong_is_told_with_its_place() {
    let route = |rest: &str| format!(r#"{{"routes": [{{"host": "a.example", {rest}}}]}}"#);
    for (text, words) in [
        ("", "EOF while parsing a value at line 1 column 0"),
        ("[]", "expected struct TableFile"),
        (r#"{"routes": {}}"#, "expected a sequence at line 1"),
        (r#"{"routs": []}"#, "unknown field `routs`"),
        (&route(r#""endpoints": ["127.0.0.1:9001"], "weight": 1"#), "unknown field `weight`"),
        (&route(r#""endpoints": ["localhost:80"]"#), "invalid socket address syntax at line 1"),
        (&route(r#""endpoints": []"#), "routes[0]: the endpoints of a.example cannot be used: a ready environment has"),
        (&route(r#""endpoints": ["127.0.0.1:0"]"#), "127.0.0.1:0 is no address an instance can listen on"),
        (&route(r#""endpoints": ["127.0.0.1:1", "127.0.0.1:1"]"#), "instance 127.0.0.1:1 is listed twice"),
        (&route(r#""path": "x", "endpoints": ["127.0.0.1:1"]"#), "a path begins with / at line 1"),
        (&route(r#""path": "/x/../y", "endpoints": ["127.0.0.1:1"]"#), "a path has no . or .. segments"),
        (
            &route(r#""match": "glob", "endpoints": ["127.0.0.1:1"]"#),
            "unknown variant `glob`, expected `prefix` or `exact`",
        ),
        (&route(r#""method": "get", "endpoints": ["127.0.0.1:1"]"#), "a method is a word in upper case at line 1"),
        (&route(r#""headers": [{"name": "X_A"}], "endpoints": ["127.0.0.1:1"]"#), "a header field's name is one word"),
        (&route(r#""headers": [{"name": "X-Forwarded-Proto"}], "endpoints": ["127.0.0.1:1"]"#), "is not the client's"),
        (
            &route(r#""headers": [{"name": "x", "value": "1"}, {"name": "X"}], "endpoints": ["127.0.0.1:1"]"#),
            "routes[0]: the route of a.example cannot be used: the header field x is asked for twice",
        ),
        (
            &route(r#""match": "exact", "path": "/x", "replace_prefix": "/", "endpoints": ["127.0.0.1:1"]"#),
            "routes[0]: the route of a.example cannot be used: an exact path has no prefix to replace",
        ),
        (&route(r#""redirect": {"status": 303, "host": "b.example"}"#), "a redirect's status is 301, 302, 307 or 308"),
        (&route(r#""redirect": {}"#), "the redirect leads to where its own rule is met again"),
        (&route(r#""redirect": {"scheme": "https"}"#), "the redirect leads to where its own rule is met again"),
        (&route(r#""redirect": {"host": "A.example", "path": "/x"}"#), "leads to where its own rule is met again"),
        (&route(r#""path": "/a", "redirect": {"replace_prefix": "/a/b"}"#), "leads to where its own rule is met again"),
        (&route(r#""redirect": {"host": "b", "path": "/", "replace_prefix": "/"}"#), "has either a \"path\" or"),
        (&route(r#""redirect": {"host": "b", "port": 0}"#), "0 is no port to redirect to"),
        (&route(r#""redirect": {"host": "b\r\nx: y"}"#), "a host name has only letters"),
        (&route(r#""redirect": {"host": "b", "path": "/\r\n"}"#), "a path has no ?"),
        (&route(r#""redirect": {"host": "b"}, "rewrite_host": "c""#), "is said inside of \"redirect\""),
        (&route(r#""redirect": {"host": "b"}, "response_headers": {}"#), "is said inside of \"redirect\""),
        (
            &route(r#""endpoints": ["127.0.0.1:1"], "request_headers": {"remove": ["Transfer_Encoding"]}"#),
            "routes[0]: the route of a.example cannot be used: request_headers: Transfer_Encoding is not a route's to change",
        ),
        (
            &route(r#""endpoints": ["127.0.0.1:1"], "response_headers": {"set": {"a b": "1"}}"#),
            "routes[0]: the route of a.example cannot be used: response_headers: \"a b\" is no field's name",
        ),
        (
            &route(r#""endpoints": ["127.0.0.1:1"], "request_headers": {"set": {"A": "1", "A": "2"}}"#),
            "A is there twice",
        ),
        (
            &route(r#""endpoints": ["127.0.0.1:1"], "limits": {"gap_ms": 2, "answer_ms": 1}"#),
            "routes[0]: the route of a.example cannot be used: limits: gap_ms is at most answer_ms",
        ),
        (
            r#"{"routes": [{"host": "*", "redirect": {"host": "b"}}], "hosts": {"a": {}}}"#,
            "hosts.a: no route has this host",
        ),
        (
            r#"{"routes": [{"host": "*", "redirect": {"host": "b"}}],
                "hosts": {"*": {"https": {"hsts": {"max_age": 1, "preload": true}}}}}"#,
            "* cannot be served so: preload asks for include_subdomains and a max_age of at least 31536000",
        ),
        (r#"{"routes": [{"host": "a b", "endpoints": ["127.0.0.1:1"]}]}"#, "a host name has only letters"),
        (
            r#"{"routes": [{"host": "a", "endpoints": ["127.0.0.1:1"]}, {"host": "A.", "endpoints": ["127.0.0.1:2"]}]}"#,
            "routes[1] of a can never be met: routes[0] is for the same requests",
        ),
        (
            r#"{"routes": [{"host": "a"}]}"#,
            r#"routes[0]: the route of a has exactly one of "endpoints", "environment" and "redirect""#,
        ),
        (
            &route(r#""environment": "x", "endpoints": ["127.0.0.1:1"]"#),
            "routes[0]: the route of a.example has exactly one",
        ),
        (&route(r#""environment": "x""#), r#"routes[0]: there is no environment "x" for a.example"#),
        (r#"{"routes": [], "environments": {"x": {"endpoints": []}}}"#, "environments.x: it cannot be used: a ready"),
        (r#"{"routes": [], "environments": {"X": {"endpoints": []}}}"#, "a name has only a-z, 0-9 and -"),
        (r#"{"routes": [], "environments": {"x": {}}}"#, "missing field `endpoints` at line 1"),
        (
            r#"{"routes": [], "environments": {"x": {"endpoints": ["127.0.0.1:1"], "policy": {"x": 1}}}}"#,
            "unknown field `x`",
        ),
        ("[[], {}, {}, []]", "invalid type: sequence"),
        (r#"{"routes": [], "environments": {"x": [["127.0.0.1:1"]]}}"#, "invalid type: sequence"),
        (
            r#"{"routes": [], "environments": {"x": {"endpoints": ["127.0.0.1:1"], "policy": {"maintenance": [60]}}}}"#,
            "invalid type: sequence, expected struct Maintenance at line 1",
        ),
        (r#"{"routes": [{"host": "a", "redirect": ["https"]}]}"#, "invalid type: sequence"),
        (r#"{"routes": [], "hosts": {"a": {"https": [null]}}}"#, "invalid type: sequence"),
        (&route(r#""endpoints": ["127.0.0.1:1"], "headers": [["x", "y"]]"#), "invalid type: sequence"),
        (&route(r#""endpoints": ["127.0.0.1:1"], "request_headers": [{"x": "y"}]"#), "invalid type: sequence"),
        (
            r#"{"routes": [], "environments": {"x": {"endpoints": ["127.0.0.1:1"]}, "x": {"endpoints": ["127.0.0.1:2"]}}}"#,
            "x is there twice at line 1",
        ),
        (
            r#"{"routes": [{"host": "b", "redirect": {"host": "c"}}, {"host": "a", "path": "/x/", "endpoints": ["127.0.0.1:1"]},
                {"host": "a", "path": "/x", "endpoints": ["127.0.0.1:2"]}]}"#,
            "routes[2] of a can never be met: routes[1] is for the same requests",
        ),
        (
            r#"{"routes": [], "certificates": [{"host": "a", "chain": "c", "key": "k"}, {"host": "a", "chain": "c", "key": "k"}]}"#,
            "certificates[1]: a has a certificate already, certificates[0]",
        ),
    ] {
        let said = refused(text);
        assert!(said.contains(words), "{text}\nsaid {said:?}");
    }
}

#[test]
fn what_did_not_change_keeps_its_version_and_changed_endpoints_get_the_next_epoch() {
    let both = |b: &str| {
        file(&format!(
            r#"{{"routes": [{{"host": "a", "endpoints": ["127.0.0.1:1"]}}, {{"host": "b", "endpoints": ["{b}"]}}]}}"#
        ))
    };
    let first = both("127.0.0.1:2").table(&Table::default(), Vec::new());
    let second = both("127.0.0.1:3").table(&first, Vec::new());
    assert_eq!(environment(&second, "a/"), environment(&first, "a/"));
    let (version, changed) = environment(&second, "b/");
    assert_eq!((version, changed.epoch), (second.generation, Epoch(2)));
    assert_eq!(first.diff(&second).put.len(), 1, "a change is as large as what changed");
    let gone = file(r#"{"routes": []}"#).table(&second, Vec::new());
    assert_eq!(second.diff(&gone).remove.len(), 4);
}

#[test]
fn the_routes_of_a_host_are_one_object_wherever_they_are_written() {
    let file = file(
        r#"{"environments": {"shop": {"endpoints": ["127.0.0.1:1"]}},
            "hosts": {"a.example": {"https": {"redirect": {"status": 308}, "hsts": {"max_age": 60}}}},
            "routes": [
                {"host": "a.example", "environment": "shop"},
                {"host": "*.example", "environment": "shop"},
                {"host": "a.example", "path": "/api", "endpoints": ["127.0.0.1:2"], "replace_prefix": "/"},
                {"host": "a.example", "path": "/api", "method": "POST", "endpoints": ["127.0.0.1:3"]},
                {"host": "a.example", "path": "/old", "match": "exact", "redirect": {"path": "/new"}},
                {"host": "*", "redirect": {"host": "a.example"}}]}"#,
    );
    let table = file.table(&Table::default(), Vec::new());
    assert_eq!(Table::default().apply(table.snapshot()), Ok(Vec::new()));
    let route = |host: &str| match &table.objects[&ObjectId::Route(host.parse().expect("a pattern"))].body {
        Body::Route(route) => route.clone(),
        other => panic!("{other:?}"),
    };
    assert_eq!(route("*.example").to, To::Environment(EnvironmentId::new("shop")));
    let one = route("a.example");
    let environments: Vec<_> = one.environments().map(EnvironmentId::as_str).collect();
    assert_eq!(environments, ["shop", "a.example/api", "a.example/api#1"]);
    assert!(one.https.is_some_and(|https| https.redirect.is_some()));
    assert_eq!(environment(&table, "a.example/api#1").1.endpoints[0].address.port(), 3);
    let json = serde_json::to_string(&table.snapshot()).expect("an update is JSON");
    assert_eq!(serde_json::from_str::<crate::Update>(&json).expect("and back"), table.snapshot());
}

/// What says nothing beside its host is one look at a pointer for each request.
#[test]
fn a_route_that_changes_requests_or_limits_them_is_a_rule() {
    for (rest, is_rule) in [
        ("", false),
        (r#", "request_headers": {"set": {"X-A": "1"}}"#, true),
        (r#", "response_headers": {"remove": ["Server"]}"#, true),
        (r#", "limits": {"body_bytes": 1}"#, true),
    ] {
        let file = file(&format!(r#"{{"routes": [{{"host": "a", "endpoints": ["127.0.0.1:1"]{rest}}}]}}"#));
        let table = file.table(&Table::default(), Vec::new());
        assert_eq!(Table::default().apply(table.snapshot()), Ok(Vec::new()), "{rest}");
        let json = serde_json::to_string(&table.snapshot()).expect("an update is JSON");
        assert_eq!(serde_json::from_str::<crate::Update>(&json).expect("and back"), table.snapshot(), "{rest}");
        let route = table.objects.values().find_map(|object| match &object.body {
            Body::Route(route) => Some(route.to.clone()),
            _ => None,
        });
        assert_eq!(matches!(route, Some(To::Rules(_))), is_rule, "{rest}");
    }
}

#[test]
fn routes_share_an_environment_whose_change_is_one_object() {
    let of = |endpoint: &str| {
        file(&format!(
            r#"{{"environments": {{"shop-live": {{"endpoints": ["{endpoint}"], "policy": {{}}}}}}, "routes": [
                {{"host": "a", "environment": "shop-live"}}, {{"host": "b", "environment": "shop-live"}},
                {{"host": "shop-live", "endpoints": ["127.0.0.1:9"]}}]}}"#
        ))
    };
    let first = of("127.0.0.1:1").table(&Table::default(), Vec::new());
    assert_eq!(Table::default().apply(first.snapshot()), Ok(Vec::new()));
    assert_eq!(environment(&first, "shop-live").1.app.as_str(), "shop-live");
    assert_eq!(environment(&first, "shop-live/").1.endpoints[0].address.port(), 9, "a host of that name is another");
    let second = of("127.0.0.1:2").table(&first, Vec::new());
    assert_eq!(first.diff(&second).put.len(), 1);
    assert_eq!(environment(&second, "shop-live").1.epoch, Epoch(2));
}

/// What operators copy is what works.
#[test]
fn every_example_of_the_documents_is_taken() {
    let text = include_str!("../../../docs/table.md");
    let mut examples: Vec<String> = Vec::new();
    for line in text.lines() {
        match (line.strip_prefix("    "), examples.last_mut()) {
            (Some(begin), _) if begin.starts_with('{') => examples.push(begin.to_owned()),
            (Some(rest), Some(example)) => example.push_str(rest),
            _ => {}
        }
    }
    assert_eq!(examples.len(), 6);
    for example in examples {
        let table = file(&example).table(&Table::default(), Vec::new());
        assert_eq!(Table::default().apply(table.snapshot()), Ok(Vec::new()), "{example}");
    }
}

proptest! {
    #[test]
    fn a_table_of_a_file_is_never_refused_by_an_edge(ports in proptest::collection::vec(0u16..4, 0..4), count in 0usize..4) {
        let endpoints: Vec<_> = ports.iter().map(|port| format!("\"127.0.0.1:{port}\"")).collect();
        let routes: Vec<_> =
            (0..count).map(|n| format!(r#"{{"host": "h{n}", "endpoints": [{}]}}"#, endpoints.join(","))).collect();
        if let Ok(file) = TableFile::parse(&format!(r#"{{"routes": [{}]}}"#, routes.join(","))) {
            let table = file.table(&Table::default(), Vec::new());
            prop_assert_eq!(Table::default().apply(table.snapshot()), Ok(Vec::new()));
            prop_assert!(TableFile::parse(&serde_json::to_string(&file).expect("it is plain data")).is_ok());
        }
    }
}
