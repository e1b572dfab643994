//! What only real Docker can show.

use std::time::Duration;

use dormouse_control::engine::{Build, BuildError, Instance, SANDBOX_PORT, Started, Status};
use dormouse_control::limits::Limits;
use dormouse_link::InstanceId;
use tokio::sync::mpsc;

use crate::support::{Bed, Leftovers, Outsider, PORT, SOON, answer, application, context, docker, sandbox_answers};

fn left(bed: &Bed) -> &Leftovers {
    match &bed.outsider {
        Outsider::Docker(left) => left,
        Outsider::Fake(_) => unreachable!("these tests use Docker"),
    }
}

/// All images, those without a name, too.
fn all_images() -> String {
    docker(&["images", "--all", "--quiet", "--no-trunc"])
}

#[tokio::test]
async fn a_build_that_is_dropped_is_stopped() {
    let bed = Bed::docker().await;
    // So long that it is never through by itself while the test waits; its name makes it findable.
    let name = format!("step-{}", left(&bed).installation);
    let label = bed.label();
    let file = format!(
        "FROM scratch\n{label}\nCOPY application /application\nENV PORT=8080\nRUN [\"/application\", \"log\", \"{name}\", \"serve\", \"x\"]\n"
    );
    let (sender, mut log) = mpsc::channel(100);
    let build =
        Build { tag: "dormouse/app:1".to_owned(), context: context(&file), labels: Default::default(), deadline: SOON };
    let engine = bed.engine.clone();
    let reached = async {
        while let Some(line) = log.recv().await {
            if line == name {
                return;
            }
        }
    };
    // The build is dropped as soon as its step runs.
    tokio::select! {
        built = engine.build(build, sender) => panic!("{built:?}"),
        () = reached => {}
    }
    let gone = async {
        while docker(&["ps", "--all", "--no-trunc", "--format", "{{.Command}}"]).contains(&name) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), gone).await.expect("the engine stops the step");
    assert_ne!(left(&bed).images(), "");
    bed.layers_go().await;
    assert_eq!(bed.engine.image("dormouse/app:1").await.unwrap(), None);
}

#[tokio::test]
async fn a_step_that_needs_buildkit_is_explained() {
    let bed = Bed::docker().await;
    let file = "FROM scratch\nCOPY application /application\nRUN --mount=type=cache,target=/x [\"/application\"]\n";
    let (built, _) = bed.build("dormouse/app:1", context(file)).await;
    let Err(BuildError::Failed(words)) = built else { panic!("{built:?}") };
    assert!(words.contains("RUN --mount") && words.contains("without BuildKit"), "{words}");
}

#[tokio::test]
async fn a_dockerfile_that_cannot_be_read_is_its_developers_fault() {
    let bed = Bed::docker().await;
    for file in ["", "FORM scratch\n", "FROM scratch\nCOPY nothing /\n"] {
        let (built, _) = bed.build("dormouse/app:1", context(file)).await;
        assert!(matches!(&built, Err(BuildError::Failed(words)) if !words.is_empty()), "{file:?}: {built:?}");
    }
}

#[tokio::test]
async fn a_command_that_cannot_be_run_says_so_in_the_log() {
    let bed = Bed::docker().await;
    let file = "FROM scratch\nCOPY application /application\nENTRYPOINT [\"/nothing\"]\n";
    bed.build("dormouse/app:1", context(file)).await.0.unwrap();
    let instance = bed.instance(1, "dormouse/app:1");
    assert_eq!(bed.engine.start(instance.clone()).await.unwrap(), Started::Container);
    bed.becomes(&instance, Some(Status::Stopped { code: Some(127) })).await;
    let logs = dormouse_control::engine::Logs { tail: 10, follow: false };
    let line = bed.engine.logs(&instance.id, logs).await.unwrap().recv().await.unwrap();
    assert!(line.text.contains("/nothing"), "{line:?}");
}

#[tokio::test]
async fn a_subnet_that_is_taken_is_passed_over() {
    let bed = Bed::docker().await;
    bed.engine.remove_all().await.unwrap();
    let name = format!("taken-{}", left(&bed).installation);
    let label = format!("dormouse.installation={}", left(&bed).installation);
    let subnet = format!("{}/{}", bed.network.subnet, bed.network.prefix);
    docker(&["network", "create", "--label", &label, "--subnet", &subnet, &name]);
    let network = bed.engine.prepare().await.unwrap();
    assert_ne!(network.subnet, bed.network.subnet);
    docker(&["network", "rm", &name]);
}

