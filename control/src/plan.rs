//! What is to be done for one environment: pure, from what is known to a list of steps, each with its reason.
//!
//! The reconciler observes, asks here, acts without choices of its own, and observes again. Any row that any crash left is a
//! situation like all others. The order of the questions is an order of urgency: visitors who wait come first, then deployments,
//! then what may be cleaned up.

use std::time::Duration;

use dormouse_link::InstanceId;

use crate::engine::Status;
use crate::model::{
    Asked, Build, BuildState, Deployment, DeploymentState, Environment, EnvironmentState, Instance, Millis,
};

/// An environment that stops within this time of becoming ready is failing: it is started again only after a back-off.
pub const STEADY: Duration = Duration::from_secs(60);

/// An environment that cannot be drained for its sleep within this time goes back to serving.
pub const CLOSING_LIMIT: Duration = Duration::from_secs(30);

/// An environment that was wanted is looked at again after this time.
const WISH: Duration = Duration::from_secs(1);

/// A replaced instance is removed after this time, and a deletion goes on, even when an edge has not said that it is
/// drained.
pub const DRAIN_LIMIT: Duration = Duration::from_secs(120);

/// What is known of one environment at one moment.
#[derive(Clone, Debug)]
pub struct Situation {
    /// The moment.
    pub now: Millis,
    /// The environment's row.
    pub environment: Environment,
    /// Its deployments that have not ended, newest first.
    pub unended: Vec<Deployment>,
    /// The build of the newest of them, once it has one.
    pub build: Option<Build>,
    /// Its instances.
    pub instances: Vec<Sighting>,
    /// What edges say.
    pub traffic: Traffic,
}

/// An instance as the store, the engine and this process know it.
#[derive(Clone, Debug)]
pub struct Sighting {
    /// The store's row.
    pub instance: Instance,
    /// The engine's word; `None` where it has nothing of it.
    pub status: Option<Status>,
    /// Whether this process started it since it was last stopped.
    pub launched: bool,
    /// Whether it answers.
    pub probe: Probe,
    /// Every edge said that nothing is in flight to it any more.
    pub drained: bool,
}

/// How far the probing of an instance is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Probe {
    /// Not begun.
    Never,
    /// Under way.
    Running,
    /// It answers.
    Passed,
    /// It did not, with the reason.
    Failed(String),
    /// There is nothing to ask: its container could not be started, with the reason.
    Unstartable(String),
}

/// What edges say of an environment.
#[derive(Clone, Copy, Debug)]
pub struct Traffic {
    /// Somebody waits for it, or was just refused because it failed, or says something on a stream while it is to sleep.
    pub wanted: bool,
    /// When the last request ended, or a stream that may last for ever had data; `now` while another request runs.
    pub last_active_at: Millis,
    /// Every edge holds its requests, and none is in flight.
    pub drained: bool,
    /// Every edge has applied its newest cell.
    pub acked: bool,
}

/// One thing to do, idempotent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Start an instance's container.
    Launch(InstanceId),
    /// Begin to ask an instance whether it answers.
    Probe(InstanceId),
    /// Stop an instance's container; the sandbox keeps its address.
    Stop(InstanceId),
    /// Remove an instance and let its address rest.
    Remove(InstanceId),
    /// The environment moves to another state.
    Move(Move),
    /// The environment has been up long enough: its failures are forgotten.
    Forgive,
    /// The deployment gets its build.
    BeginBuilding(String),
    /// The deployment gets its variables and its instance.
    BeginStarting(String),
    /// The deployment's instance takes over.
    Swap(String),
    /// The deployment failed; with the instance whose last lines tell why.
    Fail {
        /// Which deployment.
        deployment: String,
        /// Which instance, once it has one.
        instance: Option<InstanceId>,
        /// Why, in words for its developer.
        reason: String,
    },
    /// A newer deployment took its place.
    Supersede(String),
    /// The environment's rows go.
    Forget,
}

/// A change of an environment's state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Move {
    /// Ready → Closing.
    Close,
    /// Closing → Ready.
    Reopen,
    /// Ready, Closing, Failed → Asleep.
    Sleep,
    /// Asleep, Failed, Ready → Waking.
    Wake,
    /// Waking → Ready.
    Serve,
    /// Waking, Ready → Failed, with the reason.
    Fail(String),
    /// Asleep, Waking, Closing → Failed, for want of an engine: no failure of its own, and tried again at once.
    Lack(String),
}

