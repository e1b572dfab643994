//! What the engine has of an instance, and what that means: pure.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

use bollard::models::{ContainerSummary, ContainerSummaryStateEnum as State};
use dormouse_link::{EnvironmentId, InstanceId};

use super::{APP, ENDPOINT, ENVIRONMENT, INSTANCE, PART, SANDBOX};
use crate::engine::{Observed, Status};

/// How a container is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Life {
    Created,
    Running,
    Paused,
    Exited(Option<i64>),
    /// Being removed, or neither alive nor removable.
    Gone,
}

/// One container of an instance.
#[derive(Clone, Debug)]
pub(super) struct Part {
    pub(super) container: String,
    pub(super) life: Life,
    /// Its address on our network.
    pub(super) address: Option<IpAddr>,
    /// The container whose network it joined.
    pub(super) joined: Option<String>,
    /// A sandbox's: its end of our network. An application's: the one that it was made for.
    pub(super) endpoint: Option<String>,
}

impl Part {
    /// Whether this application is in the network of `sandbox` as it is now. One that was restarted by hand has a new
    /// network, and leaves its application in the old one, which leads nowhere.
    fn is_in(&self, sandbox: &Self) -> bool {
        let same = |(mine, its)| mine == its;
        self.joined.as_ref() == Some(&sandbox.container)
            && self.endpoint.as_ref().zip(sandbox.endpoint.as_ref()).is_none_or(same)
    }
}

/// The containers of an instance. More than one of a kind is nothing we make, and mended.
#[derive(Clone, Debug, Default)]
pub(super) struct Parts {
    pub(super) sandboxes: Vec<Part>,
    pub(super) apps: Vec<Part>,
}

/// What is to be done so that the instance runs.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Need {
    Nothing,
    Unpause(String),
    Start(String),
    /// Remove these, and make the application container for this sandbox.
    App {
        remove: Vec<String>,
        sandbox: String,
    },
    /// Remove these, and make both.
    Both {
        remove: Vec<String>,
    },
}

impl Parts {
    fn all(&self) -> impl Iterator<Item = &Part> {
        self.apps.iter().chain(&self.sandboxes)
    }

    /// The ids of all containers, the application's first.
    pub(super) fn ids(&self) -> Vec<String> {
        self.all().map(|part| part.container.clone()).collect()
    }

    /// The sandbox, if it is one that can be joined.
    fn sandbox(&self) -> Option<(&Part, IpAddr)> {
        match self.sandboxes.as_slice() {
            [sandbox] if sandbox.life == Life::Running => Some((sandbox, sandbox.address?)),
            _ => None,
        }
    }

    pub(super) fn need(&self, address: IpAddr) -> Need {
        let Some((sandbox, _)) = self.sandbox().filter(|(_, found)| *found == address) else {
            return Need::Both { remove: self.ids() };
        };
        match self.apps.as_slice() {
            [app] if app.is_in(sandbox) && app.life != Life::Gone => match app.life {
                Life::Running => Need::Nothing,
                Life::Paused => Need::Unpause(app.container.clone()),
                _ => Need::Start(app.container.clone()),
            },
            apps => {
                let remove = apps.iter().map(|app| app.container.clone()).collect();
                Need::App { remove, sandbox: sandbox.container.clone() }
            }
        }
    }

    pub(super) fn status(&self) -> Status {
        let Some((sandbox, _)) = self.sandbox() else { return self.apart() };
        match self.apps.as_slice() {
            [] => Status::Stopped { code: None },
            [app] if app.is_in(sandbox) => match app.life {
                Life::Running => Status::Running,
                Life::Paused => Status::Paused,
                Life::Created => Status::Stopped { code: None },
                Life::Exited(code) => Status::Stopped { code },
                Life::Gone => Status::Broken,
            },
            _ => self.apart(),
        }
    }

