//! One life of Dormouse: in this process on a runtime of its own, or as the program itself. It ends in order, or as by `kill -9`.

use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use dormouse::app::{Addresses, App};
use dormouse::config::UpConfig;
use dormouse_control::engine::Engine;
use dormouse_control::engine::docker::Docker;
use dormouse_control::engine::fake::Fake;
use tokio::runtime::{Builder, Runtime};
use tokio::task::block_in_place;
use tokio::time::Instant;

use crate::narrow::Narrow;
use crate::program::Program;
use crate::world::SOON;

pub(crate) enum Life {
    Here { app: Box<App>, runtime: Runtime, data: std::path::PathBuf },
    Program(Program),
}

/// How many addresses instances have.
#[derive(Clone, Copy)]
pub(crate) enum Room {
    /// As many as the engine's network has.
    Ample,
    /// So few that they are used again soon.
    Narrow,
}

impl Life {
    /// In this process: on the scripted engine, or on Docker.
    pub(crate) fn here(config: &UpConfig, fake: Option<&Fake>, room: Room) -> (Self, Arc<dyn Engine>) {
        let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
        let slot: OnceLock<Arc<dyn Engine>> = OnceLock::new();
        let connect = async |installation: String| {
            let engine: Arc<dyn Engine> = match fake {
                Some(fake) => Arc::new(fake.clone()),
                None => Arc::new(Docker::connect(config.engine.as_deref(), &installation).await?),
            };
            let engine = match room {
                Room::Ample => engine,
                Room::Narrow => Arc::new(Narrow(engine)),
            };
            Ok(slot.get_or_init(|| engine).clone())
        };
        let app = block_in_place(|| runtime.block_on(App::start(config, connect, None)));
        let app = Box::new(app.unwrap_or_else(|failure| panic!("{failure:?}")));
        let data = config.data.clone();
        (Self::Here { app, runtime, data }, slot.into_inner().expect("it connected"))
    }

    /// As the program, on Docker.
    pub(crate) fn program(data: &Path) -> Self {
        Self::Program(block_in_place(|| Program::start(data, &[])))
    }

    /// As the program, with a crash at a point.
    #[cfg(feature = "crash-points")]
    pub(crate) fn crashing_program(data: &Path, point: &str) -> Self {
        Self::Program(block_in_place(|| Program::crashing(data, point)))
    }

    /// Waits for the end that the program makes of itself.
    #[cfg(feature = "crash-points")]
    pub(crate) fn crashed(self) {
        let Self::Program(mut program) = self else { panic!("only a process can end itself") };
        let status = block_in_place(|| program.ended());
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(6), "it aborts: {status}");
    }

    pub(crate) fn addresses(&self) -> Addresses {
        match self {
            Self::Here { app, .. } => app.addresses(),
            Self::Program(program) => Addresses {
                http: Some(program.address("http")),
                https: Some(program.address("https")),
                api: program.address("api"),
                admin: Some(program.address("admin")),
            },
        }
    }

    /// Told to stop.
    pub(crate) async fn stop(self) {
        match self {
            Self::Here { app, runtime, .. } => {
                app.stop().await;
                runtime.shutdown_background();
            }
            Self::Program(mut program) => {
                program.signal("-TERM");
                block_in_place(|| program.ended());
            }
        }
    }

    /// Ends at once: nothing that runs gets another turn, and nothing is written any more.
    pub(crate) fn kill(self) {
        block_in_place(|| match self {
            Self::Here { app, runtime, data } => {
                let handle = runtime.handle().clone();
                runtime.shutdown_timeout(SOON);
                // What it holds may want to know where it is let go.
                let context = handle.enter();
                drop(app);
                drop(context);
                until_let_go(&data);
            }
            Self::Program(mut program) => {
                program.signal("-KILL");
                program.ended();
            }
        });
    }
}

/// SQLite's threads end by themselves; of a killed process nothing would hold the files.
#[expect(clippy::disallowed_methods, reason = "outside of any runtime")]
fn until_let_go(data: &Path) {
    let deadline = Instant::now() + SOON;
    let held = || {
        let all = std::fs::read_dir("/proc/self/fd").expect("this is Linux").flatten();
        all.filter_map(|file| std::fs::read_link(file.path()).ok()).find(|file| file.starts_with(data))
    };
    while let Some(file) = held() {
        assert!(Instant::now() < deadline, "{} is held after the end", file.display());
        std::thread::sleep(Duration::from_millis(1));
    }
}