/// A step and why it is taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Planned {
    /// What to do.
    pub step: Step,
    /// Why.
    pub why: &'static str,
}

/// What to do now, and when to look again even if nothing happens.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// In this order; the first that fails ends the pass.
    pub steps: Vec<Planned>,
    /// When time alone will make a difference.
    pub again_at: Option<Millis>,
}

impl Plan {
    fn add(&mut self, step: Step, why: &'static str) {
        self.steps.push(Planned { step, why });
    }

    fn again(&mut self, at: Millis) {
        self.again_at = Some(self.again_at.map_or(at, |earlier| earlier.min(at)));
    }
}

/// What to do for an environment.
pub fn plan(situation: &Situation) -> Plan {
    let mut plan = Plan::default();
    if situation.environment.state == EnvironmentState::Deleting {
        take_down(situation, &mut plan);
        return plan;
    }
    serve(situation, &mut plan);
    deploy(situation, &mut plan);
    clean(situation, &mut plan);
    plan
}

/// Deletion: edges first forget the environment, then its instances go, then its rows.
fn take_down(situation: &Situation, plan: &mut Plan) {
    let limit = situation.environment.state_since + millis(DRAIN_LIMIT);
    if !situation.traffic.acked && situation.now < limit {
        plan.again(limit);
        return;
    }
    for sighting in &situation.instances {
        plan.add(Step::Remove(sighting.instance.id.clone()), "its environment is deleted");
    }
    plan.add(Step::Forget, "nothing of it is left");
}

/// The serving instance: kept up, put to sleep, woken.
fn serve(situation: &Situation, plan: &mut Plan) {
    let environment = &situation.environment;
    let Some(sighting) = situation.serving() else { return };
    let id = &sighting.instance.id;
    let running = sighting.status == Some(Status::Running);
    let lives = sighting.lives();
    match environment.state {
        EnvironmentState::Empty | EnvironmentState::Deleting => {}
        EnvironmentState::Ready if !running => stopped_while_ready(situation, sighting, plan),
        EnvironmentState::Ready => stay_ready(situation, plan),
        EnvironmentState::Closing => close(situation, sighting, plan),
        EnvironmentState::Asleep if situation.traffic.wanted => wake(sighting, plan, "a request waits for it"),
        EnvironmentState::Asleep if environment.asked == Some(Asked::Wake) => wake(sighting, plan, "asked to wake"),
        EnvironmentState::Asleep if lives => plan.add(Step::Stop(id.clone()), "it should be asleep"),
        EnvironmentState::Asleep => {}
        EnvironmentState::Waking => launch(sighting, plan, &mut |plan, end| match end {
            Launched::Answers => plan.add(Step::Move(Move::Serve), "it answers"),
            Launched::Broke(reason) => {
                plan.add(Step::Move(Move::Fail(reason)), "it could not be woken");
                plan.add(Step::Stop(id.clone()), "it could not be woken");
            }
        }),
        EnvironmentState::Failed => retry(situation, sighting, plan),
    }
}

fn stopped_while_ready(situation: &Situation, sighting: &Sighting, plan: &mut Plan) {
    let environment = &situation.environment;
    let id = &sighting.instance.id;
    if sighting.status == Some(Status::Paused) {
        plan.add(Step::Launch(id.clone()), "it was paused by hand");
    } else if situation.now - environment.state_since < millis(STEADY)
        && matches!(sighting.status, Some(Status::Stopped { .. } | Status::OutOfMemory))
    {
        let reason = format!("it {} soon after it had become ready", ended(sighting.status.as_ref()));
        plan.add(Step::Move(Move::Fail(reason)), "it stopped soon after it had become ready");
        plan.again(situation.now);
    } else if environment.sleep_after.is_some() && !situation.traffic.wanted {
        sleep(situation, sighting, plan, "its container stopped, and nobody waits for it");
    } else {
        wake(sighting, plan, "its container stopped");
    }
}

