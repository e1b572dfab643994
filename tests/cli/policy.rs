//! How visitors are treated: the words for it, and a password that is on stdin and nowhere else.

use std::process::Stdio;

use super::*;

/// Runs the program with something to read.
fn reading(stub: &Stub, words: &[&str], input: &[u8]) -> Output {
    let mut command = program();
    command.args(words).args(["--api", &stub.url, "--token", "secret"]);
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it runs");
    // It need not read all of it.
    let _ = child.stdin.take().unwrap().write_all(input);
    child.wait_with_output().unwrap()
}

const SET: [&str; 3] = ["environment", "set", "hello"];
const POLICY: [&str; 3] = ["environment", "policy", "hello"];

#[test]
fn a_password_is_read_from_stdin_and_leaves_as_a_hash() {
    for (input, password) in [("open sesame\n", "open sesame"), ("x\r\n", "x"), ("no end", "no end")] {
        let stub = Stub::json(&app()["environments"][0]);
        let output = reading(&stub, &[&SET[..], &["--password", "ann"]].concat(), input.as_bytes());
        assert_eq!(code(&output), 0, "{}", err(&output));
        let body: Value = serde_json::from_str(&stub.asked().body).unwrap();
        let hash = body["passwords"]["ann"].as_str().unwrap();
        assert!(hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{body}");
        for told in [out(&output), err(&output), &stub.asked().body] {
            assert!(password == "x" || !told.contains(password), "{told}");
        }
    }
    let long = "x".repeat(257);
    for bad in ["", "\n", "a\tb\n", &long, &format!("{long}\n")] {
        let stub = Stub::json(&app()["environments"][0]);
        let output = reading(&stub, &[&SET[..], &["--password", "ann"]].concat(), bad.as_bytes());
        fails(&output, 65, &["the password ", "hint: "]);
        assert!(stub.asked.lock().unwrap().is_empty(), "{bad:?}");
    }
}

#[test]
fn everyday_words_become_what_they_say() {
    for (words, body) in [
        (&["--maintenance", "on"][..], json!({"maintenance": true})),
        (&["--maintenance", "off", "--pause", "on"], json!({"maintenance": false, "pause": true})),
        (&["--index", "off"], json!({"indexed": false})),
        (&["--remove-password", "ann", "--remove-password", "bob"], json!({"passwords": {"ann": null, "bob": null}})),
    ] {
        let stub = Stub::json(&app()["environments"][0]);
        assert_eq!(code(&stub.run(&[&SET[..], words].concat())), 0, "{words:?}");
        assert_eq!(serde_json::from_str::<Value>(&stub.asked().body).unwrap(), body);
    }
}

#[test]
fn a_policy_is_shown_said_by_a_file_and_removed() {
    let policy = json!({"maintenance": {"retry_after_seconds": 60}});
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), policy.to_string()).unwrap();
    let file = file.path().to_str().unwrap();
    for (words, input, asked) in [
        (&[][..], "", "GET"),
        (&["--file", file, "-e", "live"], "", "PUT"),
        (&["--file", "-"], r#"{"maintenance": {"retry_after_seconds": 60}}"#, "PUT"),
        (&["--clear"], "", "DELETE"),
    ] {
        let stub = Stub::json(&policy);
        let output = reading(&stub, &[&POLICY[..], words].concat(), input.as_bytes());
        assert_eq!(code(&output), 0, "{}", err(&output));
        assert_eq!(serde_json::from_str::<Value>(out(&output)).unwrap(), policy, "what is shown can be said again");
        let name = if words.contains(&"live") { "live" } else { "test" };
        let asked = format!("{asked} /api/v1/apps/hello/environments/{name}/policy HTTP/1.1");
        assert_eq!(stub.asked().line, asked);
        let body = if asked.starts_with("PUT") { policy.to_string() } else { String::new() };
        assert_eq!(stub.asked().body, body);
    }
    for (words, input, parts) in [
        (&["--file", "/nonexistent/policy.json"][..], "", &["cannot read /nonexistent/policy.json", "docs/policy.md"]),
        (&["--file", "-"], "{", &["stdin is no JSON", "docs/policy.md"]),
    ] {
        let stub = Stub::json(&policy);
        fails(&reading(&stub, &[&POLICY[..], words].concat(), input.as_bytes()), 65, parts);
        assert!(stub.asked.lock().unwrap().is_empty());
    }
    fails(&dormouse(&[&POLICY[..], &["--file", "-", "--clear"]].concat()), 64, &["cannot be used with"]);
}

/// A page in a language that is written from the right has such marks, and a terminal must not follow them.
#[test]
fn what_a_policy_shows_is_the_same_policy_when_it_is_said_again_and_moves_no_cursor() {
    let page = "a\u{202e}b\u{2028}c\u{9b}d\u{7f}e\u{200f}f\u{1b}[2J\t\"\\ \u{fffe}\u{1f600} אé\n";
    let policy = json!({"pages": {"waking": page, "denied": "\u{2069}"}});
    let shown = Stub::json(&policy).run(&POLICY);
    assert_eq!(code(&shown), 0, "{}", err(&shown));
    let moves =
        |letter: char| letter != '\n' && (letter.is_control() || "\u{202e}\u{2028}\u{200f}\u{2069}".contains(letter));
    assert!(!out(&shown).contains(moves), "{:?}", out(&shown));
    assert!(out(&shown).contains("אé"), "what is only itself is shown as it is: {}", out(&shown));
    let stub = Stub::json(&policy);
    assert_eq!(code(&reading(&stub, &[&POLICY[..], &["--file", "-"]].concat(), out(&shown).as_bytes())), 0);
    assert_eq!(serde_json::from_str::<Value>(&stub.asked().body).unwrap(), policy);
}

#[test]
fn a_change_that_an_edge_has_yet_to_take_is_told() {
    let stub = Stub::new(202, "application/json", json!({}));
    let output = stub.run(&[&POLICY[..], &["--clear"]].concat());
    assert_eq!((code(&output), out(&output)), (0, "{}\n"));
    for words in ["not every edge serves by it", "one that is late will", "why one refused it is in the log"] {
        assert!(err(&output).contains(words), "{}", err(&output));
    }
}

#[test]
fn how_visitors_are_treated_shows_beside_the_state() {
    let mut app = app();
    app["environments"][0]["policy"] = json!({"maintenance": true, "paused": true, "protected_by": ["password"],
        "users": ["ann"], "indexed": false});
    let output = Stub::json(&app).run(&["status", "hello"]);
    assert!(out(&output).contains("(maintenance, paused, protected)"), "{}", out(&output));
    let output = Stub::json(&app["environments"][0]).run(&[&SET[..], &["--maintenance", "on"]].concat());
    for line in ["maintenance   yes", "paused        yes", "protected by  password", "users         ann"] {
        assert!(out(&output).contains(line), "{line}: {}", out(&output));
    }
}
