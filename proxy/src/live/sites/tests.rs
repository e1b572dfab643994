use std::collections::BTreeMap;

use proptest::prelude::*;
use proptest::sample::select;

use super::*;

fn site(id: &str) -> Site {
    let route = Route::new(HostPattern::any(), EnvironmentId::new(id));
    Site::next(&route, None, |id| Arc::new(Cell::new(id.clone())))
}

fn found(sites: &Sites, host: &str) -> Option<String> {
    sites.with(host, |site| Some(site?.cells()[0].id.to_string()))
}

const PATTERNS: [&str; 9] =
    ["*", "*.a", "*.b.a", "a", "b.a", "c.b.a", "*.c.b.a", "127.0.0.1", "very-long-name.of-a-host.with-many-labels.a"];

proptest! {
    /// An exact name, else the pattern one label above, else the rest: as a reader of the documents would do it.
    #[test]
    fn a_host_is_found_as_a_naive_reading_of_the_table_finds_it(
        changes in proptest::collection::vec((select(PATTERNS.to_vec()), any::<bool>()), 0..20),
        batch in 1_usize..5,
    ) {
        let (sites, mut plain) = (Sites::new(), BTreeMap::new());
        for changes in changes.chunks(batch) {
            let mut batch = HashMap::new();
            for (pattern, is_there) in changes {
                batch.insert(pattern.parse().expect("a pattern"), is_there.then(|| site(pattern)));
                plain.insert(*pattern, *is_there);
            }
            sites.set_all(&batch);
        }
        let has = |pattern: &str| plain.get(pattern).copied().unwrap_or_default();
        for host in ["a", "b.a", "c.b.a", "x.a", "x.b.a", "x.c.b.a", "x.y.b.a", "z", "127.0.0.1", "127.0.0.2", "[::1]",
            "very-long-name.of-a-host.with-many-labels.a"]
        {
            let above = host.split_once('.').map(|(_, domain)| format!("*.{domain}"));
            let is_address = host.starts_with("127.");
            let naive = if has(host) {
                Some(host.to_owned())
            } else if let Some(above) = above.filter(|above| !is_address && has(above)) {
                Some(above)
            } else {
                has("*").then(|| "*".to_owned())
            };
            prop_assert_eq!(found(&sites, host), naive, "{}", host);
        }
    }
}