fn stay_ready(situation: &Situation, plan: &mut Plan) {
    let environment = &situation.environment;
    if environment.failures > 0 {
        let steady_at = environment.state_since + millis(STEADY);
        if situation.now >= steady_at {
            plan.add(Step::Forgive, "it has been up for long enough");
        } else {
            plan.again(steady_at);
        }
    }
    if !situation.unended.is_empty() {
        return;
    }
    if situation.traffic.wanted {
        // Nobody tells when a wish is over.
        plan.again(situation.now + millis(WISH));
        return;
    }
    if environment.asked == Some(Asked::Sleep) {
        plan.add(Step::Move(Move::Close), "asked to sleep");
    } else if let Some(after) = environment.sleep_after {
        let due = situation.traffic.last_active_at.max(environment.state_since) + millis(after);
        if situation.now >= due {
            plan.add(Step::Move(Move::Close), "no request for its idle time");
        } else {
            plan.again(due);
        }
    }
}

fn close(situation: &Situation, sighting: &Sighting, plan: &mut Plan) {
    let since = situation.environment.state_since;
    if sighting.status != Some(Status::Running) {
        sleep(situation, sighting, plan, "its container is stopped");
    } else if situation.traffic.wanted {
        plan.add(Step::Move(Move::Reopen), "a request came before it was stopped");
    } else if situation.traffic.drained {
        plan.add(Step::Stop(sighting.instance.id.clone()), "every edge is drained of it");
        plan.add(Step::Move(Move::Sleep), "its container is stopped");
    } else if situation.now - since >= millis(CLOSING_LIMIT) {
        plan.add(Step::Move(Move::Reopen), "a request runs on");
    } else {
        plan.again(since + millis(CLOSING_LIMIT));
    }
}

fn retry(situation: &Situation, sighting: &Sighting, plan: &mut Plan) {
    let environment = &situation.environment;
    let never_sleeps = environment.sleep_after.is_none();
    if environment.asked == Some(Asked::Sleep) {
        sleep(situation, sighting, plan, "asked to sleep");
    } else if environment.asked == Some(Asked::Wake) {
        wake(sighting, plan, "asked to wake");
    } else if situation.now < environment.retry_at {
        plan.again(environment.retry_at);
        if sighting.lives() {
            plan.add(Step::Stop(sighting.instance.id.clone()), "it failed");
        }
    } else if situation.traffic.wanted || never_sleeps {
        wake(sighting, plan, "tried again after its back-off");
    } else {
        // Its failures are kept: the next back-off is longer. But the next visitor is held again, not refused.
        sleep(situation, sighting, plan, "its back-off is over, and nobody waits for it");
    }
}

/// What sleeps does not live on, be it in a network that leads nowhere. Only who waits does not wait for the stop, too: a
/// wake makes such an application anew.
fn sleep(situation: &Situation, sighting: &Sighting, plan: &mut Plan, why: &'static str) {
    if sighting.lives() && !situation.traffic.wanted {
        plan.add(Step::Stop(sighting.instance.id.clone()), why);
    }
    plan.add(Step::Move(Move::Sleep), why);
}

/// The move is written beside the start, so that visitors wait for neither the store nor another look.
fn wake(sighting: &Sighting, plan: &mut Plan, why: &'static str) {
    plan.add(Step::Move(Move::Wake), why);
    plan.add(Step::Launch(sighting.instance.id.clone()), why);
    plan.add(Step::Probe(sighting.instance.id.clone()), why);
}

/// How a start ended.
enum Launched {
    Answers,
    Broke(String),
}

/// Leads a start on: container, then probe; calls `end` once it is known how it ended.
fn launch(sighting: &Sighting, plan: &mut Plan, end: &mut dyn FnMut(&mut Plan, Launched)) {
    let id = &sighting.instance.id;
    let running = sighting.status == Some(Status::Running);
    match &sighting.probe {
        Probe::Unstartable(reason) => end(plan, Launched::Broke(reason.clone())),
        _ if !running && sighting.launched => {
            let reason = format!("the container {} before it was ready", ended(sighting.status.as_ref()));
            end(plan, Launched::Broke(reason));
        }
        _ if !running || !sighting.launched => {
            plan.add(Step::Launch(id.clone()), "it does not run yet");
            plan.add(Step::Probe(id.clone()), "it was started");
        }
        Probe::Never => plan.add(Step::Probe(id.clone()), "it was started"),
        Probe::Running => {}
        Probe::Passed => end(plan, Launched::Answers),
        Probe::Failed(reason) => end(plan, Launched::Broke(reason.clone())),
    }
}

/// What to do for an application that wants more memory than it may use.
const MORE_MEMORY: &str = "`dormouse environment set --memory` gives more to the next deployment";

