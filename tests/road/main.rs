//! The whole road from outside: a push with real git, over HTTP, to an answer of the edge.
//!
//! Each promise is kept on the scripted engine and on real Docker by the very same scenario; what only one of them can
//! show (a fault at a chosen moment, a killed process) is told by its module.

mod addresses;
mod bad_input;
mod crash;
mod crowd;
mod deaf;
mod deploy;
mod descriptors;
mod engine_failures;
mod faults;
mod folder;
mod full_disk;
mod gone_wrong;
mod hostile;
mod http;
mod isolation;
mod life;
mod logs;
mod narrow;
mod policy;
mod private_engine;
mod program;
mod refusals;
mod restart;
mod sandbox;
mod sockets;
mod source;
mod sweep;
mod wake;
mod world;

/// Says that this machine cannot show something, and why; fails where everything is to be shown (`DORMOUSE_TEST_ALL=1`).
#[expect(clippy::disallowed_methods, reason = "what is tested is not the program's configuration")]
pub(crate) fn not_tested(why: &str) {
    let all = std::env::var_os("DORMOUSE_TEST_ALL").is_some_and(|value| value == "1");
    assert!(!all, "not tested, as DORMOUSE_TEST_ALL asks for: {why}");
    eprintln!("not tested: {why}");
}

/// A scenario, once on each engine.
#[macro_export]
macro_rules! on_both_engines {
    ($($scenario:ident),+ $(,)?) => {
        mod fake {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $scenario() {
                super::$scenario($crate::world::World::fake().await).await;
            })+
        }
        mod docker {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $scenario() {
                super::$scenario($crate::world::World::docker().await).await;
            })+
        }
    };
}
