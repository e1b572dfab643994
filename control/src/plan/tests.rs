//! The planner's rules one by one, and its laws in a toy world where every step does what it says.

use dormouse_link::Generation;
use proptest::prelude::*;

use super::*;
use crate::clock::{as_of, retired_by};
use crate::model::tests::{deployment, environment, instance};

const NOW: Millis = 10_000_000;

fn quiet() -> Traffic {
    Traffic { wanted: false, last_active_at: 0, drained: false, acked: true }
}

fn sighting(deployment: &Deployment, status: Status) -> Sighting {
    Sighting {
        instance: instance(deployment, u8::try_from(deployment.number).expect("a small number")),
        status: Some(status),
        launched: false,
        probe: Probe::Never,
        drained: false,
    }
}

/// An environment served by its deployment 1, whose container has this status.
fn served(name: &str, state: EnvironmentState, status: Status) -> Situation {
    let mut environment = environment(name);
    let first = deployment(&environment, 1);
    environment.serving = Some(first.id.clone());
    environment.state = state;
    environment.state_since = NOW - 3_600_000;
    let traffic = Traffic { last_active_at: NOW, ..quiet() };
    Situation {
        now: NOW,
        instances: vec![sighting(&first, status)],
        environment,
        unended: Vec::new(),
        build: None,
        traffic,
    }
}

fn build(state: BuildState, deployment: &Deployment) -> Build {
    Build {
        id: deployment.build_id.clone().expect("a build"),
        app_id: "a".into(),
        commit: deployment.commit.clone(),
        state,
        image_id: None,
        exposed: vec![80],
        image_port: None,
        reason: Some("step 2 failed".into()),
        created_at: 0,
    }
}

fn steps(situation: &Situation) -> Vec<Step> {
    plan(situation).steps.into_iter().map(|planned| planned.step).collect()
}

fn id(number: u64) -> InstanceId {
    InstanceId::new(format!("i{number}"))
}

fn wake_up() -> Vec<Step> {
    vec![Step::Move(Move::Wake), Step::Launch(id(1)), Step::Probe(id(1))]
}

#[test]
fn what_serves_and_is_seen_is_left_alone() {
    let situation = served("test", EnvironmentState::Ready, Status::Running);
    let plan = plan(&situation);
    assert_eq!(plan.steps, []);
    assert_eq!(plan.again_at, Some(NOW + 900_000), "it looks again when the idle time is over");
}

#[test]
fn an_idle_environment_is_closed_and_stopped_only_once_every_edge_is_drained() {
    let mut situation = served("test", EnvironmentState::Ready, Status::Running);
    situation.traffic.last_active_at = NOW - 900_000;
    assert_eq!(steps(&situation), [Step::Move(Move::Close)]);
    situation.environment.state = EnvironmentState::Closing;
    situation.environment.state_since = NOW;
    assert_eq!(steps(&situation), [], "an edge has requests in flight");
    situation.traffic.drained = true;
    assert_eq!(steps(&situation), [Step::Stop(id(1)), Step::Move(Move::Sleep)]);
    situation.traffic.wanted = true;
    assert_eq!(steps(&situation), [Step::Move(Move::Reopen)], "p84: a request came before the stop");
}

#[test]
fn an_environment_that_is_not_drained_goes_back_to_serving() {
    let mut situation = served("test", EnvironmentState::Closing, Status::Running);
    situation.environment.state_since = NOW - millis(CLOSING_LIMIT);
    assert_eq!(steps(&situation), [Step::Move(Move::Reopen)]);
}

#[test]
fn live_never_sleeps_unless_it_is_asked_to() {
    let mut situation = served("live", EnvironmentState::Ready, Status::Running);
    situation.traffic.last_active_at = 0;
    assert_eq!(steps(&situation), []);
    situation.environment.asked = Some(Asked::Sleep);
    assert_eq!(steps(&situation), [Step::Move(Move::Close)]);
    let asleep = served("live", EnvironmentState::Asleep, Status::Stopped { code: Some(0) });
    assert_eq!(steps(&asleep), []);
}