/// `exited with code 3`, as the predicate of a sentence about the container.
fn ended(status: Option<&Status>) -> String {
    match status {
        Some(Status::OutOfMemory) => format!("ran out of memory and was killed ({MORE_MEMORY})"),
        Some(status @ Status::Stopped { code: Some(code) }) if status.was_killed() => {
            format!("exited with code {code} (killed: out of memory, or by hand; {MORE_MEMORY})")
        }
        Some(Status::Stopped { code: Some(code) }) => format!("exited with code {code}"),
        Some(Status::Paused) => "was paused".to_owned(),
        _ => "was removed".to_owned(),
    }
}

/// The newest deployment is led on; older ones that have not ended give way to it.
fn deploy(situation: &Situation, plan: &mut Plan) {
    let Some((target, older)) = situation.unended.split_first() else { return };
    for deployment in older {
        plan.add(Step::Supersede(deployment.id.clone()), "a newer deployment was asked for");
    }
    let built = situation.build.as_ref().map(|build| (build.state, build));
    match (target.state, built) {
        (DeploymentState::Queued, _) => plan.add(Step::BeginBuilding(target.id.clone()), "it is the newest"),
        (_, Some((BuildState::Queued | BuildState::Running, _))) => {}
        (_, Some((BuildState::Failed, build))) => {
            let reason = build.reason.clone().unwrap_or_else(|| "the build failed".to_owned());
            plan.add(Step::Fail { deployment: target.id.clone(), instance: None, reason }, "its build failed");
        }
        (DeploymentState::Building, Some((BuildState::Succeeded, _))) => {
            plan.add(Step::BeginStarting(target.id.clone()), "its image is built");
        }
        (DeploymentState::Starting, Some((BuildState::Succeeded, _))) => match situation.of_deployment(&target.id) {
            Some(sighting) => launch(sighting, plan, &mut |plan, end| match end {
                Launched::Answers => plan.add(Step::Swap(target.id.clone()), "its instance answers"),
                Launched::Broke(reason) => plan.add(
                    Step::Fail { deployment: target.id.clone(), instance: Some(sighting.instance.id.clone()), reason },
                    "its instance does not answer",
                ),
            }),
            None => {
                let reason = "its instance was removed while it was started".to_owned();
                plan.add(Step::Fail { deployment: target.id.clone(), instance: None, reason }, "it has no instance");
            }
        },
        (_, None) => {
            let reason = "its build is gone".to_owned();
            plan.add(Step::Fail { deployment: target.id.clone(), instance: None, reason }, "it has no build");
        }
        (DeploymentState::Succeeded | DeploymentState::Failed | DeploymentState::Superseded, _) => {}
    }
}

/// Instances that neither serve nor are to: at once where they never served, else when every edge is drained of them.
fn clean(situation: &Situation, plan: &mut Plan) {
    let target = situation.unended.first().map(|deployment| &deployment.id);
    for sighting in &situation.instances {
        let instance = &sighting.instance;
        let needed = [situation.environment.serving.as_ref(), target].contains(&Some(&instance.deployment_id));
        match instance.retired {
            _ if needed => {}
            None => plan.add(Step::Remove(instance.id.clone()), "its deployment did not succeed"),
            Some(_) if sighting.drained => {
                plan.add(
                    Step::Remove(instance.id.clone()),
                    "a newer deployment serves, and every edge is drained of it",
                );
            }
            Some((_, at)) if situation.now - at >= millis(DRAIN_LIMIT) => {
                plan.add(Step::Remove(instance.id.clone()), "it was replaced long ago");
            }
            Some((_, at)) => plan.again(at + millis(DRAIN_LIMIT)),
        }
    }
}

impl Sighting {
    fn lives(&self) -> bool {
        self.status.as_ref().is_some_and(Status::lives)
    }
}

impl Situation {
    fn of_deployment(&self, deployment: &str) -> Option<&Sighting> {
        self.instances.iter().find(|sighting| sighting.instance.deployment_id == deployment)
    }

    fn serving(&self) -> Option<&Sighting> {
        self.environment.serving.as_ref().and_then(|deployment| self.of_deployment(deployment))
    }
}

fn millis(duration: Duration) -> Millis {
    Millis::try_from(duration.as_millis()).unwrap_or(Millis::MAX)
}

#[cfg(test)]
mod tests;
