//! Instances: a sandbox that holds network namespace and address, and the application container joined to it.
//!
//! Each call lists what is there, and does what is needed ([`Parts::need`]). When something changed in between, it looks
//! again, a few times. No container has a restart policy: Docker would start joiners before their sandboxes.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use bollard::models::{
    ContainerCreateBody, ContainerSummary, EndpointIpamConfig, EndpointSettings, HealthConfig, HostConfig,
    HostConfigLogConfig, NetworkingConfig, RestartPolicy, RestartPolicyNameEnum,
};
use bollard::query_parameters::{
    CreateContainerOptions, ListContainersOptions, RemoveContainerOptions, StartContainerOptions, StopContainerOptions,
};
use dormouse_link::InstanceId;

use super::image::sandbox_tag;
use super::parts::{Need, Parts, group, observed};
use super::{ANSWER_WITHIN, APP, CHANGE_WITHIN, Docker, ENVIRONMENT, Fault, INSTANCE, PART, SANDBOX, ask};
use crate::engine::{EngineError, Instance, Observed, Started};

/// How often a call looks again because something changed while it worked.
const TRIES: usize = 5;

/// How long it waits before it looks again.
const PAUSE: Duration = Duration::from_millis(100);

/// What a stop may take beyond the grace it gives.
const STOP_MARGIN: Duration = Duration::from_secs(10);

/// The memory a sandbox may use; it needs a tenth of it.
const SANDBOX_MEMORY: i64 = 16 * 1024 * 1024;

/// The processes a sandbox may have.
const SANDBOX_PROCESSES: i64 = 4;

/// How much of an application's output is kept, in files of a size.
const LOG_FILE_SIZE: &str = "10m";
const LOG_FILES: &str = "2";

/// What waits to be written to the log; beyond it output is dropped, rather than the application held up.
const LOG_BUFFER: &str = "1m";

/// The longest host name in Linux is 64 bytes; a DNS label has 63.
const HOST_NAME_MAX: usize = 63;

impl Docker {
    pub(super) async fn observe(&self) -> Result<Vec<Observed>, EngineError> {
        Ok(observed(group(self.list(&[]).await?, &self.network_name())))
    }

