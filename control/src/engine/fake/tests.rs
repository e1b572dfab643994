use std::net::{IpAddr, SocketAddr};

use dormouse_link::EnvironmentId;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::*;
use crate::engine::Status;

const SOON: Duration = Duration::from_secs(10);

/// An engine with an image of this Dockerfile, and an instance of it.
async fn engine(dockerfile: &str) -> (Fake, Instance) {
    let fake = Fake::new();
    let context = crate::context::archive(&[("Dockerfile", dockerfile.as_bytes(), 0o644)]);
    let build = Build { tag: "app:1".to_owned(), context, labels: BTreeMap::new(), deadline: SOON };
    fake.build(build, mpsc::channel(100).0).await.unwrap();
    let subnet = fake.prepare().await.unwrap().subnet;
    let instance = Instance {
        id: InstanceId::new("i1"),
        environment: EnvironmentId::new("e1"),
        name: "app-test-1".to_owned(),
        image: "app:1".to_owned(),
        address: IpAddr::V4(Ipv4Addr::from_bits(subnet.to_bits() + 9)),
        variables: BTreeMap::from([("PORT".to_owned(), "8080".to_owned()), ("STAGE".to_owned(), "test".to_owned())]),
        limits: crate::limits::Limits::default(),
    };
    (fake, instance)
}

/// Sends `request` and reads until the other side closes.
async fn ask(instance: &Instance, request: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(SocketAddr::new(instance.address, 8080)).await?;
    stream.write_all(request.as_bytes()).await?;
    let mut said = String::new();
    stream.read_to_string(&mut said).await?;
    Ok(said)
}

async fn becomes(fake: &Fake, status: Status) {
    let wait = async {
        let mut happened = fake.0.happened.subscribe();
        while fake.instances().await.unwrap()[0].status != status {
            happened.changed().await.unwrap();
        }
    };
    tokio::time::timeout(SOON, wait).await.expect("it becomes so soon");
}

#[tokio::test]
async fn requests_follow_one_another_on_a_connection() {
    let (fake, instance) = engine("# fake: body hello\n").await;
    fake.start(instance.clone()).await.unwrap();
    let all = "POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\nabcPOST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n\
               3\r\nabc\r\n0\r\n\r\nHEAD / HTTP/1.1\r\n\r\nGET / HTTP/1.0\r\n\r\n";
    let said = ask(&instance, all).await.unwrap();
    assert_eq!((said.matches("HTTP/1.1 200").count(), said.matches("hello\nPORT=8080\nSTAGE=test\n").count()), (4, 3));
}

#[tokio::test]
async fn images_do_what_their_scripts_say() {
    let (fake, instance) = engine("# fake: status 502\n# fake: exit-after-ready\n").await;
    fake.start(instance.clone()).await.unwrap();
    assert!(ask(&instance, "GET / HTTP/1.1\r\n\r\n").await.unwrap_or_default().starts_with("HTTP/1.1 502"));
    becomes(&fake, Status::Stopped { code: Some(1) }).await;

    let (fake, instance) = engine("# fake: exit 3\n# fake: boot 20ms\n").await;
    fake.start(instance.clone()).await.unwrap();
    assert_eq!(fake.instances().await.unwrap()[0].status, Status::Running);
    becomes(&fake, Status::Stopped { code: Some(3) }).await;

    let (fake, instance) = engine("# fake: never-answer\n").await;
    fake.start(instance.clone()).await.unwrap();
    let answer = ask(&instance, "GET / HTTP/1.1\r\n\r\n");
    assert!(tokio::time::timeout(Duration::from_millis(50), answer).await.is_err());
    fake.stop(&instance.id, Duration::from_millis(1)).await.unwrap();
    becomes(&fake, Status::Stopped { code: Some(137) }).await;
}

#[tokio::test]
async fn a_stop_lets_requests_finish() {
    let (fake, instance) = engine("# fake: answer-after 100ms\n").await;
    fake.start(instance.clone()).await.unwrap();
    let mut stream = TcpStream::connect(SocketAddr::new(instance.address, 8080)).await.unwrap();
    // More than the kernel holds: when all is sent, the server is at it.
    let body = vec![b'x'; 32 << 20];
    stream.write_all(format!("POST / HTTP/1.1\r\nContent-Length: {}\r\n\r\n", body.len()).as_bytes()).await.unwrap();
    stream.write_all(&body).await.unwrap();
    fake.stop(&instance.id, SOON).await.unwrap();
    let mut said = String::new();
    stream.read_to_string(&mut said).await.unwrap();
    assert!(said.starts_with("HTTP/1.1 200"), "{said}");
    assert_eq!(fake.instances().await.unwrap()[0].status, Status::Stopped { code: Some(0) });
}

