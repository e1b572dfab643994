//! Instances: a sandbox that holds network namespace and address, and the application container joined to it.
//!
//! Each call lists what is there, and does what is needed ([`Parts::need`]). When something changed in between, it looks
//! again, a few times.

use std::time::Duration;

use bollard::models::ContainerSummary;
use bollard::query_parameters::{
    ListContainersOptions, RemoveContainerOptions, StartContainerOptions, StopContainerOptions,
};
use dormouse_link::InstanceId;

use super::parts::{Need, Parts, group, observed};
use super::{ANSWER_WITHIN, APP, CHANGE_WITHIN, Docker, Fault, INSTANCE, PART};
use crate::engine::{EngineError, Instance, Observed, Started};

/// How often a call looks again because something changed while it worked.
const TRIES: usize = 20;

/// How long it waits before it looks again.
const PAUSE: Duration = Duration::from_millis(200);

/// What a stop may take beyond the grace it gives.
const STOP_MARGIN: Duration = Duration::from_secs(10);

impl Docker {
    pub(super) async fn observe(&self) -> Result<Vec<Observed>, EngineError> {
        Ok(observed(group(self.list(&[]).await?, &self.network_name())))
    }

    async fn list(&self, labels: &[(&str, &str)]) -> Result<Vec<ContainerSummary>, EngineError> {
        let options = ListContainersOptions { all: true, filters: self.filters(labels), ..Default::default() };
        let list = self.ask(ANSWER_WITHIN, self.client().list_containers(Some(options))).await;
        list.map_err(|fault| self.error("list containers", fault))
    }

    /// What there is of an instance; `None` where there is nothing.
    pub(super) async fn parts(&self, instance: &InstanceId) -> Result<Option<Parts>, EngineError> {
        let list = self.list(&[(INSTANCE, instance.as_str())]).await?;
        Ok(group(list, &self.network_name()).remove(instance).map(|(_, parts)| parts))
    }

    pub(super) async fn start_instance(&self, instance: &Instance) -> Result<Started, EngineError> {
        let mut last = String::new();
        for _ in 0..TRIES {
            let parts = self.parts(&instance.id).await?.unwrap_or_default();
            match self.attempt(instance, parts.need(instance.address)).await? {
                Attempt::Done(started) => return Ok(started),
                Attempt::Again(says) => last = says,
            }
            tokio::time::sleep(PAUSE).await;
        }
        Err(EngineError::Refused { doing: format!("start instance {}", instance.id), says: last })
    }

    async fn attempt(&self, instance: &Instance, need: Need) -> Result<Attempt, EngineError> {
        let was_there = matches!(need, Need::Start(_));
        let app = match need {
            Need::Nothing => return Ok(Attempt::Done(Started::Nothing)),
            Need::Unpause(app) => {
                let unpaused = self.ask(CHANGE_WITHIN, self.client().unpause_container(&app)).await;
                return self.settle(instance, unpaused);
            }
            Need::Start(app) => app,
            Need::App { remove, sandbox } => {
                self.remove_each(&remove).await?;
                match self.create_app(instance, &sandbox).await {
                    Ok(app) => app,
                    Err(fault) => return self.settle(instance, Err(fault)),
                }
            }
            Need::Both { remove } => {
                self.remove_each(&remove).await?;
                let sandbox = match self.create_sandbox(instance).await {
                    Ok(sandbox) => sandbox,
                    Err(fault) => return self.sandbox_fault(instance, fault).await,
                };
                match self.create_app(instance, &sandbox).await {
                    Ok(app) => app,
                    Err(fault) => return self.settle(instance, Err(fault)),
                }
            }
        };
        let started = self.ask(CHANGE_WITHIN, self.client().start_container(&app, None::<StartContainerOptions>)).await;
        if let Err(Fault::Said { says, .. }) = &started {
            // Left, it would look like one that was stopped. If it was there before, a new one may do better.
            self.remove_each(std::slice::from_ref(&app)).await?;
            if was_there {
                return Ok(Attempt::Again(says.clone()));
            }
        }
        self.settle(instance, started)
    }

