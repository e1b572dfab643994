use proptest::prelude::*;
use proptest::sample::select;

use super::*;
use crate::Invalid;

fn route(json: &str) -> Route {
    serde_json::from_str(json).expect(json)
}

fn refused(json: &str) -> String {
    route(json).check().map_err(Invalid::from).expect_err(json).to_string()
}

/// The number of the environment that a request gets to.
fn decided(rules: &[Rule], path: &str, method: &str, fields: &[(&str, &str)]) -> Option<String> {
    let fields: Vec<_> = fields.iter().map(|(name, value)| (name.to_string(), value.as_bytes().to_vec())).collect();
    let field = |name: &str| {
        let mut found = fields.iter().filter(|(other, _)| other == name);
        match (found.next(), found.next()) {
            (None, _) => Found::No,
            (Some((_, value)), None) => Found::Once(value),
            _ => Found::Often,
        }
    };
    let asked = Asked { path, method, field: &field };
    let at = To::order(rules).into_iter().find(|at| rules[*at].when.is_met(&asked))?;
    match &rules[at].action {
        Action::Forward(forward) => Some(forward.environment.to_string()),
        Action::Redirect(_) => None,
    }
}

#[test]
fn the_simple_route_reads_as_it_always_did_and_what_is_not_known_is_refused() {
    let json = r#"{"host":"a.example","environment":"x"}"#;
    assert_eq!(route(json), Route::new("a.example".parse::<Host>().expect("a host"), EnvironmentId::new("x")));
    assert_eq!(serde_json::to_string(&route(json)).expect("JSON"), json);
    for bad in [
        r#"{"host":"a","environment":"x","weight":1}"#,
        r#"{"host":"a"}"#,
        r#"{"host":"a","environment":"x","rules":[]}"#,
        r#"{"host":"a","rules":[{"environment":"x","mirror":"y"}]}"#,
        r#"{"host":"a","rules":[{"path":"/"}]}"#,
        r#"{"host":"a","rules":[{"environment":"x","redirect":{}}]}"#,
        r#"{"host":"a","rules":[{"rewrite_host":"b","redirect":{"host":"c"}}]}"#,
        r#"{"host":"a","rules":[{"request_headers":{},"redirect":{"host":"c"}}]}"#,
        r#"{"host":"a","rules":[{"limits":{},"redirect":{"host":"c"}}]}"#,
        r#"{"host":"a","rules":[{"environment":"x","response_headers":{"replace":{}}}]}"#,
        r#"{"host":"a","environment":"x","https":{"redirect":true}}"#,
        r#"{"host":"a","environment":"x","https":{"hsts":{"max_age":1,"report":1}}}"#,
    ] {
        assert!(serde_json::from_str::<Route>(bad).is_err(), "{bad}");
    }
}

#[test]
fn a_route_that_contradicts_itself_is_refused_in_words_for_its_owner() {
    for (json, words) in [
        (r#"{"host":"a","rules":[]}"#, "a route has at least one rule"),
        (
            r#"{"host":"a","rules":[{"environment":"x"},{"path":"/b","environment":"x"},{"environment":"y"}]}"#,
            "rules[2] can never be met: rules[0] is for the same requests",
        ),
        (
            r#"{"host":"a","rules":[{"headers":[{"name":"x"},{"name":"y"}],"environment":"x"},
                {"headers":[{"name":"Y"},{"name":"X"}],"environment":"y"}]}"#,
            "rules[1] can never be met",
        ),
        (r#"{"host":"*","rules":[{"redirect":{"scheme":"https"}}]}"#, "rules[0]: the redirect leads to where"),
        (
            r#"{"host":"a","rules":[{"environment":"x","request_headers":{"set":{"X_Forwarded_For":"1"}}}]}"#,
            "rules[0]: request_headers: X_Forwarded_For is not a route's to change",
        ),
        (
            r#"{"host":"a","rules":[{"environment":"x","response_headers":{"add":{"A":"b\r\nc"}}}]}"#,
            "rules[0]: response_headers: the value of A has other characters",
        ),
        (
            r#"{"host":"a","rules":[{"environment":"x","limits":{"answer_ms":10,"gap_ms":11}}]}"#,
            "rules[0]: limits: gap_ms is at most answer_ms",
        ),
        (r#"{"host":"a","environment":"x","https":{"redirect":{"port":0}}}"#, "0 is no port"),
    ] {
        let said = refused(json);
        assert!(said.contains(words), "{json} said {said}");
    }
    let rule = |at: usize| format!(r#"{{"path":"/p{at}","environment":"x"}}"#);
    let many = |count| format!(r#"{{"host":"a","rules":[{}]}}"#, (0..count).map(rule).collect::<Vec<_>>().join(","));
    assert_eq!(route(&many(RULES_MAX)).check(), Ok(()));
    assert_eq!(route(&many(RULES_MAX + 1)).check(), Err(RouteError::TooManyRules));
    for good in [
        r#"{"host":"a","rules":[{"path":"/a","environment":"x"},{"path":"/a","match":"exact","environment":"y"}]}"#,
        r#"{"host":"a","rules":[{"environment":"x"},{"method":"GET","environment":"y"}]}"#,
        r#"{"host":"a","rules":[{"headers":[{"name":"x","value":"1"}],"environment":"x"},
            {"headers":[{"name":"x","value":"2"}],"environment":"y"},{"headers":[{"name":"x"}],"environment":"z"}]}"#,
        r#"{"host":"*.a","rules":[{"redirect":{"host":"www.a"}}]}"#,
        r#"{"host":"a","rules":[{"match":"exact","redirect":{"path":"/home"}}]}"#,
        r#"{"host":"a","rules":[{"redirect":{"port":8443,"scheme":"https"}}]}"#,
    ] {
        assert_eq!(route(good).check(), Ok(()), "{good}");
    }
}

#[test]
fn the_most_specific_rule_decides_in_whatever_order_they_are_written() {
    let rules = route(
        r#"{"host":"a","rules":[
            {"environment":"rest"},
            {"path":"/a","environment":"a"},
            {"path":"/a/b/","environment":"ab"},
            {"path":"/a","method":"POST","environment":"post"},
            {"path":"/a","headers":[{"name":"x"},{"name":"y","value":"1"}],"environment":"xy"},
            {"path":"/a","headers":[{"name":"x"}],"environment":"x"},
            {"path":"/a","headers":[{"name":"y","value":"2"}],"environment":"y2"},
            {"path":"/a","match":"exact","environment":"exact"}]}"#,
    );
    let To::Rules(mut rules) = rules.to else { panic!() };
    for _ in 0..2 {
        for (path, method, fields, environment) in [
            ("/", "GET", &[][..], "rest"),
            ("/ab", "GET", &[], "rest"),
            ("/a", "GET", &[], "exact"),
            ("/a", "POST", &[], "exact"),
            ("/a/", "GET", &[], "a"),
            ("/a/b", "POST", &[("x", "")], "ab"),
            ("/a/c", "POST", &[("x", "")], "post"),
            ("/a/c", "GET", &[("x", ""), ("x", "")], "x"),
            ("/a/c", "GET", &[("x", ""), ("y", "1")], "xy"),
            ("/a/c", "GET", &[("x", ""), ("y", "1"), ("y", "1")], "x"),
            ("/a/c", "GET", &[("y", "2")], "y2"),
            ("/a/c", "GET", &[("y", "3")], "a"),
        ] {
            assert_eq!(
                decided(&rules, path, method, fields).as_deref(),
                Some(environment),
                "{method} {path} {fields:?}"
            );
        }
        rules.reverse();
    }
}