#[tokio::test]
async fn containers_may_do_no_more_than_they_need() {
    let bed = Bed::docker().await;
    let instance = bed.running().await;
    let show = |part: &str, what: &str| {
        let found = docker(&[
            "ps",
            "--quiet",
            "--filter",
            &format!("label=dormouse.installation={}", left(&bed).installation),
            "--filter",
            &format!("label=dormouse.part={part}"),
        ]);
        docker(&["inspect", "--format", what, found.trim()]).trim().to_owned()
    };
    let host = "{{.HostConfig.Privileged}} {{.HostConfig.SecurityOpt}} {{.HostConfig.RestartPolicy.Name}}";
    assert_eq!(show("app", host), "false [no-new-privileges] no");
    assert_eq!(show("sandbox", host), "false [no-new-privileges] no");
    assert_eq!(
        show("sandbox", "{{.HostConfig.CapDrop}} {{.HostConfig.ReadonlyRootfs}} {{.Config.User}}"),
        "[ALL] true 65534:65534"
    );
    // No published ports, no volumes, no devices: with the last two, no engine's socket either.
    let open =
        "{{len .HostConfig.PortBindings}} {{len .NetworkSettings.Ports}} {{len .Mounts}} {{len .HostConfig.Devices}}";
    assert_eq!([show("app", open), show("sandbox", open)], ["0 0 0 0"; 2].map(str::to_owned));
    assert_eq!(show("sandbox", "{{.Config.Hostname}}"), instance.name);
    assert_eq!(
        show("app", "{{.HostConfig.LogConfig.Type}} {{index .HostConfig.LogConfig.Config \"mode\"}}"),
        "json-file non-blocking"
    );
}

#[tokio::test]
async fn instances_may_not_talk_to_each_other() {
    let bed = Bed::docker().await;
    bed.image("dormouse/app:1", &[("serve", "hello")]).await;
    let icc = "{{index .Options \"com.docker.network.bridge.enable_icc\"}}";
    let networks = left(&bed).networks();
    let off: Vec<String> = networks.lines().map(|id| docker(&["network", "inspect", "--format", icc, id])).collect();
    assert_eq!(off, ["false\n", "false\n"], "one for instances, one for builds");
}

#[tokio::test]
async fn a_sandbox_is_not_held_up_by_those_who_say_nothing() {
    let bed = Bed::docker().await;
    let instance = bed.running().await;
    let mut idle = Vec::new();
    for _ in 0..5 {
        idle.push(tokio::net::TcpStream::connect((instance.address, SANDBOX_PORT)).await.unwrap());
    }
    tokio::time::timeout(Duration::from_secs(5), sandbox_answers(&instance)).await.expect("it answers soon");
}

#[tokio::test]
async fn an_application_in_the_network_of_another_sandbox_is_made_anew() {
    let bed = Bed::docker().await;
    let instance = bed.running().await;
    // A sandbox that was made anew while the application went on: same names, other namespace.
    bed.outsider.lose_sandbox(&instance);
    let neighbour = bed.instance(2, "dormouse/app:1");
    bed.engine.start(neighbour).await.unwrap();
    bed.becomes(&instance, Some(Status::Stranded)).await;
    bed.engine.start(instance.clone()).await.unwrap();
    answer(&instance, PORT).await;
}

#[tokio::test]
async fn builds_that_fail_leave_no_layers() {
    let bed = Bed::docker().await;
    let marker = bed.label();
    // The label stands first, so that each layer on the way carries it.
    let file = format!(
        "FROM scratch\n{marker}\nCOPY application /application\nENV A=1\nRUN [\"/application\", \"exit\", \"1\"]\n"
    );
    let (built, log) = bed.build("dormouse/app:1", context(&file)).await;
    assert!(matches!(built, Err(BuildError::Failed(_))), "{built:?}");
    let made: Vec<&str> =
        log.iter().filter_map(|line| line.strip_prefix(" ---> ")).filter(|id| id.len() == 12).collect();
    let now = all_images();
    assert!(made.len() > 2 && !made.iter().any(|id| now.contains(id)), "{log:#?}\n{now}");
    assert_eq!(left(&bed).containers(), "");
    let (built, _) = bed.build("dormouse/app:1", application(&[("serve", "x")], &marker)).await;
    built.unwrap();
}

#[tokio::test]
async fn a_build_in_stages_leaves_only_its_image() {
    let bed = Bed::docker().await;
    let file = format!(
        "FROM scratch AS first\n{}\nCOPY application /one\nFROM scratch\nCOPY --from=first /one /application\n",
        bed.label()
    );
    let (built, log) = bed.build("dormouse/app:1", context(&file)).await;
    let image = built.unwrap();
    let first: Vec<&str> = log.iter().take_while(|line| !line.starts_with("Step 4/")).map(String::as_str).collect();
    let made: Vec<&str> = first.iter().filter_map(|line| line.strip_prefix(" ---> ")).collect();
    let now = all_images();
    assert!(made.iter().all(|id| id.len() != 12 || !now.contains(id)), "{log:#?}\n{now}");
    assert!(now.contains(&image.id));
}

