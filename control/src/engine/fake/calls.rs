//! What calls do to the fake engine.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Weak};
use std::time::Duration;

use dormouse_link::InstanceId;
use tokio::sync::mpsc;

use super::Inner;
use super::process::{Answers, Process, spawn};
use super::script::Script;
use super::state::{App, Baked, Held, State};
use crate::engine::log::Log;
use crate::engine::{BuildError, EngineError, Image, Instance, LogLine, Logs, SANDBOX_PORT, Started};

/// Lines that were read and not taken yet.
const WAITING_MAX: usize = 64;

impl Inner {
    pub(super) async fn build(
        &self,
        tag: &str,
        dockerfile: &str,
        log: mpsc::Sender<String>,
    ) -> Result<Image, BuildError> {
        let script = Script::parse(dockerfile).map_err(BuildError::Failed)?;
        let mut log = Log::new(log);
        let steps: Vec<&str> = dockerfile.lines().filter(|line| !line.starts_with('#') && !line.is_empty()).collect();
        for (number, step) in steps.iter().enumerate() {
            log.line(format!("Step {}/{} : {step}", number + 1, steps.len())).await;
        }
        for _ in 0..script.build_log {
            log.line("x".repeat(1024)).await;
        }
        tokio::time::sleep(script.slow_build).await;
        if let Some(words) = script.fail_build {
            return Err(BuildError::Failed(words));
        }
        let mut state = self.state();
        state.builds += 1;
        let id = format!("sha256:{:064x}", state.builds);
        let image = Image { id, exposed: script.exposed.clone(), port: script.port.clone() };
        state.images.insert(tag.to_owned(), Baked { image: image.clone(), script });
        Ok(image)
    }

    pub(super) async fn start(self: &Arc<Self>, instance: Instance) -> Result<Started, EngineError> {
        let _one = self.changing.lock().await;
        if self.is_of_old(instance.address) {
            let says = "no configured subnet contains IP address".to_owned();
            return Err(EngineError::Refused { doing: "start".to_owned(), says });
        }
        self.state().bury(&instance);
        self.free(instance.address).await;
        let started = self.start_now(&instance)?;
        if started == Started::Container {
            self.report();
        }
        Ok(started)
    }

    /// Waits until processes that are dead have let go of their ports at `address`.
    async fn free(&self, address: IpAddr) {
        let dying = self.state().dying(address);
        for fate in dying {
            fate.ended().await;
        }
    }

    fn start_now(self: &Arc<Self>, instance: &Instance) -> Result<Started, EngineError> {
        let mut state = self.state();
        let mut held = match state.instances.remove(&instance.id) {
            Some(held) => held,
            None => {
                let Some(baked) = state.images.get(&instance.image) else {
                    return Err(EngineError::NoImage(instance.image.clone()));
                };
                let script = baked.script.clone();
                let sandbox = Some(self.sandbox(&mut state, instance));
                let instance = instance.clone();
                Held { instance, sandbox, app: App::Never, script, log: Vec::new(), log_gone: 0 }
            }
        };
        let started = self.run(&mut state, &mut held);
        state.instances.insert(instance.id.clone(), held);
        started
    }

    fn run(self: &Arc<Self>, state: &mut State, held: &mut Held) -> Result<Started, EngineError> {
        match &mut held.app {
            App::Running { paused, .. } if *paused => {
                *paused = false;
                return Ok(Started::Container);
            }
            App::Running { .. } => return Ok(Started::Nothing),
            App::Never | App::Ended { .. } => {}
        }
        if let Some(words) = &held.script.cannot_start {
            return Err(EngineError::Start(words.clone()));
        }
        for line in held.script.log.clone() {
            held.write(line);
        }
        state.runs += 1;
        *state.starts.entry(held.instance.id.clone()).or_default() += 1;
        let (run, id, engine) = (state.runs, held.instance.id.clone(), Arc::downgrade(self));
        let end = move |code| {
            if let Some(engine) = Weak::upgrade(&engine) {
                engine.state().ended(&id, run, code);
                engine.report();
            }
        };
        let answers = Answers::new(held.script.clone(), &held.instance.variables, self.posts.clone());
        let at = SocketAddr::new(held.instance.address, port(held));
        let process = spawn(&self.thread, at, answers, end);
        state.ports.insert(at, process.fate());
        held.app = App::Running { process, run, paused: false };
        Ok(Started::Container)
    }

    fn sandbox(&self, state: &mut State, instance: &Instance) -> Process {
        let answers = Answers { script: Script::default(), text: instance.id.to_string(), posts: Arc::default() };
        let at = SocketAddr::new(instance.address, SANDBOX_PORT);
        let process = spawn(&self.thread, at, answers, drop);
        state.ports.insert(at, process.fate());
        process
    }

    pub(super) async fn stop(&self, instance: &InstanceId, grace: Duration) {
        let fate = match self.state().instances.get(instance).map(|held| &held.app) {
            Some(App::Running { process, .. }) => {
                process.terminate();
                process.fate()
            }
            _ => return,
        };
        if tokio::time::timeout(grace, fate.ended()).await.is_err() {
            self.state().kill(instance);
            fate.ended().await;
        }
    }

    pub(super) async fn remove(&self, instance: &InstanceId) {
        let _one = self.changing.lock().await;
        let Some(held) = self.state().instances.remove(instance) else { return };
        let address = held.instance.address;
        drop(held);
        self.free(address).await;
        self.report();
    }

    pub(super) fn logs(
        self: &Arc<Self>,
        instance: &InstanceId,
        lines: Logs,
    ) -> Result<mpsc::Receiver<LogLine>, EngineError> {
        let state = self.state();
        let held = state.instances.get(instance).ok_or_else(|| EngineError::NoInstance(instance.clone()))?;
        let tail = usize::try_from(lines.tail).unwrap_or(usize::MAX);
        let mut next = held.log_gone + held.log.len().saturating_sub(tail);
        let (sender, receiver) = mpsc::channel(WAITING_MAX);
        let (engine, id, mut happened) = (Arc::downgrade(self), instance.clone(), self.happened.subscribe());
        self.thread.spawn(async move {
            loop {
                happened.mark_unchanged();
                let Some((found, running)) = Weak::upgrade(&engine).and_then(|engine| engine.lines(&id, next)) else {
                    return;
                };
                next += found.len();
                for line in found {
                    if sender.send(line).await.is_err() {
                        return;
                    }
                }
                if !(lines.follow && running) {
                    return;
                }
                // Neither loses anything: both only wait.
                tokio::select! {
                    () = sender.closed() => return,
                    changed = happened.changed() => if changed.is_err() { return },
                }
            }
        });
        Ok(receiver)
    }

    /// The log from line `next` on, and whether there may be more.
    fn lines(&self, instance: &InstanceId, next: usize) -> Option<(Vec<LogLine>, bool)> {
        let state = self.state();
        let held = state.instances.get(instance)?;
        let lines = held.log.iter().skip(next.saturating_sub(held.log_gone)).cloned().collect();
        Some((lines, matches!(held.app, App::Running { .. })))
    }
}

/// Where the application listens: as its variable PORT says, or else its image.
fn port(held: &Held) -> u16 {
    let said = held.instance.variables.get("PORT").or(held.script.port.as_ref());
    let said = said.and_then(|port| port.parse().ok());
    said.or(held.script.exposed.first().copied()).unwrap_or(80)
}