    /// How parts are that do not belong together.
    fn apart(&self) -> Status {
        let lives = |app: &Part| matches!(app.life, Life::Running | Life::Paused);
        if self.apps.iter().any(lives) { Status::Stranded } else { Status::Broken }
    }
}

/// Sorts a list of containers by instance. What has not all of our labels is not ours.
pub(super) fn group(list: Vec<ContainerSummary>, network: &str) -> BTreeMap<InstanceId, (EnvironmentId, Parts)> {
    let mut found: BTreeMap<InstanceId, (EnvironmentId, Parts)> = BTreeMap::new();
    for container in list {
        let labels = container.labels.clone().unwrap_or_default();
        let label = |name: &str| labels.get(name).map(String::as_str);
        let (Some(instance), Some(environment), Some(kind)) = (label(INSTANCE), label(ENVIRONMENT), label(PART)) else {
            continue;
        };
        let Some(part) = part(container, network) else { continue };
        let (_, parts) = found
            .entry(InstanceId::new(instance))
            .or_insert_with(|| (EnvironmentId::new(environment), Parts::default()));
        match kind {
            SANDBOX => parts.sandboxes.push(part),
            APP => parts.apps.push(part),
            _ => {}
        }
    }
    found
}

pub(super) fn observed(found: BTreeMap<InstanceId, (EnvironmentId, Parts)>) -> Vec<Observed> {
    let observed = |(id, (environment, parts)): (_, (_, Parts))| Observed { id, environment, status: parts.status() };
    found.into_iter().map(observed).collect()
}

fn part(container: ContainerSummary, network: &str) -> Option<Part> {
    let mode = container.host_config.and_then(|config| config.network_mode);
    let networks: HashMap<_, _> = container.network_settings.and_then(|found| found.networks).unwrap_or_default();
    let life = match container.state? {
        State::CREATED | State::EMPTY => Life::Created,
        // Until it has ended, it runs.
        State::RUNNING | State::STOPPING | State::RESTARTING => Life::Running,
        State::PAUSED => Life::Paused,
        State::EXITED => Life::Exited(container.status.as_deref().and_then(exit_code)),
        State::REMOVING | State::DEAD => Life::Gone,
    };
    let end = networks.get(network);
    let made_for = container.labels.as_ref().and_then(|labels| labels.get(ENDPOINT));
    let endpoint = end.and_then(|end| end.endpoint_id.as_ref()).or(made_for).filter(|id| !id.is_empty());
    Some(Part {
        container: container.id?,
        life,
        address: end.and_then(|end| end.ip_address.as_ref()?.parse().ok()),
        endpoint: endpoint.cloned(),
        joined: mode.and_then(|mode| mode.strip_prefix("container:").map(str::to_owned)),
    })
}

