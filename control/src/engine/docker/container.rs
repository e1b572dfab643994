//! The two containers of an instance, as they are made. No container has a restart policy: Docker would start joiners
//! before their sandboxes. What an application may do and use at most is decided here; docs/isolation.md says it to users.

use std::collections::HashMap;
use std::net::IpAddr;

use bollard::models::{
    ContainerCreateBody, EndpointIpamConfig, EndpointSettings, HealthConfig, HostConfig, HostConfigLogConfig,
    NetworkingConfig, RestartPolicy, RestartPolicyNameEnum,
};
use bollard::query_parameters::{
    CreateContainerOptions, InspectContainerOptions, RemoveContainerOptions, StartContainerOptions,
};

use super::{ANSWER_WITHIN, APP, CHANGE_WITHIN, Docker, ENDPOINT, ENVIRONMENT, Fault, INSTANCE, PART, SANDBOX};
use crate::engine::Instance;

/// The memory a sandbox may use; it needs a tenth of it, and to be started a quarter.
const SANDBOX_MEMORY: i64 = 16 * 1024 * 1024;

/// The threads a sandbox may have. It has one, but the engine's helper that starts it sometimes more than four.
const SANDBOX_PROCESSES: i64 = 64;

/// What an application may do as root inside of its container, of all that root may: what usual images need to begin as
/// root, make their folders their own, and go on as somebody else. Not among them, though engines give it by default:
/// NET_RAW (lets an application speak in its neighbours' names), MKNOD, SETFCAP, SETPCAP, FSETID, SYS_CHROOT, AUDIT_WRITE.
const CAPABILITIES: [&str; 7] = ["CHOWN", "DAC_OVERRIDE", "FOWNER", "KILL", "NET_BIND_SERVICE", "SETGID", "SETUID"];

/// The span over which the use of processors is counted, in microseconds. A quota of it, unlike a number of processors, may
/// be more than the machine has.
const CPU_PERIOD_US: i64 = 100_000;

/// How much of an application's output is kept, in files of a size.
const LOG_FILE_SIZE: &str = "10m";
const LOG_FILES: &str = "2";

/// What waits to be written to the log; beyond it output is dropped, rather than the application held up.
const LOG_BUFFER: &str = "1m";

/// The longest host name in Linux is 64 bytes; a DNS label has 63.
const HOST_NAME_MAX: usize = 63;

impl Docker {
    pub(super) async fn create_sandbox(&self, instance: &Instance) -> Result<String, Fault> {
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
            image: Some(self.sandbox_tag.clone()),
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
        let start =
            self.ask(CHANGE_WITHIN, self.client().start_container(&container, None::<StartContainerOptions>)).await;
        if let Err(fault @ Fault::Said { .. }) = start {
            // It is of no use, and when its network is gone, nobody would look for it any more.
            let options = RemoveContainerOptions { force: true, ..Default::default() };
            drop(self.ask(CHANGE_WITHIN, self.client().remove_container(&container, Some(options))).await);
            return Err(fault);
        }
        start.map(|()| container)
    }

    pub(super) async fn create_app(&self, instance: &Instance, sandbox: &str) -> Result<String, Fault> {
        let inspect = self.client();
        let found =
            self.ask(ANSWER_WITHIN, inspect.inspect_container(sandbox, None::<InspectContainerOptions>)).await?;
        let networks = found.network_settings.and_then(|found| found.networks).unwrap_or_default();
        let endpoint = networks.get(&self.network_name()).and_then(|end| end.endpoint_id.clone()).unwrap_or_default();
        let mut labels = self.instance_labels(instance, APP).unwrap_or_default();
        labels.insert(ENDPOINT.to_owned(), endpoint);
        let host = HostConfig {
            network_mode: Some(format!("container:{sandbox}")),
            cap_drop: Some(vec!["ALL".to_owned()]),
            cap_add: Some(CAPABILITIES.map(str::to_owned).to_vec()),
            memory: Some(signed(instance.limits.memory_bytes)),
            // Memory and swap together: no swap.
            memory_swap: Some(signed(instance.limits.memory_bytes)),
            cpu_period: Some(CPU_PERIOD_US),
            cpu_quota: Some(signed(instance.limits.cpus_milli).saturating_mul(CPU_PERIOD_US / 1000)),
            pids_limit: Some(signed(instance.limits.processes)),
            // Else an application without a handler for SIGTERM takes the whole grace to stop.
            init: Some(true),
            ..host_config(LOG_FILE_SIZE, LOG_FILES)
        };
        let body = ContainerCreateBody {
            image: Some(self.tag(&instance.image)),
            env: Some(instance.variables.iter().map(|(name, value)| format!("{name}={value}")).collect()),
            labels: Some(labels),
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
        Ok(self.ask(CHANGE_WITHIN, self.client().create_container(Some(options), body)).await?.id)
    }

    fn instance_labels(&self, instance: &Instance, part: &str) -> Option<HashMap<String, String>> {
        self.labels(&[(INSTANCE, instance.id.as_str()), (ENVIRONMENT, instance.environment.as_str()), (PART, part)])
    }
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

/// A limit in the engine's type.
fn signed(limit: u64) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
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