fn any_rule() -> impl Strategy<Value = When> {
    let path = select(vec!["/", "/a", "/a/", "/a/b", "/a/b/c", "/b", "/ab"]);
    let field = (select(vec!["x", "y"]), select(vec![None, Some("1"), Some("2")]));
    let parse = |text: &str| text.parse().expect("it is spelt so");
    (path, any::<bool>(), select(vec![None, Some("GET")]), proptest::collection::vec(field, 0..3)).prop_map(
        move |(path, exact, method, fields)| When {
            path: path.parse().expect("a path"),
            matching: if exact { PathMatch::Exact } else { PathMatch::Prefix },
            method: method.map(|method| method.parse().expect("a method")),
            fields: fields
                .into_iter()
                .map(|(name, value)| FieldMatch {
                    name: parse(name),
                    value: value.map(|v| v.parse().expect("a value")),
                })
                .collect(),
        },
    )
}

proptest! {
    /// What the documents say, without any order: of all rules that are met, the one that none beats.
    #[test]
    fn the_decision_is_what_a_naive_reading_of_the_rules_says(
        whens in proptest::collection::vec(any_rule(), 1..8),
        path in "(/(a|b|ab|c)){0,4}/?",
        method in select(vec!["GET", "POST"]),
        fields in proptest::collection::vec((select(vec!["x", "y"]), select(vec!["1", "2"])), 0..3),
    ) {
        let path = if path.is_empty() { "/".to_owned() } else { path };
        let action = |at: usize| Action::Forward(Forward::new(EnvironmentId::new(at.to_string())));
        let rules: Vec<_> =
            whens.iter().cloned().enumerate().map(|(at, when)| Rule { when, action: action(at) }).collect();
        let segments = |path: &str| path.split('/').map(str::to_owned).collect::<Vec<_>>();
        let is_met = |when: &When| {
            let (own, asked) = (segments(when.path.as_prefix()), segments(&path));
            let is_path = match when.matching {
                PathMatch::Exact => when.path.as_str() == path,
                PathMatch::Prefix => asked.starts_with(&own),
            };
            let has = |field: &FieldMatch| {
                let values: Vec<_> = fields.iter().filter(|(name, _)| field.name.to_string() == *name).collect();
                match &field.value {
                    None => !values.is_empty(),
                    Some(value) => values.len() == 1 && values[0].1 == value.to_string(),
                }
            };
            is_path && when.method.as_ref().is_none_or(|own| own.to_string() == method) && when.fields.iter().all(has)
        };
        let beats = |a: &When, b: &When| {
            let (exact, other) = (a.matching == PathMatch::Exact, b.matching == PathMatch::Exact);
            if exact != other { return exact; }
            let (len, other) = (a.path.as_prefix().len(), b.path.as_prefix().len());
            if len != other { return len > other; }
            if a.method.is_some() != b.method.is_some() { return a.method.is_some(); }
            a.fields.len() > b.fields.len()
        };
        let mut best: Option<usize> = None;
        for (at, when) in whens.iter().enumerate().filter(|(_, when)| is_met(when)) {
            if best.is_none_or(|best| beats(when, &whens[best])) { best = Some(at); }
        }
        prop_assert_eq!(decided(&rules, &path, method, &fields), best.map(|at| at.to_string()));
    }
}