#[test]
fn a_sleeper_wakes_for_a_request_or_a_command_and_for_nothing_else() {
    let stopped = Status::Stopped { code: Some(0) };
    let mut situation = served("test", EnvironmentState::Asleep, stopped);
    assert_eq!(steps(&situation), []);
    situation.traffic.wanted = true;
    assert_eq!(steps(&situation), wake_up());
    situation.traffic.wanted = false;
    situation.environment.asked = Some(Asked::Wake);
    assert_eq!(steps(&situation), wake_up());
}

#[test]
fn a_sleeper_whose_container_is_gone_wakes_all_the_same() {
    let mut situation = served("test", EnvironmentState::Asleep, Status::Running);
    situation.instances[0].status = None;
    assert_eq!(steps(&situation), []);
    situation.traffic.wanted = true;
    assert_eq!(steps(&situation), wake_up());
}

#[test]
fn after_a_crash_a_sleeper_that_runs_is_stopped() {
    let situation = served("test", EnvironmentState::Asleep, Status::Running);
    assert_eq!(steps(&situation), [Step::Stop(id(1))]);
}

#[test]
fn a_live_application_under_a_dead_sandbox_is_stopped_once_where_nothing_should_run() {
    let sleep = [Step::Stop(id(1)), Step::Move(Move::Sleep)];
    let mut ready = served("test", EnvironmentState::Ready, Status::Stranded);
    assert_eq!(steps(&ready), sleep);
    ready.environment.state_since = NOW - 1;
    assert_eq!(steps(&ready), sleep, "it is no fault of the application's");
    ready.traffic.wanted = true;
    assert_eq!(steps(&ready), wake_up(), "a start makes both anew");
    assert_eq!(steps(&served("live", EnvironmentState::Ready, Status::Stranded)), wake_up());
    let mut closing = served("test", EnvironmentState::Closing, Status::Stranded);
    assert_eq!(steps(&closing), sleep);
    closing.traffic.wanted = true;
    assert_eq!(steps(&closing), [Step::Move(Move::Sleep)], "who waits does not wait for the stop");
    let mut asleep = served("test", EnvironmentState::Asleep, Status::Stranded);
    assert_eq!(steps(&asleep), [Step::Stop(id(1))]);
    asleep.traffic.wanted = true;
    assert_eq!(steps(&asleep), wake_up());
    let mut failed = served("test", EnvironmentState::Failed, Status::Stranded);
    assert_eq!(steps(&failed), sleep, "its back-off is over");
    failed.environment.retry_at = NOW + 500;
    assert_eq!(steps(&failed), [Step::Stop(id(1))]);
    failed.environment.asked = Some(Asked::Sleep);
    assert_eq!(steps(&failed), sleep);
    for state in [EnvironmentState::Asleep, EnvironmentState::Failed] {
        let mut dead = served("test", state, Status::Broken);
        dead.environment.retry_at = NOW + 500;
        assert_eq!(steps(&dead), [], "nothing of it lives: no stopping again and again");
    }
}

#[test]
fn after_a_restart_of_the_host_live_comes_back_and_sleepers_stay_asleep() {
    let killed = Status::Stopped { code: Some(137) };
    assert_eq!(steps(&served("live", EnvironmentState::Ready, killed.clone())), wake_up());
    assert_eq!(steps(&served("test", EnvironmentState::Ready, killed)), [Step::Move(Move::Sleep)]);
}

#[test]
fn a_waking_environment_is_ready_when_it_answers_and_failed_when_it_does_not() {
    let mut situation = served("test", EnvironmentState::Waking, Status::Running);
    assert_eq!(steps(&situation), [Step::Launch(id(1)), Step::Probe(id(1))], "after a crash it is begun anew");
    situation.instances[0].launched = true;
    situation.instances[0].probe = Probe::Running;
    assert_eq!(steps(&situation), []);
    situation.instances[0].probe = Probe::Passed;
    assert_eq!(steps(&situation), [Step::Move(Move::Serve)]);
    situation.instances[0].probe = Probe::Failed("never listened".into());
    assert_eq!(steps(&situation), [Step::Move(Move::Fail("never listened".into())), Step::Stop(id(1))]);
    situation.instances[0].probe = Probe::Running;
    situation.instances[0].status = Some(Status::Stopped { code: Some(3) });
    let reason = "the container exited with code 3 before it was ready".to_owned();
    assert_eq!(
        steps(&situation),
        [Step::Move(Move::Fail(reason)), Step::Stop(id(1))],
        "p89: no waiting for the probe's end"
    );
}

