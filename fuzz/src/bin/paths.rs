//! Paths out of any bytes: each reading has one normal form, in which nothing is left to be resolved, and a path that a table takes is
//! read in one way only.

#![no_main]

use dormouse_link::RoutePath;
use dormouse_link::path::{Reading, is_normal, normalise, replace};

libfuzzer_sys::fuzz_target!(|path: &str| {
    if path.len() > 4096 {
        return;
    }
    let (mut form, mut again) = (String::new(), String::new());
    let readings: Vec<_> = Reading::all(path).collect();
    assert_eq!(readings[0], Reading::default());
    for &reading in &readings {
        normalise(path, reading, &mut form);
        assert!(form.starts_with('/') && form.is_ascii() && form.len() <= 1 + 3 * path.len());
        assert!(!form.split('/').any(|segment| matches!(segment, "." | "..")), "nothing is left to be resolved");
        normalise(&form, reading, &mut again);
        assert_eq!(form, again, "it is its own normal form");
        let replaced = replace(&form, "/a", "/").into_iter().chain(replace(&form, "/a", "/b"));
        replaced.for_each(|path| assert!(path.starts_with('/')));
    }
    if is_normal(path) {
        normalise(path, Reading::default(), &mut form);
        assert_eq!((form.as_str(), readings.len()), (path, 1));
    }
    if let Ok(parsed) = path.parse::<RoutePath>() {
        assert_eq!(parsed.as_str().parse(), Ok(parsed.clone()), "it has one spelling");
        assert_eq!(readings.len(), 1, "and one reading");
    }
});