/// The code in `Exited (137) 2 seconds ago`; a list has it nowhere else.
fn exit_code(status: &str) -> Option<i64> {
    status.strip_prefix("Exited (")?.split_once(')')?.0.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ADDRESS: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 213, 0, 9));

    fn sandbox(life: Life) -> Part {
        let address = (life == Life::Running).then_some(ADDRESS);
        Part { container: "s".to_owned(), life, address, joined: None, endpoint: Some("e".to_owned()) }
    }

    fn app(life: Life, joined: &str) -> Part {
        let (joined, endpoint) = (Some(joined.to_owned()), Some("e".to_owned()));
        Part { container: "a".to_owned(), life, address: None, joined, endpoint }
    }

    fn parts(sandboxes: &[Part], apps: &[Part]) -> Parts {
        Parts { sandboxes: sandboxes.to_vec(), apps: apps.to_vec() }
    }

    #[test]
    fn a_joined_pair_is_as_its_application_is() {
        for (life, status, need) in [
            (Life::Running, Status::Running, Need::Nothing),
            (Life::Paused, Status::Paused, Need::Unpause("a".to_owned())),
            (Life::Created, Status::Stopped { code: None }, Need::Start("a".to_owned())),
            (Life::Exited(Some(3)), Status::Stopped { code: Some(3) }, Need::Start("a".to_owned())),
        ] {
            let pair = parts(&[sandbox(Life::Running)], &[app(life, "s")]);
            assert_eq!((pair.status(), pair.need(ADDRESS)), (status, need));
        }
    }

    #[test]
    fn without_a_living_sandbox_all_is_made_anew() {
        for life in [Life::Created, Life::Paused, Life::Exited(Some(0)), Life::Gone] {
            let pair = parts(&[sandbox(life)], &[app(Life::Running, "s")]);
            assert_eq!(pair.status(), Status::Stranded);
            assert_eq!(pair.need(ADDRESS), Need::Both { remove: vec!["a".to_owned(), "s".to_owned()] });
        }
        let lone = parts(&[], &[app(Life::Running, "s")]);
        let remove = vec!["a".to_owned()];
        assert_eq!((lone.status(), lone.need(ADDRESS)), (Status::Stranded, Need::Both { remove }));
        let cut_off = parts(&[Part { address: None, ..sandbox(Life::Running) }], &[app(Life::Running, "s")]);
        assert_eq!(cut_off.status(), Status::Stranded);
    }

    #[test]
    fn without_a_living_sandbox_an_application_that_has_ended_is_told_from_one_that_lives() {
        let with = |life| parts(&[sandbox(Life::Exited(Some(137)))], &[app(life, "s")]).status();
        assert_eq!([Life::Running, Life::Paused].map(with), [Status::Stranded, Status::Stranded]);
        for life in [Life::Created, Life::Exited(Some(0)), Life::Gone] {
            assert_eq!(with(life), Status::Broken);
        }
        assert_eq!(parts(&[], &[]).status(), Status::Broken);
    }

    #[test]
    fn an_application_joined_to_another_sandbox_is_made_anew() {
        let pair = parts(&[sandbox(Life::Running)], &[app(Life::Running, "old")]);
        assert_eq!(pair.status(), Status::Stranded);
        assert_eq!(pair.need(ADDRESS), Need::App { remove: vec!["a".to_owned()], sandbox: "s".to_owned() });
    }

    #[test]
    fn an_application_in_the_network_its_sandbox_had_before_is_made_anew() {
        let restarted = Part { endpoint: Some("another".to_owned()), ..sandbox(Life::Running) };
        let pair = parts(std::slice::from_ref(&restarted), &[app(Life::Running, "s")]);
        assert_eq!(pair.status(), Status::Stranded);
        assert_eq!(pair.need(ADDRESS), Need::App { remove: vec!["a".to_owned()], sandbox: "s".to_owned() });
        let unknown = parts(&[restarted], &[Part { endpoint: None, ..app(Life::Running, "s") }]);
        assert_eq!(unknown.status(), Status::Running, "one of an older Dormouse is believed");
    }

    #[test]
    fn a_sandbox_at_another_address_is_made_anew() {
        let pair = parts(&[sandbox(Life::Running)], &[app(Life::Running, "s")]);
        let other = IpAddr::from([10, 213, 0, 10]);
        assert_eq!(pair.need(other), Need::Both { remove: vec!["a".to_owned(), "s".to_owned()] });
    }

    #[test]
    fn a_sandbox_alone_has_never_run() {
        let alone = parts(&[sandbox(Life::Running)], &[]);
        assert_eq!(alone.status(), Status::Stopped { code: None });
        assert_eq!(alone.need(ADDRESS), Need::App { remove: Vec::new(), sandbox: "s".to_owned() });
    }

    #[test]
    fn the_exit_code_is_read_from_the_status() {
        assert_eq!(exit_code("Exited (137) 2 seconds ago"), Some(137));
        assert_eq!(exit_code("Exited (-1) About a minute ago"), Some(-1));
        assert_eq!(exit_code("Up 2 seconds"), None);
    }
}