#[test]
fn p89_what_ran_out_of_memory_is_told_how_to_get_more() {
    let mut situation = served("live", EnvironmentState::Ready, Status::OutOfMemory);
    situation.environment.state_since = NOW - 1;
    let Some(Step::Move(Move::Fail(reason))) = steps(&situation).pop() else { panic!("it failed soon") };
    assert!(reason.starts_with("it ran out of memory and was killed"), "{reason}");
    situation.environment.state = EnvironmentState::Waking;
    situation.instances[0].launched = true;
    let Step::Move(Move::Fail(reason)) = steps(&situation).remove(0) else { panic!("it cannot be woken") };
    assert!(reason.starts_with("the container ran out of memory") && reason.contains("set --memory"), "{reason}");
    assert_eq!(steps(&served("live", EnvironmentState::Ready, Status::OutOfMemory)), wake_up(), "later it is woken");
}

#[test]
fn p82_a_failed_environment_is_tried_again_after_its_back_off_and_for_somebody() {
    let mut situation = served("test", EnvironmentState::Failed, Status::Stopped { code: Some(1) });
    situation.traffic.wanted = true;
    situation.environment.retry_at = NOW + 500;
    assert_eq!(plan(&situation), Plan { steps: Vec::new(), again_at: Some(NOW + 500) });
    situation.environment.retry_at = NOW;
    assert_eq!(steps(&situation), wake_up());
    situation.traffic.wanted = false;
    assert_eq!(steps(&situation), [Step::Move(Move::Sleep)], "the next visitor is held, not refused");
    let live = served("live", EnvironmentState::Failed, Status::Stopped { code: Some(1) });
    assert_eq!(steps(&live), wake_up(), "somebody always wants Live");
}

#[test]
fn what_stops_soon_after_it_became_ready_is_not_started_again_at_once() {
    let mut situation = served("live", EnvironmentState::Ready, Status::Stopped { code: Some(3) });
    situation.environment.state_since = NOW - 1000;
    let reason = "it exited with code 3 soon after it had become ready".to_owned();
    assert_eq!(steps(&situation), [Step::Move(Move::Fail(reason))]);
    situation.environment.state_since = NOW - millis(STEADY);
    assert_eq!(steps(&situation), wake_up());
}

fn deploying(state: DeploymentState, built: BuildState) -> Situation {
    let mut situation = served("test", EnvironmentState::Asleep, Status::Stopped { code: Some(0) });
    let mut second = deployment(&situation.environment, 2);
    second.state = state;
    situation.build = Some(build(built, &second));
    if state == DeploymentState::Starting {
        let mut sighting = sighting(&second, Status::Running);
        sighting.status = None;
        situation.instances.push(sighting);
    }
    situation.unended = vec![second];
    situation
}

#[test]
fn a_deployment_is_built_started_beside_the_old_one_probed_and_swapped() {
    let target = "d2".to_owned();
    assert_eq!(steps(&deploying(DeploymentState::Queued, BuildState::Queued)), [Step::BeginBuilding(target.clone())]);
    assert_eq!(steps(&deploying(DeploymentState::Building, BuildState::Running)), []);
    let built = deploying(DeploymentState::Building, BuildState::Succeeded);
    assert_eq!(steps(&built), [Step::BeginStarting(target.clone())]);
    let mut starting = deploying(DeploymentState::Starting, BuildState::Succeeded);
    assert_eq!(steps(&starting), [Step::Launch(id(2)), Step::Probe(id(2))]);
    starting.instances[1].launched = true;
    starting.instances[1].status = Some(Status::Running);
    starting.instances[1].probe = Probe::Passed;
    assert_eq!(steps(&starting), [Step::Swap(target)]);
}