#[tokio::test]
async fn a_stop_drops_requests_where_the_script_says_so() {
    let (fake, instance) = engine("# fake: answer-after 600s\n# fake: drop-at-stop\n").await;
    fake.start(instance.clone()).await.unwrap();
    let mut stream = TcpStream::connect(SocketAddr::new(instance.address, 8080)).await.unwrap();
    let body = vec![b'x'; 32 << 20];
    stream.write_all(format!("POST / HTTP/1.1\r\nContent-Length: {}\r\n\r\n", body.len()).as_bytes()).await.unwrap();
    stream.write_all(&body).await.unwrap();
    fake.stop(&instance.id, Duration::from_secs(600)).await.unwrap();
    let mut said = String::new();
    // Cut off, in order or by a reset.
    let _ = stream.read_to_string(&mut said).await;
    assert_eq!(said, "");
    assert_eq!(fake.instances().await.unwrap()[0].status, Status::Stopped { code: Some(0) });
}

#[tokio::test]
async fn faults_happen_once_and_in_order() {
    let (fake, instance) = engine("").await;
    fake.fail_next(Operation::Start, Fault::Unavailable);
    fake.fail_next(Operation::Start, Fault::Start("words".to_owned()));
    fake.fail_next(Operation::Start, Fault::AnswerLost);
    assert!(matches!(fake.start(instance.clone()).await, Err(EngineError::Unavailable { .. })));
    assert!(matches!(fake.start(instance.clone()).await, Err(EngineError::Start(words)) if words == "words"));
    assert_eq!(fake.starts(), 0);
    assert!(matches!(fake.start(instance.clone()).await, Err(EngineError::Unavailable { .. })));
    assert_eq!(fake.starts_of(&instance.id), 1);
    assert_eq!(fake.start(instance).await.unwrap(), Started::Nothing);
    assert_eq!(fake.starts(), 1);
}

#[tokio::test]
async fn away_it_answers_nobody_while_its_instances_serve() {
    let (fake, instance) = engine("").await;
    fake.start(instance.clone()).await.unwrap();
    let mut events = fake.events();
    fake.set_available(Availability::Down);
    assert!(matches!(fake.instances().await, Err(EngineError::Unavailable { .. })));
    fake.fail_next(Operation::Prepare, Fault::AnswerLost);
    assert!(matches!(fake.prepare().await, Err(EngineError::Unavailable { .. })));
    assert!(ask(&instance, "GET / HTTP/1.0\r\n\r\n").await.unwrap().starts_with("HTTP/1.1 200"));
    assert!(events.try_recv().is_err());
    fake.set_available(Availability::Up);
    tokio::time::timeout(SOON, events.recv()).await.unwrap().unwrap();
    assert_eq!(fake.instances().await.unwrap()[0].status, Status::Running);
}

#[tokio::test]
async fn a_restart_leaves_all_containers_dead() {
    let (fake, instance) = engine("").await;
    fake.start(instance.clone()).await.unwrap();
    fake.restart();
    assert_eq!(fake.instances().await.unwrap()[0].status, Status::Broken);
    assert_eq!(fake.start(instance.clone()).await.unwrap(), Started::Container);
    assert!(ask(&instance, "GET / HTTP/1.0\r\n\r\n").await.is_ok());
}

#[test]
fn instances_outlive_the_runtime_that_started_them() {
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (fake, instance) = runtime().block_on(async {
        let (fake, instance) = engine("").await;
        fake.start(instance.clone()).await.unwrap();
        (fake, instance)
    });
    let said = runtime().block_on(ask(&instance, "GET / HTTP/1.0\r\n\r\n"));
    assert!(said.unwrap().starts_with("HTTP/1.1 200"));
    drop(fake);
}

#[tokio::test]
async fn it_listens_on_loopback_only() {
    let (fake, instance) = engine("").await;
    let instance = Instance { address: IpAddr::from([10, 0, 0, 1]), ..instance };
    fake.start(instance).await.unwrap();
    becomes(&fake, Status::Stopped { code: Some(1) }).await;
}

#[tokio::test]
async fn a_misspelt_script_fails_its_build() {
    let context = crate::context::archive(&[("Dockerfile", b"# fake: exti 1\n", 0o644)]);
    let build = Build { tag: "app:1".to_owned(), context, labels: BTreeMap::new(), deadline: SOON };
    let built = Fake::new().build(build, mpsc::channel(100).0).await;
    assert!(matches!(built, Err(BuildError::Failed(words)) if words.contains("exti")));
}