#[tokio::test]
async fn what_a_failed_build_was_built_upon_stays() {
    let bed = Bed::docker().await;
    let base = bed.image("dormouse/app:1", &[("serve", "old")]).await;
    bed.image("dormouse/app:1", &[("serve", "new")]).await;
    // The old one has no name now, like something that only a failed build would leave.
    let file = format!("FROM {}\nENV A=1\nRUN [\"/application\", \"exit\", \"1\"]\n", base.id);
    let (built, _) = bed.build("dormouse/app:2", context(&file)).await;
    assert!(matches!(built, Err(BuildError::Failed(_))), "{built:?}");
    assert!(all_images().contains(&base.id));
}

#[tokio::test]
async fn an_image_whose_name_went_to_another_one_is_left_over_and_goes() {
    let bed = Bed::docker().await;
    let old = bed.image("dormouse/app:1", &[("serve", "old")]).await;
    let new = bed.image("dormouse/app:1", &[("serve", "new")]).await;
    let leftovers = bed.engine.leftovers().await.unwrap();
    assert!(leftovers.iter().any(|leftover| leftover.image == old.id), "{leftovers:?}");
    for leftover in &leftovers {
        bed.engine.remove_leftover(leftover).await.unwrap();
    }
    let now = all_images();
    assert!(!now.contains(&old.id) && now.contains(&new.id), "{now}");
}

#[tokio::test]
async fn a_start_after_all_was_removed_leaves_nothing() {
    let bed = Bed::docker().await;
    bed.engine.remove_all().await.unwrap();
    bed.image("dormouse/app:1", &[("serve", "x")]).await;
    assert!(bed.engine.start(bed.instance(1, "dormouse/app:1")).await.is_err());
    assert_eq!(left(&bed).containers(), "");
}

/// The one container of a kind.
fn container(bed: &Bed, part: &str) -> String {
    let installation = format!("label=dormouse.installation={}", left(bed).installation);
    let part = format!("label=dormouse.part={part}");
    docker(&["ps", "--all", "--quiet", "--filter", &installation, "--filter", &part]).trim().to_owned()
}

#[tokio::test]
async fn an_application_gets_the_capabilities_and_limits_it_should() {
    let bed = Bed::docker().await;
    bed.image("dormouse/app:1", &[("serve", "hello")]).await;
    // The least that is allowed still starts.
    let limits = Limits { memory_bytes: 16 << 20, cpus_milli: 10_500, processes: 32 };
    let instance = Instance { limits, ..bed.instance(1, "dormouse/app:1") };
    bed.engine.start(instance.clone()).await.unwrap();
    answer(&instance, PORT).await;
    let show = |what: &str| docker(&["inspect", "--format", what, &container(&bed, "app")]).trim().to_owned();
    let host = "{{.HostConfig.Memory}} {{.HostConfig.MemorySwap}} {{.HostConfig.CpuPeriod}} {{.HostConfig.CpuQuota}} \
                {{.HostConfig.PidsLimit}}";
    // More processors than there are is no mistake: an installation may move to another machine.
    assert_eq!(show(host), "16777216 16777216 100000 1050000 32");
    assert_eq!(show("{{.HostConfig.CapDrop}}"), "[ALL]");
    assert_eq!(
        show("{{.HostConfig.CapAdd}}").replace("CAP_", ""),
        "[CHOWN DAC_OVERRIDE FOWNER KILL NET_BIND_SERVICE SETGID SETUID]"
    );
}