#[test]
fn a_failed_build_or_start_ends_the_deployment_and_touches_nothing_else() {
    let fail = |instance, reason: &str| Step::Fail { deployment: "d2".into(), instance, reason: reason.into() };
    assert_eq!(steps(&deploying(DeploymentState::Building, BuildState::Failed)), [fail(None, "step 2 failed")]);
    let mut starting = deploying(DeploymentState::Starting, BuildState::Succeeded);
    starting.instances[1].launched = true;
    starting.instances[1].status = Some(Status::Stopped { code: Some(3) });
    let reason = "the container exited with code 3 before it was ready";
    assert_eq!(steps(&starting), [fail(Some(id(2)), reason)]);
    starting.instances[1].status = Some(Status::Running);
    starting.instances[1].probe = Probe::Failed("answered 502".into());
    assert_eq!(steps(&starting), [fail(Some(id(2)), "answered 502")]);
}

#[test]
fn the_newest_deployment_supersedes_the_others() {
    let mut situation = deploying(DeploymentState::Starting, BuildState::Succeeded);
    let mut third = deployment(&situation.environment, 3);
    third.state = DeploymentState::Queued;
    situation.build = None;
    situation.unended.insert(0, third);
    let expected = [Step::Supersede("d2".into()), Step::BeginBuilding("d3".into()), Step::Remove(id(2))];
    assert_eq!(steps(&situation), expected);
}

#[test]
fn an_environment_with_a_deployment_under_way_is_not_put_to_sleep() {
    let mut situation = served("test", EnvironmentState::Ready, Status::Running);
    situation.traffic.last_active_at = 0;
    let second = deployment(&situation.environment, 2);
    situation.build = Some(build(BuildState::Running, &second));
    situation.unended = vec![Deployment { state: DeploymentState::Building, ..second }];
    assert_eq!(steps(&situation), []);
}

#[test]
fn a_replaced_instance_stays_until_every_edge_is_drained_of_it() {
    let mut situation = served("test", EnvironmentState::Ready, Status::Running);
    let old = deployment(&situation.environment, 2);
    let mut retired = sighting(&old, Status::Running);
    retired.instance.retired = Some((Generation(5), NOW));
    situation.instances.push(retired);
    assert_eq!(steps(&situation), []);
    situation.now = NOW + millis(DRAIN_LIMIT);
    situation.traffic.last_active_at = situation.now;
    assert_eq!(steps(&situation), [Step::Remove(id(2))], "a silent edge does not keep it for ever");
    situation.now = NOW;
    situation.instances[1].drained = true;
    assert_eq!(steps(&situation), [Step::Remove(id(2))]);
}

#[test]
fn a_deleted_environment_goes_only_after_every_edge_forgot_it() {
    let mut situation = served("test", EnvironmentState::Deleting, Status::Running);
    situation.traffic.acked = false;
    situation.environment.state_since = NOW;
    let waits = Plan { steps: Vec::new(), again_at: Some(NOW + millis(DRAIN_LIMIT)) };
    assert_eq!(plan(&situation), waits, "a silent edge does not keep it for ever");
    situation.traffic.acked = true;
    assert_eq!(steps(&situation), [Step::Remove(id(1)), Step::Forget]);
}

const HOUR: Millis = 3_600_000;

/// As the reconciler sees it, an hour after or before its times were written.
fn seen(mut situation: Situation, now: Millis) -> Situation {
    situation.now = now;
    situation.traffic.last_active_at = now;
    as_of(&mut situation.environment, now);
    for sighting in &mut situation.instances {
        retired_by(std::slice::from_mut(&mut sighting.instance), now);
    }
    situation
}

/// What is written at an hour's distance is waited for as if it were written now, and no longer, while the clock goes on.
fn is_due(written: &dyn Fn(Millis) -> Situation, limit: Duration, then: &[Step]) {
    let forward = seen(written(NOW - HOUR), NOW);
    assert_eq!(steps(&forward), then, "the clock was set forward");
    let mut back = seen(written(NOW + HOUR), NOW);
    let waits = plan(&back);
    assert!(waits.steps.is_empty() && waits.again_at.is_some_and(|at| at <= NOW + millis(limit)), "{waits:?}");
    for part in 1..=4 {
        assert!(steps(&back).is_empty(), "it is too early");
        back = seen(back, NOW + millis(limit) * part / 4);
    }
    assert_eq!(steps(&back), then, "the clock was set back");
}