    /// What became of an attempt.
    fn settle(&self, instance: &Instance, result: Result<(), Fault>) -> Result<Attempt, EngineError> {
        match result {
            Ok(()) => Ok(Attempt::Done(Started::Container)),
            Err(Fault::Said { says, .. }) if says.contains("No such image") => {
                Err(EngineError::NoImage(instance.image.clone()))
            }
            // Somebody was faster: a container is gone, or there already, or the sandbox died.
            Err(Fault::Said { status: 404 | 409, says }) => Ok(Attempt::Again(says)),
            Err(Fault::Said { status, says }) if is_the_applications(status, &says) => Err(EngineError::Start(says)),
            Err(fault) => Err(self.error(format!("start instance {}", instance.id), fault)),
        }
    }

    async fn sandbox_fault(&self, instance: &Instance, fault: Fault) -> Result<Attempt, EngineError> {
        let doing = || format!("make the sandbox of instance {}", instance.id);
        match fault {
            Fault::Said { says, .. } if says.contains("No such image") => {
                self.ensure_sandbox_image().await?;
                Ok(Attempt::Again(says))
            }
            Fault::Said { status: 409, says } => Ok(Attempt::Again(says)),
            fault => Err(self.error(doing(), fault)),
        }
    }

    pub(super) async fn oom_killed(&self, instance: &InstanceId) -> Result<bool, EngineError> {
        for app in self.parts(instance).await?.unwrap_or_default().apps {
            match self.ask(ANSWER_WITHIN, self.client().inspect_container(&app.container, None)).await {
                Ok(found) if found.state.as_ref().and_then(|state| state.oom_killed) == Some(true) => return Ok(true),
                Ok(_) | Err(Fault::Said { status: 404, .. }) => {}
                Err(fault) => return Err(self.error(format!("look at instance {instance}"), fault)),
            }
        }
        Ok(false)
    }

    pub(super) async fn stop_instance(&self, instance: &InstanceId, grace: Duration) -> Result<(), EngineError> {
        let seconds = grace.as_secs() + u64::from(grace.subsec_nanos() > 0);
        for app in self.parts(instance).await?.unwrap_or_default().apps {
            let t = Some(i32::try_from(seconds).unwrap_or(i32::MAX));
            let options = StopContainerOptions { t, ..Default::default() };
            let stop = self.client();
            let stopped = self.ask(grace + STOP_MARGIN, stop.stop_container(&app.container, Some(options))).await;
            match stopped {
                Ok(()) | Err(Fault::Said { status: 404, .. }) => {}
                Err(fault) => return Err(self.error(format!("stop instance {instance}"), fault)),
            }
        }
        Ok(())
    }

    /// Removes every container of ours with these labels; returns when there is none.
    pub(super) async fn remove_containers(&self, labels: &[(&str, &str)]) -> Result<(), EngineError> {
        for _ in 0..TRIES {
            // Applications first: a sandbox that goes under its application leaves it in a dead network.
            let mut list = self.list(labels).await?;
            if list.is_empty() {
                return Ok(());
            }
            let is_app = |found: &ContainerSummary| {
                found.labels.as_ref().and_then(|labels| labels.get(PART)).is_some_and(|part| part == APP)
            };
            list.sort_by_key(|found| !is_app(found));
            let ids: Vec<String> = list.into_iter().filter_map(|found| found.id).collect();
            self.remove_each(&ids).await?;
        }
        Err(EngineError::Refused {
            doing: format!("remove containers of installation {}", self.installation),
            says: "they are still there".to_owned(),
        })
    }

    async fn remove_each(&self, containers: &[String]) -> Result<(), EngineError> {
        for container in containers {
            let options = RemoveContainerOptions { force: true, v: true, ..Default::default() };
            match self.ask(CHANGE_WITHIN, self.client().remove_container(container, Some(options))).await {
                Ok(()) | Err(Fault::Said { status: 404, .. }) => {}
                // It is being removed already: whoever needs it gone looks again.
                Err(Fault::Said { status: 409, .. }) => tokio::time::sleep(PAUSE).await,
                Err(fault) => return Err(self.error(format!("remove container {container}"), fault)),
            }
        }
        Ok(())
    }
}

/// What became of one attempt to start.
enum Attempt {
    Done(Started),
    /// Something changed meanwhile, in the engine's words.
    Again(String),
}

/// Whether a refusal to create or start lies in the image: no command, a user or folder that is not there.
fn is_the_applications(status: u16, says: &str) -> bool {
    let says = says.to_ascii_lowercase();
    status == 400
        || ["runtime create failed", "unable to find user", "unable to find group"]
            .iter()
            .any(|words| says.contains(words))
}
