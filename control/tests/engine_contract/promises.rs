//! The promises; each gets an engine with nothing on it.

use std::time::Duration;

use dormouse_control::context::archive;
use dormouse_control::engine::{Build, BuildError, EngineError, LogLine, Logs, Started, Status};
use dormouse_link::InstanceId;
use tokio::sync::mpsc;

use crate::support::{Bed, Outsider, PORT, SOON, answer, application, context, get, sandbox_answers};

const GRACE: Duration = Duration::from_secs(5);

pub(crate) async fn prepared_twice_it_is_the_same_network(bed: Bed) {
    assert_eq!(bed.engine.prepare().await.unwrap(), bed.network);
    assert!(bed.network.prefix >= 22 && bed.network.prefix <= 24);
}

pub(crate) async fn a_commit_without_a_dockerfile_is_its_developers_fault(bed: Bed) {
    let (built, _) = bed.build("dormouse/app:1", archive(&[("README", b"x", 0o644)])).await;
    let Err(BuildError::Failed(words)) = built else { panic!("{built:?}") };
    assert!(words.contains("no Dockerfile"), "{words}");
}

pub(crate) async fn a_step_that_fails_is_its_developers_fault(bed: Bed) {
    let file = "# fake: fail-build returned a non-zero code: 3\nFROM scratch\nCOPY application /application\n\
                RUN [\"/application\", \"log\", \"from the step\", \"exit\", \"3\"]\n";
    let (built, log) = bed.build("dormouse/app:1", context(file)).await;
    let Err(BuildError::Failed(words)) = built else { panic!("{built:?}") };
    assert!(words.contains("returned a non-zero code: 3"), "{words}");
    assert!(log.iter().any(|line| line == "Step 1/3 : FROM scratch" || line.starts_with("Step 1/")), "{log:?}");
    assert_eq!(bed.engine.image("dormouse/app:1").await.unwrap(), None);
}

pub(crate) async fn a_build_that_takes_too_long_is_stopped(bed: Bed) {
    let file = format!(
        "# fake: slow-build 60s\nFROM scratch\n{}\nCOPY application /application\nENV PORT=8080\n\
         RUN [\"/application\", \"serve\", \"x\"]\n",
        bed.label()
    );
    let (sender, _reader) = mpsc::channel(100);
    let deadline = Duration::from_secs(2);
    let build =
        Build { tag: "dormouse/app:1".to_owned(), context: context(&file), labels: Default::default(), deadline };
    let built = tokio::time::timeout(SOON, bed.engine.build(build, sender)).await.expect("it is stopped");
    assert!(matches!(built, Err(BuildError::Deadline(_))), "{built:?}");
    bed.layers_go().await;
    assert_eq!(bed.engine.image("dormouse/app:1").await.unwrap(), None);
}

pub(crate) async fn a_build_goes_on_when_nobody_reads_its_log(bed: Bed) {
    let (sender, reader) = mpsc::channel(1);
    drop(reader);
    let context = application(&[("serve", "x")], "");
    let build = Build { tag: "dormouse/app:1".to_owned(), context, labels: Default::default(), deadline: SOON };
    let image = bed.engine.build(build, sender).await.unwrap();
    assert_eq!(bed.engine.image("dormouse/app:1").await.unwrap(), Some(image));
}

pub(crate) async fn an_image_says_what_it_exposes(bed: Bed) {
    let more = "EXPOSE 9090/tcp 8080 53/udp\nENV PORT=8081";
    let (built, _) = bed.build("dormouse/app:1", application(&[("serve", "x")], more)).await;
    let image = built.unwrap();
    assert_eq!((image.exposed.as_slice(), image.port.as_deref()), ([8080, 9090].as_slice(), Some("8081")));
    assert_eq!(bed.engine.image("dormouse/app:1").await.unwrap().as_ref(), Some(&image));
    assert_eq!(bed.engine.image("dormouse/app:2").await.unwrap(), None);
    // Without a cache it is another one each time.
    let (built, _) = bed.build("dormouse/app:2", application(&[("serve", "x")], more)).await;
    assert_ne!(built.unwrap().id, image.id);
    bed.engine.remove_image("dormouse/app:1").await.unwrap();
    bed.engine.remove_image("dormouse/app:1").await.unwrap();
    assert_eq!(bed.engine.image("dormouse/app:1").await.unwrap(), None);
    assert!(bed.engine.image("dormouse/app:2").await.unwrap().is_some());
}

pub(crate) async fn an_instance_answers_at_its_address(bed: Bed) {
    bed.image("dormouse/app:1", &[("serve", "hello")]).await;
    let instance = bed.instance(1, "dormouse/app:1");
    assert_eq!(bed.engine.instances().await.unwrap(), []);
    assert_eq!(bed.engine.start(instance.clone()).await.unwrap(), Started::Container);
    let said = answer(&instance, PORT).await;
    for (name, value) in &instance.variables {
        assert!(said.contains(&format!("\n{name}={value}\n")), "{name} in {said}");
    }
    assert!(said.contains("\r\n\r\nhello\n"), "{said}");
    sandbox_answers(&instance).await;
    let all = bed.engine.instances().await.unwrap();
    assert_eq!((all.len(), &all[0].environment, &all[0].status), (1, &instance.environment, &Status::Running));
}