#[test]
fn c21_no_limit_is_stretched_by_a_clock_that_was_set_back_or_forward() {
    let failed = |at| {
        let mut situation = served("live", EnvironmentState::Failed, Status::Stopped { code: Some(1) });
        situation.environment.failures = 1;
        situation.environment.state_since = at;
        situation.environment.retry_at = at + 1000;
        situation
    };
    is_due(&failed, Duration::from_millis(1200), &wake_up());
    let closing = |at| {
        let mut situation = served("test", EnvironmentState::Closing, Status::Running);
        situation.environment.state_since = at;
        situation
    };
    is_due(&closing, CLOSING_LIMIT, &[Step::Move(Move::Reopen)]);
    let steady = |at| {
        let mut situation = served("live", EnvironmentState::Ready, Status::Running);
        situation.environment.failures = 2;
        situation.environment.state_since = at;
        situation
    };
    is_due(&steady, STEADY, &[Step::Forgive]);
    let deleted = |at| {
        let mut situation = served("test", EnvironmentState::Deleting, Status::Running);
        situation.environment.state_since = at;
        situation.traffic.acked = false;
        situation
    };
    is_due(&deleted, DRAIN_LIMIT, &[Step::Remove(id(1)), Step::Forget]);
    let replaced = |at| {
        let mut situation = served("live", EnvironmentState::Ready, Status::Running);
        let mut retired = sighting(&deployment(&situation.environment, 2), Status::Running);
        retired.instance.retired = Some((Generation(5), at));
        situation.instances.push(retired);
        situation
    };
    is_due(&replaced, DRAIN_LIMIT, &[Step::Remove(id(2))]);
}

#[test]
fn c21_what_became_ready_before_the_clock_was_set_back_is_steady_in_time() {
    let mut situation = served("live", EnvironmentState::Ready, Status::Stopped { code: Some(3) });
    situation.environment.state_since = NOW + HOUR;
    let situation = seen(situation, NOW);
    assert!(matches!(steps(&situation)[..], [Step::Move(Move::Fail(_))]), "as if it had become ready now");
    assert_eq!(steps(&seen(situation, NOW + millis(STEADY))), wake_up());
}

/// Does a step in a toy world in which containers either answer or exit.
fn toy(situation: &mut Situation, step: Step, answers: bool) {
    let now = situation.now;
    let find = |situation: &mut Situation, id: &InstanceId| {
        situation.instances.iter().position(|sighting| sighting.instance.id == *id)
    };
    match step {
        Step::Launch(id) => {
            let index = find(situation, &id).expect("plans name instances that are there");
            let sighting = &mut situation.instances[index];
            sighting.launched = true;
            sighting.probe = Probe::Never;
            sighting.status = Some(if answers { Status::Running } else { Status::Stopped { code: Some(1) } });
        }
        Step::Probe(id) => {
            let index = find(situation, &id).expect("plans name instances that are there");
            situation.instances[index].probe = if answers { Probe::Passed } else { Probe::Failed("silent".into()) };
        }
        Step::Stop(id) => {
            let index = find(situation, &id).expect("plans name instances that are there");
            let sighting = &mut situation.instances[index];
            sighting.launched = false;
            sighting.probe = Probe::Never;
            let dead = [Some(Status::Stranded), Some(Status::Broken)].contains(&sighting.status);
            sighting.status = Some(if dead { Status::Broken } else { Status::Stopped { code: Some(0) } });
        }
        Step::Remove(id) => situation.instances.retain(|sighting| sighting.instance.id != id),
        Step::Move(to) => {
            let environment = &mut situation.environment;
            environment.state_since = now;
            environment.asked = None;
            environment.state = match to {
                Move::Close => EnvironmentState::Closing,
                Move::Reopen | Move::Serve => EnvironmentState::Ready,
                Move::Sleep => EnvironmentState::Asleep,
                Move::Wake => EnvironmentState::Waking,
                Move::Fail(_) | Move::Lack(_) => EnvironmentState::Failed,
            };
            if environment.state == EnvironmentState::Failed {
                environment.retry_at = now + 1000;
                environment.failures += 1;
            }
            if environment.state == EnvironmentState::Ready {
                situation.traffic.wanted = false;
                situation.traffic.last_active_at = now;
            }
            situation.traffic.drained = environment.state == EnvironmentState::Closing;
        }
        Step::Forgive => situation.environment.failures = 0,
        Step::BeginBuilding(_) => {
            situation.unended[0].state = DeploymentState::Building;
            situation.build = Some(build(BuildState::Succeeded, &situation.unended[0]));
        }
        Step::BeginStarting(_) => {
            situation.unended[0].state = DeploymentState::Starting;
            let mut sighting = sighting(&situation.unended[0], Status::Running);
            sighting.status = None;
            situation.instances.push(sighting);
        }
        Step::Swap(id) => {
            situation.unended.retain(|deployment| deployment.id != id);
            for sighting in &mut situation.instances {
                if sighting.instance.deployment_id != id {
                    sighting.instance.retired = Some((Generation(9), now));
                    sighting.drained = true;
                }
            }
            situation.environment.serving = Some(id);
            situation.environment.state = EnvironmentState::Ready;
            situation.environment.state_since = now;
            situation.traffic = Traffic { last_active_at: now, ..quiet() };
        }
        Step::Fail { deployment, .. } | Step::Supersede(deployment) => {
            situation.unended.retain(|kept| kept.id != deployment);
        }
        Step::Forget => situation.environment.state = EnvironmentState::Empty,
    }
}

