//! Settings and variables of an environment.

use reqwest::Method;
use serde_json::{Map, Value, json};

use super::answer::{Environment, Policy};
use super::api::Api;
use super::{Format, password, show};
use crate::cli::{SetArgs, SleepAfter, Switch};
use crate::failure::Failure;

/// Changes what was named, and shows what is true then.
pub(super) async fn set(args: &SetArgs) -> Result<(), Failure> {
    password::asking(args.password.as_deref(), set_all(args)).await
}

async fn set_all(args: &SetArgs) -> Result<(), Failure> {
    let api = Api::new(&args.target.api)?;
    let path = format!("/apps/{}/environments/{}", args.target.name, args.target.environment);
    let (text, environment): (_, Environment) = api.change(Method::PATCH, &path, Some(&change(args).await?)).await?;
    if api.format == Format::Json {
        return Failure::print(&format!("{text}\n"));
    }
    let limits = [
        ("memory", environment.memory_bytes.map(show::size)),
        ("cpus", environment.cpus_milli.map(show::thousandths)),
        ("processes", environment.processes.map(|processes| processes.to_string())),
    ];
    let limits = limits.into_iter().filter_map(|(name, limit)| Some([name.to_owned(), limit?]));
    let pairs = [
        ["environment".to_owned(), environment.name],
        ["sleeps after".to_owned(), environment.sleep_after_ms.map_or_else(|| "never".to_owned(), show::span)],
        ["ready within".to_owned(), show::span(environment.ready_within_ms)],
    ];
    let policy = policy(&environment.policy);
    Failure::print(&show::pairs(pairs.into_iter().chain(limits).chain(policy)))?;
    let variables = !args.variables.is_empty() || !args.removed.is_empty();
    let limits = args.memory.is_some() || args.cpus.is_some() || args.processes.is_some();
    if variables || limits {
        let what = if limits { "limits" } else { "variables" };
        let what = if variables && limits { "variables and limits" } else { what };
        show::note(&format!("{what} count from the next deployment on"));
    }
    Ok(())
}

/// How visitors are treated, where it is not as everywhere.
fn policy(policy: &Policy) -> Vec<[String; 2]> {
    let mut pairs: Vec<_> = policy.notes().into_iter().map(|note| [note.to_owned(), "yes".to_owned()]).collect();
    for (name, words) in [("protected by", &policy.protected_by), ("users", &policy.users)] {
        if !words.is_empty() {
            pairs.retain(|[note, _]| note != "protected");
            pairs.push([name.to_owned(), words.join(", ")]);
        }
    }
    pairs
}

async fn change(args: &SetArgs) -> Result<Value, Failure> {
    let mut change = Map::new();
    match args.sleep_after {
        None => {}
        Some(SleepAfter::Never) => drop(change.insert("sleep_after_ms".to_owned(), Value::Null)),
        Some(SleepAfter::Idle(after)) => drop(change.insert("sleep_after_ms".to_owned(), milliseconds(after))),
    }
    if let Some(within) = args.ready_within {
        change.insert("ready_within_ms".to_owned(), milliseconds(within));
    }
    for (name, limit) in [("memory_bytes", args.memory), ("cpus_milli", args.cpus), ("processes", args.processes)] {
        if let Some(limit) = limit {
            change.insert(name.to_owned(), json!(limit));
        }
    }
    let set = args.variables.iter().map(|variable| (variable.name.clone(), json!(variable.value)));
    let variables: Map<_, _> = set.chain(args.removed.iter().map(|name| (name.clone(), Value::Null))).collect();
    if !variables.is_empty() {
        change.insert("variables".to_owned(), Value::Object(variables));
    }
    for (name, switch) in [("maintenance", args.maintenance), ("pause", args.pause), ("indexed", args.index)] {
        if let Some(switch) = switch {
            change.insert(name.to_owned(), json!(switch == Switch::On));
        }
    }
    let removed = args.removed_passwords.iter().map(|user| (user.clone(), Value::Null));
    let mut passwords: Map<_, _> = removed.collect();
    if let Some(user) = &args.password {
        passwords.insert(user.clone(), json!(password::hashed(user).await?));
    }
    if !passwords.is_empty() {
        change.insert("passwords".to_owned(), Value::Object(passwords));
    }
    Ok(Value::Object(change))
}

fn milliseconds(duration: std::time::Duration) -> Value {
    json!(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
}
