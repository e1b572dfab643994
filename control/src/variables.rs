//! What an instance is told by its variables, and where it listens. Pure.
//!
//! Names and values follow Divio's reference of environment variables; GIT_COMMIT, DEPLOYMENT and PORT's presence are ours.

use std::collections::BTreeMap;

use crate::model::{Build, Deployment, Environment, LIVE};

/// Why no port is known.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PortError {
    /// Neither variable nor EXPOSE.
    #[error(
        "nothing says on which port the application listens: add `EXPOSE 80` (with its port) to the Dockerfile, \
         or set the environment's variable PORT"
    )]
    Unknown,
    /// More than one EXPOSE.
    #[error("the image exposes several ports ({0}): set the environment's variable PORT to the one for web requests")]
    Several(String),
    /// PORT is no port.
    #[error("the variable PORT is {0:?}: set it to a number from 1 to 65535")]
    NoNumber(String),
}

/// Where the application listens: the environment's variable PORT, else the image's, else its only EXPOSE.
pub(crate) fn port(environment: &Environment, build: &Build) -> Result<u16, PortError> {
    if let Some(said) = environment.variables.get("PORT").or(build.image_port.as_ref()) {
        return said.parse().ok().filter(|port| *port != 0).ok_or_else(|| PortError::NoNumber(said.clone()));
    }
    match build.exposed.as_slice() {
        [] => Err(PortError::Unknown),
        [port] => Ok(*port),
        several => Err(PortError::Several(several.iter().map(u16::to_string).collect::<Vec<_>>().join(", "))),
    }
}

/// The variables of a deployment. The user's own override the built-in ones.
pub(crate) fn variables(environment: &Environment, deployment: &Deployment, port: u16) -> BTreeMap<String, String> {
    let mut hosts = environment.hosts.iter().map(ToString::to_string);
    let debug = if environment.name.as_str() == LIVE { "False" } else { "True" };
    let built_in = [
        ("STAGE", environment.name.to_string()),
        ("DEBUG", debug.to_owned()),
        ("DOMAIN", hosts.next().unwrap_or_default()),
        ("DOMAIN_ALIASES", hosts.collect::<Vec<_>>().join(",")),
        ("DOMAIN_REDIRECTS", String::new()),
        ("PORT", port.to_string()),
        ("SECRET_KEY", environment.secret_key.clone()),
        ("GIT_BRANCH", environment.branch.to_string()),
        ("GIT_COMMIT", deployment.commit.to_string()),
        ("DEPLOYMENT", deployment.number.to_string()),
    ];
    let mut variables: BTreeMap<_, _> = built_in.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    variables.extend(environment.variables.clone());
    variables
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::BuildState;

    fn build(exposed: &[u16], image_port: Option<&str>) -> Build {
        Build {
            id: "b".into(),
            app_id: "a".into(),
            commit: "1".repeat(40).parse().expect("a commit"),
            state: BuildState::Succeeded,
            image_id: None,
            exposed: exposed.to_vec(),
            image_port: image_port.map(str::to_owned),
            reason: None,
            created_at: 0,
        }
    }

    #[test]
    fn the_port_is_the_environments_else_the_images_else_the_only_exposed_one() {
        let mut environment = crate::model::tests::environment("test");
        assert_eq!(port(&environment, &build(&[80], None)), Ok(80));
        assert_eq!(port(&environment, &build(&[80, 443], Some("8000"))), Ok(8000));
        assert_eq!(port(&environment, &build(&[80, 443], None)), Err(PortError::Several("80, 443".into())));
        assert_eq!(port(&environment, &build(&[], None)), Err(PortError::Unknown));
        environment.variables.insert("PORT".into(), "9000".into());
        assert_eq!(port(&environment, &build(&[80], Some("8000"))), Ok(9000));
        for bad in ["0", "x", "65536", "-1", " 80", ""] {
            environment.variables.insert("PORT".into(), bad.into());
            assert_eq!(port(&environment, &build(&[80], None)), Err(PortError::NoNumber(bad.into())));
        }
    }

    #[test]
    fn an_application_is_told_where_it_runs() {
        let mut environment = crate::model::tests::environment("test");
        let deployment = crate::model::tests::deployment(&environment, 7);
        let told = variables(&environment, &deployment, 80);
        let expected = [
            ("STAGE", "test"),
            ("DEBUG", "True"),
            ("DOMAIN", "hello-test.localhost"),
            ("DOMAIN_ALIASES", ""),
            ("DOMAIN_REDIRECTS", ""),
            ("PORT", "80"),
            ("SECRET_KEY", "secret"),
            ("GIT_BRANCH", "develop"),
            ("DEPLOYMENT", "7"),
        ];
        for (name, value) in expected {
            assert_eq!(told[name], value, "{name}");
        }
        assert_eq!(told["GIT_COMMIT"], deployment.commit.to_string());
        environment.variables.insert("DEBUG".into(), "False".into());
        assert_eq!(variables(&environment, &deployment, 80)["DEBUG"], "False", "the user's own override");
        let live = crate::model::tests::environment("live");
        assert_eq!(variables(&live, &deployment, 80)["DEBUG"], "False");
    }
}