fn any_status() -> impl Strategy<Value = Option<Status>> {
    prop_oneof![
        Just(None),
        Just(Some(Status::Running)),
        Just(Some(Status::Stopped { code: None })),
        Just(Some(Status::Stopped { code: Some(1) })),
        Just(Some(Status::OutOfMemory)),
        Just(Some(Status::Stranded)),
        Just(Some(Status::Broken)),
    ]
}

fn any_state() -> impl Strategy<Value = EnvironmentState> {
    prop_oneof![
        Just(EnvironmentState::Ready),
        Just(EnvironmentState::Closing),
        Just(EnvironmentState::Asleep),
        Just(EnvironmentState::Waking),
        Just(EnvironmentState::Failed),
    ]
}

fn any_deployment() -> impl Strategy<Value = Option<DeploymentState>> {
    prop_oneof![
        Just(None),
        Just(Some(DeploymentState::Queued)),
        Just(Some(DeploymentState::Building)),
        Just(Some(DeploymentState::Starting)),
    ]
}

proptest! {
    /// From whatever a crash left: it comes to rest, nobody who waits is forgotten, what sleeps is stopped, and nothing is left over.
    #[test]
    fn from_any_rows_it_comes_to_rest_in_a_state_that_is_right(
        state in any_state(), status in any_status(), second in any_deployment(), second_status in any_status(),
        live: bool, wanted: bool, answers: bool, launched: bool,
    ) {
        let mut situation = served(if live { "live" } else { "test" }, state, Status::Running);
        situation.instances[0].status = status;
        situation.instances[0].launched = launched;
        situation.traffic.wanted = wanted;
        if let Some(second) = second {
            let mut target = deployment(&situation.environment, 2);
            target.state = second;
            situation.build = (second != DeploymentState::Queued).then(|| build(BuildState::Succeeded, &target));
            if second == DeploymentState::Starting {
                let mut sighting = sighting(&target, Status::Running);
                sighting.status = second_status;
                situation.instances.push(sighting);
            }
            situation.unended = vec![target];
        }
        let mut rounds = 0;
        loop {
            let plan = plan(&situation);
            if plan.steps.is_empty() {
                break;
            }
            for planned in plan.steps {
                toy(&mut situation, planned.step, answers);
            }
            rounds += 1;
            prop_assert!(rounds < 50, "it does not come to rest: {situation:?}");
        }
        prop_assert!(situation.unended.is_empty(), "every deployment ends");
        prop_assert_eq!(situation.instances.len(), 1, "only what serves is kept");
        let serving = situation.serving().expect("an environment that served still has its instance");
        let running = serving.status == Some(Status::Running);
        let lives = serving.status.as_ref().is_some_and(Status::lives);
        match situation.environment.state {
            EnvironmentState::Ready => prop_assert!(running),
            EnvironmentState::Asleep => prop_assert!(!lives && !situation.traffic.wanted),
            EnvironmentState::Failed => prop_assert!(!lives && !answers || situation.now < situation.environment.retry_at || !wanted),
            other => prop_assert!(false, "{other:?} is no state to rest in"),
        }
    }
}
