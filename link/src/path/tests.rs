use proptest::prelude::*;

use super::*;

fn normal(path: &str) -> String {
    let mut form = String::new();
    normalise(path, Reading::default(), &mut form);
    form
}

fn read(path: &str, ways: u8) -> String {
    let mut form = String::new();
    normalise(path, Reading(ways), &mut form);
    form
}

#[test]
fn p24_spellings_that_all_agree_on_have_one_normal_form() {
    for (path, form) in [
        ("/", "/"),
        ("/a/b", "/a/b"),
        ("/%61pi", "/api"),
        ("/%7euser", "/~user"),
        ("/caf%c3%a9", "/caf%C3%A9"),
        ("/a+b%2B", "/a+b+"),
        ("/a/./b", "/a/b"),
        ("/a/../b", "/b"),
        ("/a/%2e%2E/b", "/b"),
        ("/../../b", "/b"),
        ("/a/..", "/"),
        ("/a/.", "/a/"),
        ("/a/", "/a/"),
        ("/.well-known/x", "/.well-known/x"),
        ("/...", "/..."),
        ("/a//../b", "/a/b"),
        ("/a{}|^", "/a%7B%7D%7C%5E"),
        ("/%", "/%25"),
        ("/%zz", "/%25zz"),
        ("/%252e%252e/", "/%252e%252e/"),
        ("*", "/"),
        // Not agreed on: kept apart.
        ("//a", "//a"),
        ("/a%2fb", "/a%2Fb"),
        ("/a\\b", "/a%5Cb"),
        ("/a;b/c", "/a;b/c"),
        ("/a%3bb", "/a%3Bb"),
        ("/a%00", "/a%00"),
    ] {
        assert_eq!(normal(path), form, "{path}");
    }
}

#[test]
fn p24_what_servers_disagree_on_is_read_in_each_way() {
    for (path, ways, form) in [
        ("/a%2f..%2Fb", Reading::ESCAPED_SLASH, "/b"),
        ("/a\\..\\b", Reading::BACKSLASH, "/b"),
        ("/a%5c..%5Cb", Reading::BACKSLASH, "/b"),
        ("/a/..;x=1/b", Reading::PARAMETERS, "/b"),
        ("/a;x%2fy/b", Reading::PARAMETERS, "/a/b"),
        ("/a%00b", Reading::ZERO, "/a"),
        ("//a///b//", Reading::MERGED, "/a/b/"),
        ("/a//../b", Reading::MERGED, "/b"),
    ] {
        assert_eq!(read(path, ways), form, "{path}");
        assert!(Reading::all(path).any(|reading| reading == Reading(ways)), "{path}");
    }
    assert_eq!(Reading::all("/a/../%62/%C3%A9").count(), 1);
    assert_eq!(Reading::all("/a//b").count(), 2);
    assert_eq!(Reading::all("/a;b").count(), 4);
    assert_eq!(Reading::all("/%2f\\;%00").count(), 32);
}

#[test]
fn a_prefix_is_of_whole_segments() {
    for (path, prefix, is) in [
        ("/api", "/api", true),
        ("/api/", "/api", true),
        ("/api/x", "/api", true),
        ("/apix", "/api", false),
        ("/api", "/api/", true),
        ("/API", "/api", false),
        ("/x", "/", true),
        ("/", "/", true),
        ("/", "/api", false),
    ] {
        assert_eq!(is_below(path, prefix), is, "{path} {prefix}");
    }
    for (path, prefix, by, result) in [
        ("/api/x", "/api", "/", "/x"),
        ("/api", "/api", "/", "/"),
        ("/api/", "/api", "/v2", "/v2/"),
        ("/api", "/api", "/v2/", "/v2"),
        ("/api/x", "/", "/v2", "/v2/api/x"),
        ("/api//x", "/api", "/", "/x"),
        ("/api//x", "/api", "/v2", "/v2//x"),
    ] {
        assert_eq!(replace(path, prefix, by).as_deref(), Some(result), "{path} {prefix} {by}");
    }
}