pub(crate) async fn started_twice_it_is_started_once(bed: Bed) {
    let instance = bed.running().await;
    assert_eq!(bed.engine.start(instance.clone()).await.unwrap(), Started::Nothing);
    answer(&instance, PORT).await;
}

pub(crate) async fn stopped_it_keeps_its_address(bed: Bed) {
    let instance = bed.running().await;
    for _ in 0..2 {
        bed.engine.stop(&instance.id, GRACE).await.unwrap();
        let status = bed.status(&instance).await;
        // It ended by SIGTERM, long before its grace.
        assert!(matches!(status, Some(Status::Stopped { code: Some(0 | 143) })), "{status:?}");
        assert!(get(&instance, PORT).await.is_err());
        sandbox_answers(&instance).await;
    }
    assert_eq!(bed.engine.start(instance.clone()).await.unwrap(), Started::Container);
    answer(&instance, PORT).await;
    assert_eq!(bed.status(&instance).await, Some(Status::Running));
}

pub(crate) async fn removed_nothing_of_it_is_left(bed: Bed) {
    let instance = bed.running().await;
    for _ in 0..2 {
        bed.engine.remove(&instance.id).await.unwrap();
        assert_eq!(bed.status(&instance).await, None);
    }
    bed.engine.stop(&instance.id, GRACE).await.unwrap();
    let answered = tokio::time::timeout(Duration::from_secs(1), get(&instance, PORT)).await;
    assert!(!matches!(answered, Ok(Ok(_))), "{answered:?}");
    // Its address is free for another one.
    let next = dormouse_control::engine::Instance { id: InstanceId::new("i2"), ..instance };
    assert_eq!(bed.engine.start(next.clone()).await.unwrap(), Started::Container);
    sandbox_answers(&next).await;
}

pub(crate) async fn an_application_that_is_killed_is_stopped_and_told_of(bed: Bed) {
    let instance = bed.running().await;
    let mut events = bed.engine.events();
    // Signals of what was before: they stop, as nothing happens.
    while tokio::time::timeout(Duration::from_millis(500), events.recv()).await.is_ok() {}
    bed.outsider.kill(&instance);
    tokio::time::timeout(SOON, events.recv()).await.expect("it is told").expect("the engine is there");
    bed.becomes(&instance, Some(Status::Stopped { code: Some(137) })).await;
    assert_eq!(bed.engine.start(instance.clone()).await.unwrap(), Started::Container);
    answer(&instance, PORT).await;
}

pub(crate) async fn an_application_that_exits_says_its_code(bed: Bed) {
    bed.image("dormouse/app:1", &[("log", "bye"), ("exit", "3")]).await;
    let instance = bed.instance(1, "dormouse/app:1");
    assert_eq!(bed.engine.start(instance.clone()).await.unwrap(), Started::Container);
    bed.becomes(&instance, Some(Status::Stopped { code: Some(3) })).await;
    assert_eq!(bed.engine.start(instance.clone()).await.unwrap(), Started::Container);
}

pub(crate) async fn an_application_paused_by_hand_is_resumed(bed: Bed) {
    let instance = bed.running().await;
    bed.outsider.pause(&instance);
    bed.becomes(&instance, Some(Status::Paused)).await;
    assert_eq!(bed.engine.start(instance.clone()).await.unwrap(), Started::Container);
    assert_eq!(bed.status(&instance).await, Some(Status::Running));
    bed.outsider.pause(&instance);
    bed.engine.stop(&instance.id, GRACE).await.unwrap();
    assert!(matches!(bed.status(&instance).await, Some(Status::Stopped { .. })));
}

pub(crate) async fn a_sandbox_lost_behind_our_back_is_made_anew(bed: Bed) {
    let instance = bed.running().await;
    bed.outsider.lose_sandbox(&instance);
    bed.becomes(&instance, Some(Status::Stranded)).await;
    bed.engine.stop(&instance.id, GRACE).await.unwrap();
    bed.becomes(&instance, Some(Status::Broken)).await;
    assert_eq!(bed.engine.start(instance.clone()).await.unwrap(), Started::Container);
    bed.outsider.lose_sandbox(&instance);
    bed.becomes(&instance, Some(Status::Stranded)).await;
    assert_eq!(bed.engine.start(instance.clone()).await.unwrap(), Started::Container);
    assert_eq!(bed.status(&instance).await, Some(Status::Running));
    answer(&instance, PORT).await;
    sandbox_answers(&instance).await;
}

pub(crate) async fn containers_lost_behind_our_back_are_made_anew(bed: Bed) {
    let instance = bed.running().await;
    bed.outsider.lose(&instance);
    bed.becomes(&instance, None).await;
    assert_eq!(bed.engine.start(instance.clone()).await.unwrap(), Started::Container);
    answer(&instance, PORT).await;
}

