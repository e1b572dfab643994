//! What `/metrics` says.

use std::net::SocketAddr;

use super::client::Client;

/// The whole text.
pub(crate) async fn text(admin: SocketAddr) -> String {
    let answer = Client::connect(admin).await.get("admin", "/metrics").await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.field("content-type").as_deref(), Some("text/plain; version=0.0.4"));
    answer.text()
}

/// The sum of all series of that name whose labels have all of `labels`, each as `name="value"`.
pub(crate) fn sum(text: &str, name: &str, labels: &[&str]) -> f64 {
    let series = text.lines().filter(|line| line.split(['{', ' ']).next() == Some(name));
    let has = |line: &&str| labels.iter().all(|label| line.contains(label));
    series.filter(has).map(|line| line.rsplit(' ').next().expect("a value").parse::<f64>().expect("a number")).sum()
}

/// Asks until a sum is as it should be: what is counted at a request's end may come after its answer.
pub(crate) async fn comes_to(admin: SocketAddr, value: f64, (name, labels): (&str, &[&str])) {
    super::soon(&format!("{name} {labels:?} to be {value}"), async {
        while sum(&text(admin).await, name, labels) != value {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    })
    .await;
}
