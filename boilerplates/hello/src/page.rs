//! The application's own page, for people and for programs.

use crate::App;
use crate::http::Request;

/// What is shown, in this order: a title, the variable it comes from, its name in JSON.
const FACTS: [(&str, &str, &str); 7] = [
    ("Stage", "STAGE", "stage"),
    ("Debug", "DEBUG", "debug"),
    ("Domain", "DOMAIN", "domain"),
    ("Aliases", "DOMAIN_ALIASES", "domain_aliases"),
    ("Deployment", "DEPLOYMENT", "deployment"),
    ("Commit", "GIT_COMMIT", "commit"),
    ("Branch", "GIT_BRANCH", "branch"),
];

pub fn html(app: &App, request: &Request) -> String {
    let row = |title: &str, value: &str| format!("<tr><th>{}</th><td>{}</td></tr>\n", escaped(title), escaped(value));
    let stage = app.settings.get("STAGE").unwrap_or_else(|| "local".to_owned());
    let mut facts: String = FACTS
        .iter()
        .filter_map(|(title, variable, _)| app.settings.get(variable).map(|value| row(title, &value)))
        .collect();
    facts += &row("Instance", &app.settings.host_name);
    let headers: String = request.headers.iter().map(|(name, value)| row(name, value)).collect();
    // What people wrote comes last, so that nothing is replaced inside of it.
    include_str!("page.html")
        .replace("{stage}", &escaped(&stage))
        .replacen("{facts}", &facts, 1)
        .replacen("{headers}", &headers, 1)
        .replacen("{message}", &escaped(&app.settings.message), 1)
}

pub fn json(app: &App, request: &Request) -> String {
    let mut facts = String::new();
    for (_, variable, name) in FACTS {
        facts += &format!("{}:{},", quoted(name), app.settings.get(variable).map_or("null".to_owned(), |v| quoted(&v)));
    }
    let (message, instance) = (quoted(&app.settings.message), quoted(&app.settings.host_name));
    let headers = header_list(request);
    format!("{{{facts}\"message\":{message},\"instance\":{instance},\"headers\":{headers}}}\n")
}

pub fn headers_json(request: &Request) -> String {
    format!("{{\"headers\":{}}}\n", header_list(request))
}

/// A list of pairs: a name may come more than once.
fn header_list(request: &Request) -> String {
    let pair = |(name, value): &(String, String)| format!("[{},{}]", quoted(name), quoted(value));
    format!("[{}]", request.headers.iter().map(pair).collect::<Vec<_>>().join(","))
}

fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for letter in text.chars() {
        match letter {
            '"' | '\\' => out.extend(['\\', letter]),
            _ if letter.is_control() => out += &format!("\\u{:04x}", u32::from(letter)),
            _ => out.push(letter),
        }
    }
    out + "\""
}

fn escaped(text: &str) -> String {
    let mut out = String::new();
    for letter in text.chars() {
        match letter {
            '&' => out += "&amp;",
            '<' => out += "&lt;",
            '>' => out += "&gt;",
            '"' => out += "&quot;",
            '\'' => out += "&#39;",
            _ => out.push(letter),
        }
    }
    out
}