pub(crate) async fn without_its_image_it_does_not_start(bed: Bed) {
    let instance = bed.instance(1, "dormouse/app:1");
    for _ in 0..2 {
        let error = bed.engine.start(instance.clone()).await.unwrap_err();
        assert!(matches!(&error, EngineError::NoImage(tag) if tag == "dormouse/app:1"), "{error:?}");
    }
    bed.image("dormouse/app:1", &[("serve", "hello")]).await;
    assert_eq!(bed.engine.start(instance.clone()).await.unwrap(), Started::Container);
    answer(&instance, PORT).await;
}

pub(crate) async fn what_the_engine_cannot_start_leaves_nothing_that_changes_a_repeat(bed: Bed) {
    let more = "# fake: cannot-start unable to find user nobody-here\nUSER nobody-here";
    bed.build("dormouse/app:1", application(&[("serve", "x")], more)).await.0.unwrap();
    let instance = bed.instance(1, "dormouse/app:1");
    for _ in 0..2 {
        let error = bed.engine.start(instance.clone()).await.unwrap_err();
        assert!(matches!(&error, EngineError::Start(words) if words.contains("nobody-here")), "{error:?}");
        assert_eq!(bed.status(&instance).await, Some(Status::Stopped { code: None }));
    }
}

pub(crate) async fn logs_are_told_by_line_and_end_with_the_container(bed: Bed) {
    bed.image("dormouse/app:1", &[("log", "one"), ("error", "two"), ("log", "three"), ("serve", "x")]).await;
    let instance = bed.instance(1, "dormouse/app:1");
    let logs = |tail, follow| bed.engine.logs(&instance.id, Logs { tail, follow });
    assert!(matches!(logs(10, false).await, Err(EngineError::NoInstance(id)) if id == instance.id));
    bed.engine.start(instance.clone()).await.unwrap();
    answer(&instance, PORT).await;

    let mut lines = read(logs(10, false).await.unwrap()).await;
    lines.sort_by_key(|line| line.stderr); // Docker does not keep the order between the two.
    let expected = [(false, "one"), (false, "three"), (true, "two")];
    assert_eq!(lines, expected.map(|(stderr, text)| LogLine { stderr, text: text.to_owned() }));
    assert_eq!(read(logs(1, false).await.unwrap()).await.len(), 1);

    let mut followed = logs(10, true).await.unwrap();
    for _ in 0..3 {
        assert!(tokio::time::timeout(SOON, followed.recv()).await.unwrap().is_some());
    }
    let more = tokio::time::timeout(Duration::from_millis(300), followed.recv()).await;
    assert!(more.is_err(), "it goes on while the container does: {more:?}");
    bed.engine.stop(&instance.id, GRACE).await.unwrap();
    assert_eq!(tokio::time::timeout(SOON, read(followed)).await.expect("it ends with the container"), []);
    assert_eq!(read(logs(10, false).await.unwrap()).await.len(), 3);
}

async fn read(mut lines: mpsc::Receiver<LogLine>) -> Vec<LogLine> {
    let mut all = Vec::new();
    while let Some(line) = lines.recv().await {
        all.push(line);
    }
    all
}

pub(crate) async fn installations_do_not_see_each_other(bed: Bed) {
    let other = bed.neighbour().await;
    assert_ne!(other.network, bed.network);
    let instance = bed.running().await;
    assert_eq!(other.engine.image("dormouse/app:1").await.unwrap(), None);
    assert_eq!(other.engine.instances().await.unwrap(), []);
    // The same names on both.
    let twin = other.running().await;
    assert_eq!(twin.id, instance.id);
    other.engine.stop(&instance.id, GRACE).await.unwrap();
    other.engine.remove(&instance.id).await.unwrap();
    other.engine.remove_image("dormouse/app:1").await.unwrap();
    other.engine.remove_all().await.unwrap();
    assert_eq!(bed.status(&instance).await, Some(Status::Running));
    assert!(bed.engine.image("dormouse/app:1").await.unwrap().is_some());
    answer(&instance, PORT).await;
}

pub(crate) async fn remove_all_leaves_nothing(bed: Bed) {
    let instance = bed.running().await;
    let file =
        "FROM scratch AS first\nCOPY application /one\nENV A=1\nFROM scratch\nCOPY --from=first /one /application\n";
    bed.build("dormouse/app:2", context(file)).await.0.unwrap();
    for _ in 0..2 {
        bed.engine.remove_all().await.unwrap();
        assert_eq!(bed.engine.instances().await.unwrap(), []);
        assert_eq!(bed.engine.image("dormouse/app:1").await.unwrap(), None);
    }
    if let Outsider::Docker(left) = &bed.outsider {
        assert_eq!((left.containers(), left.images(), left.networks()), Default::default());
    }
    // Its network is gone, so Docker's address would lead elsewhere.
    if let Outsider::Fake(_) = &bed.outsider {
        assert!(get(&instance, PORT).await.is_err());
    }
}