#[test]
fn a_path_in_a_table_can_be_read_in_one_way_only() {
    for (good, form) in [("/", "/"), ("/a/", "/a/"), ("/%61", "/a"), ("/.well-known", "/.well-known"), ("/é", "")] {
        match good.parse::<RoutePath>() {
            Ok(path) => assert_eq!(path.as_str(), form),
            Err(error) => assert_eq!((form, error), ("", PathError::Character)),
        }
    }
    for bad in ["/a/..", "/./a", "/a/.", "/%2e/a", "//", "/a//b", "/a%2fb", "/a\\b", "/a;b", "/a%00", "/a/../b/c"] {
        assert_eq!(bad.parse::<RoutePath>(), Err(PathError::Ambiguous), "{bad}");
    }
    for bad in ["", "a", "*"] {
        assert_eq!(bad.parse::<RoutePath>(), Err(PathError::Relative), "{bad}");
    }
    for bad in ["/a?b", "/a#b", "/a b", "/a\u{7f}"] {
        assert_eq!(bad.parse::<RoutePath>(), Err(PathError::Character), "{bad}");
    }
    assert_eq!("/a".repeat(1025).parse::<RoutePath>(), Err(PathError::TooLong));
}

fn any_path() -> impl Strategy<Value = String> {
    prop_oneof![
        "(/(a|b|\\.|\\.\\.|%2e|%2E%2e|%61|%2f|%5C|\\\\|;|;a|%3b|%00|%|%zz|%25|2e|\\{|~|é){0,3}){1,6}",
        "/[!-~]{0,12}",
        "[!-~]{0,6}"
    ]
}

proptest! {
    #[test]
    fn normalising_is_idempotent_in_every_reading(path in any_path()) {
        for reading in Reading::all(&path) {
            let (mut once, mut twice) = (String::new(), String::new());
            normalise(&path, reading, &mut once);
            normalise(&once, reading, &mut twice);
            prop_assert_eq!(&once, &twice, "{:?}", reading);
            prop_assert!(once.starts_with('/') && once.is_ascii());
            let is_dots = |segment: &str| matches!(segment, "." | "..");
            prop_assert!(!once.split('/').any(is_dots), "{}", once);
            // A normal form is read as its path is, where nothing is in doubt any more.
            prop_assert_eq!(normal(&once), once);
        }
    }

    #[test]
    fn what_is_taken_as_normal_is(path in any_path()) {
        if is_normal(&path) {
            prop_assert_eq!(normal(&path), path.as_str());
            prop_assert_eq!(Reading::all(&path).count(), 1);
        }
    }

    #[test]
    fn a_path_of_a_table_parses_to_itself(path in any_path()) {
        if let Ok(parsed) = path.parse::<RoutePath>() {
            prop_assert_eq!(parsed.as_str().parse::<RoutePath>(), Ok(parsed.clone()));
            prop_assert_eq!(normal(parsed.as_str()), parsed.as_str());
        }
    }

    /// A server that decodes everything first, and resolves then, as most do.
    #[test]
    fn a_reading_is_what_some_server_makes_of_the_path(path in "(/(a|\\.\\.|%2e%2e|%61|%2f|\\\\|b;c)){1,6}") {
        let decoded = path.replace("%2e", ".").replace("%61", "a").replace("%2f", "/").replace('\\', "/").replace(";c", "");
        let mut stack = Vec::new();
        for segment in decoded.split('/').filter(|segment| !segment.is_empty()) {
            if segment == ".." { stack.pop(); } else { stack.push(segment); }
        }
        let resolved = stack.join("/");
        let mut form = String::new();
        let found = Reading::all(&path).any(|reading| {
            normalise(&path, reading, &mut form);
            form.trim_matches('/') == resolved
        });
        prop_assert!(found, "{}", resolved);
    }
}
