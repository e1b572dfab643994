//! What an operator finds in the log when something fails with every request.

use std::sync::{Arc, Mutex};

use tokio::time::Instant;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Metadata, Subscriber, span};

use crate::world::World;
use crate::world::origin::Origin;

/// A warning: whom it is about, how many were left out before it.
#[derive(Clone, Debug, Default)]
struct Line {
    words: String,
    environment: String,
    left_out: u64,
}

impl Visit for Line {
    fn record_u64(&mut self, field: &Field, value: u64) {
        if field.name() == "left_out" {
            self.left_out = value;
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        match field.name() {
            "message" => self.words = format!("{value:?}"),
            "environment.id" => self.environment = format!("{value:?}"),
            _ => {}
        }
    }
}

/// Keeps the warnings of the proxy.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<Line>>>);

impl Subscriber for Log {
    fn enabled(&self, of: &Metadata<'_>) -> bool {
        *of.level() <= Level::WARN && of.target().starts_with("dormouse_proxy")
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn event(&self, event: &Event<'_>) {
        let mut line = Line::default();
        event.record(&mut line);
        self.0.lock().expect("no test panics with it").push(line);
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}
    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
    fn enter(&self, _: &span::Id) {}
    fn exit(&self, _: &span::Id) {}
}

#[tokio::test]
async fn an_instance_that_is_away_is_told_once_a_second_for_each_environment_and_none_is_uncounted() {
    const REQUESTS: usize = 100;
    let log = Log::default();
    tracing::subscriber::set_global_default(log.clone()).expect("the only one of this process");
    let mut world = World::with(|config| config.limits.connect_total = std::time::Duration::from_millis(1)).await;
    let (one, two) = (Origin::down("one").await, Origin::down("two").await);
    world.serve("a.example", &[&one]).await;
    world.serve("b.example", &[&two]).await;
    let began = Instant::now();
    for _ in 0..REQUESTS {
        for host in ["a.example", "b.example"] {
            assert_eq!(world.get(host, "/").await.status, 502);
        }
    }
    let most = usize::try_from(began.elapsed().as_secs()).expect("it is short") + 1;
    let lines = log.0.lock().expect("no test panics with it").clone();
    for host in ["a.example", "b.example"] {
        let of: Vec<_> = lines.iter().filter(|line| line.environment.contains(host)).collect();
        assert!((1..=most).contains(&of.len()), "{host}: {} lines in {:?}", of.len(), began.elapsed());
        assert!(of.iter().all(|line| line.words.contains("could not be connected to")), "{of:?}");
        let said = of.iter().map(|line| 1 + line.left_out).sum::<u64>();
        assert!(said <= REQUESTS as u64, "{said} of {REQUESTS}");
    }
    assert_eq!(lines.iter().filter(|line| line.environment.is_empty()).count(), 0, "{lines:?}");
    world.stop().await;
}
