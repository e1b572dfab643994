//! What the fake engine has, and what happens to it by itself or by an outsider.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use dormouse_link::InstanceId;

use super::process::{Fate, KILLED, Process};
use super::script::Script;
use super::{Fault, Operation};
use crate::engine::{Image, Instance, LogLine, Observed, Status};

/// Lines kept of an instance's log; older ones go.
const LOG_MAX_LINES: usize = 10_000;

#[derive(Default)]
pub(super) struct State {
    pub(super) down: bool,
    pub(super) faults: Vec<(Operation, Fault)>,
    pub(super) images: BTreeMap<String, Baked>,
    pub(super) instances: BTreeMap<InstanceId, Held>,
    pub(super) starts: BTreeMap<InstanceId, u64>,
    pub(super) builds: u64,
    pub(super) calls: Vec<Operation>,
    pub(super) runs: u64,
    /// The last process at each address.
    pub(super) ports: BTreeMap<SocketAddr, Fate>,
}

/// An image.
#[derive(Clone)]
pub(super) struct Baked {
    pub(super) image: Image,
    pub(super) script: Script,
}

/// An instance.
pub(super) struct Held {
    pub(super) instance: Instance,
    pub(super) sandbox: Option<Process>,
    pub(super) app: App,
    pub(super) script: Script,
    pub(super) log: Vec<LogLine>,
    /// Lines that went from the log's beginning.
    pub(super) log_gone: usize,
}

/// An application container.
pub(super) enum App {
    Never,
    Running { process: Process, run: u64, paused: bool },
    Ended { code: i64, cause: Cause },
}

/// Why an application ended.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Cause {
    Any,
    Memory,
}

impl State {
    /// The fault that stands against a call, if any; it is used up.
    pub(super) fn fault(&mut self, operation: Operation) -> Option<Fault> {
        if self.down {
            return Some(Fault::Unavailable);
        }
        let at = self.faults.iter().position(|(of, _)| *of == operation)?;
        Some(self.faults.remove(at).1)
    }

    pub(super) fn observed(&self) -> Vec<Observed> {
        let observed = |held: &Held| Observed {
            id: held.instance.id.clone(),
            environment: held.instance.environment.clone(),
            status: held.status(),
        };
        self.instances.values().map(observed).collect()
    }

    pub(super) fn kill(&mut self, instance: &InstanceId) {
        if let Some(held) = self.instances.get_mut(instance) {
            held.end(KILLED);
        }
    }

    pub(super) fn run_out_of_memory(&mut self, instance: &InstanceId) {
        self.kill(instance);
        if let Some(App::Ended { cause, .. }) = self.instances.get_mut(instance).map(|held| &mut held.app) {
            *cause = Cause::Memory;
        }
    }

    pub(super) fn ran_out_of_memory(&self, instance: &InstanceId) -> bool {
        let ended = self.instances.get(instance).map(|held| &held.app);
        matches!(ended, Some(App::Ended { cause: Cause::Memory, .. }))
    }

    pub(super) fn pause(&mut self, instance: &InstanceId) {
        if let Some(App::Running { paused, .. }) = self.instances.get_mut(instance).map(|held| &mut held.app) {
            *paused = true;
        }
    }

    pub(super) fn lose_sandbox(&mut self, instance: &InstanceId) {
        if let Some(held) = self.instances.get_mut(instance) {
            held.sandbox = None;
        }
    }

    pub(super) fn restart(&mut self) {
        for held in self.instances.values_mut() {
            held.sandbox = None;
            held.end(KILLED);
        }
    }

    /// Processes at `address` that are dead, and may still hold their ports.
    pub(super) fn dying(&self, address: IpAddr) -> Vec<Fate> {
        let here = self.ports.iter().filter(|(at, fate)| at.ip() == address && fate.is_sealed());
        here.map(|(_, fate)| fate.clone()).collect()
    }

    /// Removes what is left of an instance that cannot be started as it is.
    pub(super) fn bury(&mut self, instance: &Instance) {
        let usable = |held: &Held| held.sandbox.is_some() && held.instance.address == instance.address;
        if self.instances.get(&instance.id).is_some_and(|held| !usable(held)) {
            self.instances.remove(&instance.id);
        }
    }

    /// The process of `run` ended by itself.
    pub(super) fn ended(&mut self, instance: &InstanceId, of: u64, code: i64) {
        if let Some(held) = self.instances.get_mut(instance)
            && matches!(&held.app, App::Running { run, .. } if *run == of)
        {
            held.end(code);
        }
    }
}

impl Held {
    fn status(&self) -> Status {
        match (&self.sandbox, &self.app) {
            (None, App::Running { .. }) => Status::Stranded,
            (None, _) => Status::Broken,
            (_, App::Never) => Status::Stopped { code: None },
            (_, App::Running { paused: true, .. }) => Status::Paused,
            (_, App::Running { .. }) => Status::Running,
            (_, App::Ended { code, .. }) => Status::Stopped { code: Some(*code) },
        }
    }

    fn end(&mut self, code: i64) {
        match std::mem::replace(&mut self.app, App::Never) {
            App::Running { process, .. } => {
                process.kill();
                self.app = App::Ended { code, cause: Cause::Any };
            }
            other => self.app = other,
        }
    }

    pub(super) fn write(&mut self, line: LogLine) {
        self.log.push(line);
        if self.log.len() > LOG_MAX_LINES {
            self.log.remove(0);
            self.log_gone += 1;
        }
    }
}