#[tokio::test]
async fn what_ran_out_of_memory_is_told_from_what_was_killed() {
    let bed = Bed::docker().await;
    // A child, and not at once: the engine misses it now and then when the container has just begun, or ends by it.
    bed.image("dormouse/app:1", &[("serve-once", "x"), ("child-allocates", "100"), ("serve", "hello")]).await;
    let limits = Limits { memory_bytes: 32 << 20, ..Limits::default() };
    let instance = Instance { limits, ..bed.instance(1, "dormouse/app:1") };
    assert!(!bed.engine.ran_out_of_memory(&instance.id).await.unwrap(), "it is not there yet");
    bed.engine.start(instance.clone()).await.unwrap();
    answer(&instance, PORT).await;
    answer(&instance, PORT).await;
    let app = container(&bed, "app");
    let filter = format!("container={app}");
    let events = ["events", "--since", "5m", "--until", "0s", "--filter", "event=oom", "--filter", &filter];
    let seen = async {
        while docker(&events).is_empty() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(SOON, seen).await.expect("the engine saw the child's end");
    // It tells of it when the rest has ended, too.
    bed.outsider.kill(&instance);
    bed.becomes(&instance, Some(Status::Stopped { code: Some(137) })).await;
    assert!(bed.engine.ran_out_of_memory(&instance.id).await.unwrap());
    let enough = Instance { id: InstanceId::new("i2"), ..bed.instance(2, "dormouse/app:1") };
    bed.engine.start(enough.clone()).await.unwrap();
    answer(&enough, PORT).await;
    bed.outsider.kill(&enough);
    bed.becomes(&enough, Some(Status::Stopped { code: Some(137) })).await;
    assert!(!bed.engine.ran_out_of_memory(&enough.id).await.unwrap());
}

#[tokio::test]
async fn who_floods_its_log_is_not_held_up_and_little_of_it_is_kept() {
    let bed = Bed::docker().await;
    bed.image("dormouse/app:1", &[("flood", "100"), ("serve", "hello")]).await;
    let instance = bed.instance(1, "dormouse/app:1");
    bed.engine.start(instance.clone()).await.unwrap();
    answer(&instance, PORT).await;
    let kept = docker(&["logs", &container(&bed, "app")]).len();
    assert!(kept > 1 << 20 && kept < 21 << 20, "{kept} bytes are kept");
}

#[tokio::test]
async fn steps_of_builds_cannot_reach_one_another_nor_instances_but_the_outside() {
    let bed = Bed::docker().await;
    let instance = bed.running().await;
    // Its steps would never end by themselves; it is dropped at the end.
    let file = format!(
        "FROM scratch\n{}\nCOPY application /application\nENV PORT=8080\n\
         RUN [\"/application\", \"address\", \"_\", \"serve\", \"x\"]\n",
        bed.label()
    );
    let (sender, mut log) = mpsc::channel::<String>(100);
    let build =
        Build { tag: "dormouse/app:2".to_owned(), context: context(&file), labels: Default::default(), deadline: SOON };
    let tried = async {
        let mut address = None;
        while let Some(line) = log.recv().await {
            address = line.strip_prefix("address ").map(str::to_owned);
            if address.is_some() {
                break;
            }
        }
        let neighbour = format!("{}:8080", address.expect("the step says its address"));
        let found = docker(&["network", "inspect", "--format", "{{(index .IPAM.Config 0).Gateway}}", &network(&bed)]);
        let listener = tokio::net::TcpListener::bind((found.trim(), 0)).await.unwrap();
        let outside = listener.local_addr().unwrap().to_string();
        let instance = format!("{}:{PORT}", instance.address);
        let steps = ["address", "_", "connect", &neighbour, "connect", &instance, "connect", &outside];
        let steps = serde_json::to_string(&[&["/application"], steps.as_slice()].concat()).unwrap();
        let file = format!("FROM scratch\n{}\nCOPY application /application\nRUN {steps}\n", bed.label());
        let (built, log) = bed.build("dormouse/app:3", context(&file)).await;
        built.unwrap();
        for line in [format!("{neighbour} closed"), format!("{instance} closed"), format!("{outside} open")] {
            assert!(log.contains(&line), "{line} is missing in {log:#?}");
        }
    };
    let engine = bed.engine.clone();
    tokio::select! {
        built = engine.build(build, sender) => panic!("{built:?}"),
        () = tried => {}
    }
    bed.engine.remove(&instance.id).await.unwrap();
    for tag in ["dormouse/app:1", "dormouse/app:3"] {
        bed.engine.remove_image(tag).await.unwrap();
    }
    bed.layers_go().await;
}

/// The network for builds, by its id.
fn network(bed: &Bed) -> String {
    let name = format!("name=dormouse-{}-build", left(bed).installation);
    docker(&["network", "ls", "--quiet", "--filter", &name]).trim().to_owned()
}

#[tokio::test]
async fn a_build_makes_the_network_it_needs_when_somebody_pruned_it() {
    let bed = Bed::docker().await;
    let step = "RUN [\"/application\", \"log\", \"done\"]";
    for _ in 0..2 {
        bed.build("dormouse/app:1", application(&[("serve", "x")], step)).await.0.unwrap();
        docker(&["network", "rm", &network(&bed)]);
    }
}

#[tokio::test]
async fn a_step_that_eats_too_much_memory_is_stopped_and_told_why() {
    let bed = Bed::docker().await;
    let file = "FROM scratch\nCOPY application /application\nRUN [\"/application\", \"allocate\", \"2500\"]\n";
    let (built, _) = bed.build("dormouse/app:1", context(file)).await;
    let Err(BuildError::Failed(words)) = built else { panic!("{built:?}") };
    assert!(words.contains("more memory than the 2047 MiB"), "{words}");
}