    async fn list(&self, labels: &[(&str, &str)]) -> Result<Vec<ContainerSummary>, EngineError> {
        let options = ListContainersOptions { all: true, filters: self.filters(labels), ..Default::default() };
        let list = ask(ANSWER_WITHIN, self.client().list_containers(Some(options))).await;
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
        let app = match need {
            Need::Nothing => return Ok(Attempt::Done(Started::Nothing)),
            Need::Unpause(app) => {
                let unpaused = ask(CHANGE_WITHIN, self.client().unpause_container(&app)).await;
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
        let started = ask(CHANGE_WITHIN, self.client().start_container(&app, None::<StartContainerOptions>)).await;
        if let Err(Fault::Said { .. }) = started {
            // It never ran, so it holds nothing that anybody wants; left, it would look like one that was stopped.
            self.remove_each(std::slice::from_ref(&app)).await?;
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

    async fn create_sandbox(&self, instance: &Instance) -> Result<String, Fault> {
        let address = EndpointIpamConfig {
            ipv4_address: Some(instance.address).filter(IpAddr::is_ipv4).map(|address| address.to_string()),
            ipv6_address: Some(instance.address).filter(IpAddr::is_ipv6).map(|address| address.to_string()),
            ..Default::default()
        };
        let endpoint = EndpointSettings { ipam_config: Some(address), ..Default::default() };
        let host = HostConfig {
            network_mode: Some(self.network_name()),
            readonly_rootfs: Some(true),
            cap_drop: Some(vec!["ALL".to_owned()]),
            memory: Some(SANDBOX_MEMORY),
            memory_swap: Some(SANDBOX_MEMORY),
            pids_limit: Some(SANDBOX_PROCESSES),
            ..host_config("1m", "1")
        };
        let body = ContainerCreateBody {
            image: Some(sandbox_tag()),
            hostname: Some(host_name(&instance.name)),
            env: Some(vec![format!("DORMOUSE_INSTANCE={}", instance.id)]),
            // It has nothing to finish, so it need not be asked.
            stop_signal: Some("SIGKILL".to_owned()),
            labels: self.instance_labels(instance, SANDBOX),
            host_config: Some(host),
            networking_config: Some(NetworkingConfig {
                endpoints_config: Some(HashMap::from([(self.network_name(), endpoint)])),
            }),
            ..Default::default()
        };
        let container = self.create(instance, SANDBOX, body).await?;
        ask(CHANGE_WITHIN, self.client().start_container(&container, None::<StartContainerOptions>)).await?;
        Ok(container)
    }

    async fn create_app(&self, instance: &Instance, sandbox: &str) -> Result<String, Fault> {
        let host = HostConfig {
            network_mode: Some(format!("container:{sandbox}")),
            // Else an application without a handler for SIGTERM takes the whole grace to stop.
            init: Some(true),
            ..host_config(LOG_FILE_SIZE, LOG_FILES)
        };
        let body = ContainerCreateBody {
            image: Some(self.tag(&instance.image)),
            env: Some(instance.variables.iter().map(|(name, value)| format!("{name}={value}")).collect()),
            labels: self.instance_labels(instance, APP),
            host_config: Some(host),
            // Whether it is healthy is asked from outside, where the edge is; a sleeper's host should rest.
            healthcheck: Some(HealthConfig { test: Some(vec!["NONE".to_owned()]), ..Default::default() }),
            ..Default::default()
        };
        self.create(instance, APP, body).await
    }

    async fn create(&self, instance: &Instance, part: &str, body: ContainerCreateBody) -> Result<String, Fault> {
        let name =
            format!("dormouse-{}-{}-{}-{part}", self.installation, plain(&instance.name), plain(instance.id.as_str()));
        let options = CreateContainerOptions { name: Some(name), ..Default::default() };
        Ok(ask(CHANGE_WITHIN, self.client().create_container(Some(options), body)).await?.id)
    }

    fn instance_labels(&self, instance: &Instance, part: &str) -> Option<HashMap<String, String>> {
        self.labels(&[(INSTANCE, instance.id.as_str()), (ENVIRONMENT, instance.environment.as_str()), (PART, part)])
    }

    pub(super) async fn stop_instance(&self, instance: &InstanceId, grace: Duration) -> Result<(), EngineError> {
        let seconds = grace.as_secs() + u64::from(grace.subsec_nanos() > 0);
        for app in self.parts(instance).await?.unwrap_or_default().apps {
            let t = Some(i32::try_from(seconds).unwrap_or(i32::MAX));
            let options = StopContainerOptions { t, ..Default::default() };
            let stop = self.client();
            let stopped = ask(grace + STOP_MARGIN, stop.stop_container(&app.container, Some(options))).await;
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
            match ask(CHANGE_WITHIN, self.client().remove_container(container, Some(options))).await {
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

/// What both containers have in common.
fn host_config(log_file_size: &str, log_files: &str) -> HostConfig {
    let log = [
        ("mode", "non-blocking"),
        ("max-buffer-size", LOG_BUFFER),
        ("max-size", log_file_size),
        ("max-file", log_files),
    ];
    HostConfig {
        restart_policy: Some(RestartPolicy { name: Some(RestartPolicyNameEnum::NO), maximum_retry_count: None }),
        security_opt: Some(vec!["no-new-privileges".to_owned()]),
        log_config: Some(HostConfigLogConfig {
            typ: Some("json-file".to_owned()),
            config: Some(log.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()),
        }),
        ..Default::default()
    }
}

/// Whether a refusal to create or start lies in the image: no command, a user or folder that is not there.
fn is_the_applications(status: u16, says: &str) -> bool {
    let says = says.to_ascii_lowercase();
    status == 400
        || ["runtime create failed", "unable to find user", "unable to find group"]
            .iter()
            .any(|words| says.contains(words))
}

/// `text` with only what an engine allows in a container's name.
fn plain(text: &str) -> String {
    text.chars().map(|letter| if letter.is_ascii_alphanumeric() { letter } else { '-' }).collect()
}

/// `name` as a host name.
fn host_name(name: &str) -> String {
    let name = plain(name).to_ascii_lowercase();
    name[..name.len().min(HOST_NAME_MAX)].trim_matches('-').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_names_are_short_enough_for_linux() {
        let long = format!("{}-{}-12", "a".repeat(40), "b".repeat(40));
        let name = host_name(&long);
        assert!(name.len() <= HOST_NAME_MAX && name.starts_with("aaa") && !name.ends_with('-'));
        assert_eq!(host_name("hello-test-3"), "hello-test-3");
        assert_eq!(host_name(&format!("{}-b", "a".repeat(62))), "a".repeat(62));
        assert_eq!(plain("a/ü_b"), "a---b");
    }
}
